"""What a container's process is (ContainerConfig, HealthConfig), by ``POST /containers/create``."""

from __future__ import annotations

from typing import Any

import docker
import pytest

from compat.matrix.lab import Cases, Lab, everything

CASES = Cases()
_MS = 1_000_000

CASES.shows("create: Hostname Image Cmd HostConfig", "hostname; cat /etc/hostname", "box\nbox", hostname="box")
CASES.shows("create: User", "id -u; id -g", "1000\n77", user="bob:77")
CASES.shows("create: WorkingDir", "pwd; ls -d /made/here", "/made/here\n/made/here", working_dir="/made/here")
CASES.shows(
    "create: Env",
    'echo "$A-$HOME"; env | grep -c HOSTNAME || true',
    "b c-/root\n0",
    Env=["A=b c", "HOSTNAME"],
)
CASES.shows("create: Entrypoint", "x", "-c x", entrypoint=["echo"], Cmd=["-c", "x"])
CASES.shows("create: Tty", "tty; echo $TERM", "/dev/pts/0\r\nxterm", tty=True)
CASES.shows("create: NetworkDisabled", "ls /sys/class/net", "lo", network_disabled=True)

# words that only Windows' daemon and builds read; here they are kept and shown, and change nothing
CASES.inspected("create: ArgsEscaped", ArgsEscaped=True)
CASES.inspected("create: OnBuild", OnBuild=["RUN false"])
CASES.inspected("create: Shell", Shell=["/no/shell"])
# how the client that makes the container means to attach
CASES.inspected("create: AttachStdin AttachStdout AttachStderr", AttachStdin=True, AttachStdout=True, AttachStderr=True)


@CASES.covers("create: Domainname")
def a_domain(lab: Lab) -> None:
    told = lab.run("cat /proc/sys/kernel/domainname; cat /etc/hosts", hostname="box", domainname="example.test")
    assert told.splitlines()[0] == "example.test"
    assert told.splitlines()[-1].split()[1:] == ["box.example.test", "box"]


@CASES.covers("create: ExposedPorts")
def exposed_ports(lab: Lab) -> None:
    container = lab.start(ports=[(80, "tcp"), (53, "udp")])
    (shown,) = lab.api.containers(filters={"id": container})
    assert sorted((p["PrivatePort"], p["Type"], p.get("PublicPort")) for p in shown["Ports"]) == [
        (53, "udp", None),
        (80, "tcp", None),
    ]
    inspected = lab.api.inspect_container(container)
    assert inspected["NetworkSettings"]["Ports"] == {"80/tcp": None, "53/udp": None}
    assert inspected["Config"]["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}


@CASES.covers("create: OpenStdin StdinOnce")
def input_that_ends_with_its_client(lab: Lab) -> None:
    """The process reads its end when the first client that writes to it has gone; without StdinOnce it does not."""
    for once in (True, False):
        container = lab.create(["cat"], stdin_open=True, StdinOnce=once)
        with lab.attached(container, stdin=1, stdout=1, stream=1) as sock:
            lab.api.start(container)
            sock.sendall(b"said\n")
            assert sock.recv(64)[8:] == b"said\n"
        if once:
            assert lab.api.wait(container)["StatusCode"] == 0
        else:
            assert lab.state(container)["Running"]


@CASES.covers("create: OpenStdin")
def no_input_without_being_asked_for(lab: Lab) -> None:
    assert lab.run("cat; echo ended", stdin_open=False) == "ended"


@CASES.covers("create: Volumes")
def volumes(lab: Lab) -> None:
    container = lab.start("touch /data/f && grep -c ' /data ' /proc/mounts", volumes=["/data"])
    (point,) = lab.api.inspect_container(container)["Mounts"]
    assert (point["Type"], point["Destination"], point["RW"]) == ("volume", "/data", True)
    assert lab.api.inspect_volume(point["Name"])["Mountpoint"] == point["Source"]
    assert lab.api.wait(container)["StatusCode"] == 0
    lab.api.remove_container(container, v=True)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_volume(point["Name"])


@CASES.covers("create: Labels")
def labels(lab: Lab) -> None:
    container = lab.create(labels={"matrix": "yes", "empty": ""})
    assert lab.api.inspect_container(container)["Config"]["Labels"] == {"matrix": "yes", "empty": ""}
    assert lab.ids(filters={"label": "matrix=yes"}) == [container]
    assert lab.ids(filters={"label": "matrix=no"}) == []


@CASES.covers("create: StopSignal StopTimeout")
def how_it_is_stopped(lab: Lab) -> None:
    """The signal is sent first; what outlives the timeout is killed."""
    script = "trap 'exit 7' USR1; trap '' TERM; while :; do sleep 0.05; done"
    container = lab.start(script, stop_signal="SIGUSR1", StopTimeout=20)
    lab.until(lambda: "USR1" in lab.execute(container, "trap") or lab.api.top(container))
    lab.execute(container, "sleep 0.3")
    lab.api.stop(container)
    assert lab.state(container)["ExitCode"] == 7
    deaf = lab.start("trap '' TERM; while :; do sleep 0.05; done", StopTimeout=0)
    lab.api.stop(deaf)
    assert lab.state(deaf)["ExitCode"] == 137


CASES.refuses("create: StopSignal", [400], "invalid signal", "NOSUCH", stop_signal="NOSUCH")


@CASES.covers("create: MacAddress")
def a_hardware_address_of_the_whole_container(lab: Lab) -> None:
    """Since API 1.44 the field is out of use: the address is the network's, and the client is told so."""
    told = lab.run("cat /sys/class/net/eth0/address", mac_address="02:42:ac:11:00:77")
    assert told == "02:42:ac:11:00:77"


@CASES.covers("create: MacAddress")
def a_hardware_address_of_the_whole_container_is_warned_of(lab: Lab) -> None:
    lab.create(mac_address="02:42:ac:11:00:78")
    assert any("MacAddress field is now deprecated" in text for text in lab.warnings)


CASES.refuses("create: MacAddress", [400], "mac address", mac_address="bogus")
CASES.refuses("create: Image", [404], "No such image: nosuch", image="nosuch")
CASES.refuses("create: Image", [400], "config cannot be empty", image="")
CASES.refuses("create: Env", [400], "invalid environment variable", environment=["=x"])
CASES.refuses("create: User", [400, 500], "nosuch", "passwd", user="nosuch", starts=True)


def _health(lab: Lab, status: str, **check: Any) -> Any:
    """A container's state when its check has come to a result."""
    container = lab.start(healthcheck=check)
    lab.until(lambda: lab.state(container)["Health"]["Status"] == status, f"not {status}: {lab.state(container)}")
    return lab.state(container)["Health"]


@CASES.covers("HealthConfig: Test Interval\ncreate: Healthcheck")
def a_check(lab: Lab) -> None:
    """The words of CMD-SHELL are a shell's, those of CMD a command's; NONE is no check."""
    shell = _health(lab, "healthy", test=["CMD-SHELL", "echo $0 fine"], interval=100 * _MS)
    assert shell["Log"][0]["ExitCode"] == 0
    assert "fine" in shell["Log"][0]["Output"]
    words = _health(lab, "healthy", test=["CMD", "echo", "$0"], interval=100 * _MS)
    assert words["Log"][0]["Output"] == "$0\n"
    container = lab.start(healthcheck={"test": ["NONE"]})
    assert lab.state(container).get("Health", {}).get("Status", "none") == "none"


@CASES.covers("HealthConfig: Test")
def a_check_without_a_command(lab: Lab) -> None:
    """It fails each time."""
    container = lab.start(Healthcheck={"Test": ["CMD"], "Interval": 50 * _MS, "Retries": 1})
    lab.until(lambda: lab.state(container)["Health"]["Status"] == "unhealthy", timeout_s=3)


@CASES.covers("HealthConfig: Retries Interval")
def as_many_failures_as_are_forgiven(lab: Lab) -> None:
    health = _health(lab, "unhealthy", test=["CMD-SHELL", "exit 3"], interval=50 * _MS, retries=2)
    assert health["FailingStreak"] >= 2
    assert health["Log"][-1]["ExitCode"] == 3


@CASES.covers("HealthConfig: Timeout")
def a_check_that_takes_too_long(lab: Lab) -> None:
    health = _health(lab, "unhealthy", test=["CMD", "sleep", "60"], interval=50 * _MS, timeout=100 * _MS, retries=1)
    assert health["Log"][-1]["ExitCode"] == -1
    assert "Health check exceeded timeout (100ms)" in health["Log"][-1]["Output"]


@CASES.covers("HealthConfig: StartPeriod StartInterval")
def a_time_to_come_up(lab: Lab) -> None:
    """Failures do not count in the period, in which the checks have an interval of their own."""
    check = {"Test": ["CMD-SHELL", "test -e /up"], "Interval": 3600 * 1000 * _MS, "Retries": 1}
    check |= {"StartPeriod": 3600 * 1000 * _MS, "StartInterval": 50 * _MS}
    container = lab.start(Healthcheck=check)
    lab.until(lambda: len(lab.state(container)["Health"]["Log"]) >= 2)
    assert lab.state(container)["Health"]["Status"] == "starting"
    assert lab.state(container)["Health"]["FailingStreak"] == 0
    lab.execute(container, "touch /up")
    lab.until(lambda: lab.state(container)["Health"]["Status"] == "healthy")


for _field in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
    _check = {"Test": ["CMD", "true"], _field: 5}
    CASES.refuses(f"HealthConfig: {_field}", [400], _field, "less than 1ms", Healthcheck=_check)
CASES.refuses(
    "HealthConfig: Retries", [400], "Retries", "negative", Healthcheck={"Test": ["CMD", "true"], "Retries": -1}
)


@CASES.covers("POST /containers/create? name platform")
def a_name_and_a_platform(lab: Lab) -> None:
    name = lab.name()
    container = lab.create(query={"name": name, "platform": "linux/amd64"})
    assert lab.api.inspect_container(name)["Id"] == container
    lab.refused([409], name, "already in use", query={"name": name})
    lab.refused([400], "invalid container name", query={"name": "a b"})
    lab.refused([404], "platform", query={"platform": "linux/s390x"})
    lab.refused([400], "bogus", query={"platform": "bogus"})


@CASES.covers("create: Tty OpenStdin")
def a_terminal_ends_with_its_key(lab: Lab) -> None:
    container = lab.create(["cat"], tty=True, stdin_open=True)
    with lab.attached(container, stdin=1, stdout=1, stream=1) as sock:
        lab.api.start(container)
        sock.sendall(b"hi\n\x04")
        assert everything(sock) == b"hi\r\nhi\r\n"
    assert lab.api.wait(container)["StatusCode"] == 0
