"""What clients may ask of containers: honoured, or refused by name with dockerd's status, never ignored in silence."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Daemon
from lamina.client.client import Client
from lamina.errors import Conflict, InvalidArgument, LaminaError, NotFound, Unsupported
from lamina.linux import mount

_CPUS = os.cpu_count() or 1


@pytest.fixture
def client(daemon: Daemon) -> Client:
    return Client(daemon.host)


class Made:
    """Makes containers, and removes them in the end."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ids: list[str] = []

    def create(self, host: dict[str, Any] | None = None, query: dict[str, str] | None = None, **config: Any) -> str:
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host or {}, **config}
        created = self.client.request("POST", "/containers/create", query, body=body).json()
        self.ids.append(created["Id"])
        return str(created["Id"])

    def inspect(self, container: str) -> Any:
        return self.client.request("GET", f"/containers/{container}/json").json()


@pytest.fixture
def made(client: Client) -> Iterator[Made]:
    maker = Made(client)
    yield maker
    for container in maker.ids:
        client.request("DELETE", f"/containers/{container}", {"v": True, "force": True}).read()


def _mount(**fields: Any) -> dict[str, Any]:
    return {"Mounts": [{"Target": "/x", **fields}]}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Runtime": "bogus"}, "unknown or invalid runtime name: bogus"),
        ({"IpcMode": "bogus"}, "invalid IPC mode: bogus"),
        ({"PidMode": "bogus"}, "invalid PID mode: bogus"),
        ({"UTSMode": "bogus"}, "invalid UTS mode: bogus"),
        ({"CgroupnsMode": "bogus"}, "invalid cgroup namespace mode: bogus"),
        ({"IpcMode": "container:nosuch"}, "No such container: nosuch"),
        ({"PidMode": "container:nosuch"}, "No such container: nosuch"),
        ({"NetworkMode": "container:"}, "invalid container format container:<name|id>"),
        ({"SecurityOpt": ["no-new-privileges=bogus"]}, 'invalid --security-opt: "no-new-privileges=bogus"'),
        ({"SecurityOpt": ["seccomp=" + "[" * 100_000]}, "Decoding seccomp profile failed"),
        ({"RestartPolicy": {"Name": "no", "MaximumRetryCount": 5}}, "cannot be used with restart policy 'no'"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 5}]}, "soft limit must be less than or equal to hard"),
        ({"KernelMemory": 100 << 20}, "kernel memory"),
        ({"MemorySwappiness": 200}, "Invalid value: 200, valid memory swappiness range is 0-100"),
        ({"MemorySwappiness": -2}, "Invalid value: -2, valid memory swappiness range is 0-100"),
        ({"MemoryReservation": 5}, "Minimum memory reservation allowed is 6MB"),
        ({"MemoryReservation": 100 << 20, "Memory": 50 << 20}, "can not be less than memory reservation limit"),
        ({"NanoCpus": 999 * 10**9}, f"Range of CPUs is from 0.01 to {_CPUS}.00, as there are only {_CPUS} CPUs"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"NanoCpus": 10**9, "CpuPeriod": 5000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"NanoCpus": -(10**9)}, f"Range of CPUs is from 0.01 to {_CPUS}.00, as there are only {_CPUS} CPUs"),
        ({"Tmpfs": {"/x": "bogus=1"}}, 'invalid tmpfs option ["bogus" "1"]'),
        ({"Tmpfs": {"/x": "size=1m,bogus"}}, 'invalid tmpfs option ["bogus"]'),
        (_mount(Type="tmpfs", TmpfsOptions={"Options": [["bogus"]]}), 'invalid tmpfs option ["bogus"]'),
        ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms"),
        ({"CpuPeriod": -1}, "CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 1}, "CPU cfs quota can not be less than 1ms"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"CpusetCpus": "9999"}, "Requested CPUs are not available - requested 9999"),
        ({"CpusetMems": "9999"}, "Requested memory nodes are not available - requested 9999"),
        ({"ExtraHosts": ["foo"]}, 'bad format for add-host: "foo"'),
        ({"ExtraHosts": ["foo:bar"]}, 'invalid IP address in add-host: "bar"'),
        ({"SecurityOpt": ["bogus=1"]}, 'invalid --security-opt 2: "bogus=1"'),
        ({"SecurityOpt": ["bogus"]}, 'invalid --security-opt 1: "bogus"'),
        ({"CapAdd": ["bogus"]}, 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        ({"Binds": ["/tmp:/x:ro,rw"]}, "invalid mode: ro,rw"),
        (
            {"Binds": ["/tmp:x"]},
            "invalid volume specification: '/tmp:x': invalid mount config for type \"bind\": "
            "invalid mount path: 'x' mount path must be absolute",
        ),
        (
            {"Binds": ["/tmp:/"]},
            "invalid volume specification: '/tmp:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        ({"Binds": ["/tmp:/x:shared,slave"]}, "invalid mode: shared,slave"),
        ({"Binds": ["/tmp:/x:nocopy"]}, "field VolumeOptions must not be specified"),
        ({"Binds": ["named:/x:shared"]}, "field BindOptions must not be specified"),
        ({"Binds": ["/tmp:/x\0"]}, "invalid volume specification"),
        (_mount(Type="bind", Source="/tmp", BindOptions={"Propagation": "bogus"}), "invalid propagation mode: bogus"),
        (_mount(Type="bind", Source="/tmp", VolumeOptions={"NoCopy": True}), "VolumeOptions must not be specified"),
        (_mount(Type="volume", BindOptions={"Propagation": "slave"}), "field BindOptions must not be specified"),
        (_mount(Type="tmpfs", Source="/x"), "field Source must not be specified"),
        (_mount(Type="bind"), "field Source must not be empty"),
        (
            _mount(Type="bind", Source="/tmp", BindOptions={"ReadOnlyForceRecursive": True}),
            "ReadOnlyForceRecursive must be used with ReadOnly",
        ),
        ({"Memory": 1 << 63}, "out of range"),
    ],
)
def test_a_host_config_that_is_wrong_is_refused(made: Made, host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        made.create(host)
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"WorkingDir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
        ({"StopSignal": "bogus"}, "Invalid signal: bogus"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Retries": -1}}, "Retries in Healthcheck cannot be negative"),
        ({"Cmd": ["x" * 200_000]}, "argument is longer than 131072 bytes"),
        ({"Env": ["A=" + "x" * 200_000]}, "environment variable is longer than 131072 bytes"),
        ({"Cmd": ["a\0b"]}, "null character"),
        ({"Volumes": {"/etc/passwd": {}}}, "cannot mount volume over existing file, file exists /etc/passwd"),
        ({"Hostname": "x", "HostConfig": {"UTSMode": "host"}}, "conflicting options: hostname and the UTS mode"),
        ({"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"]}}}}, "user-defined networks"),
        ({"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "x"}}}}, "invalid MAC address"),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "10.1.1.1"}}}}},
            "user specified IP address is supported on user defined networks only",
        ),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv6Address": "fd00::2"}}}}},
            "user specified IP address is supported on user defined networks only",
        ),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Links": ["a"]}}}},
            "links of an endpoint are only supported for user-defined networks",
        ),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "many"}]}}}, "invalid port specification"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "fe80::1%eth0"}]}}}, "invalid IP address"),
    ],
)
def test_a_config_that_is_wrong_is_refused(made: Made, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        made.create(**{"host": None, **config})
    assert message in raised.value.message


@pytest.mark.parametrize(
    "config",
    [
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"DriverOpts": {"a": "b"}}}}},
    ],
)
def test_what_cannot_be_had_yet_is_refused(made: Made, config: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        made.create(**{"host": None, **config})


def test_a_platform_is_checked_against_the_image(made: Made) -> None:
    with pytest.raises(InvalidArgument):
        made.create(query={"platform": "bogus"})
    with pytest.raises(NotFound, match="was found but does not match the specified platform: wanted linux/mips64le"):
        made.create(query={"platform": "linux/mips64le"})
    made.create(query={"platform": "linux"})


def test_limits_that_only_look_odd_are_taken(made: Made) -> None:
    for host in (
        {"MemorySwap": -5},
        {"Memory": (1 << 63) - 1},
        {"Memory": 32 << 20, "MemorySwap": -7},
        {"CpuQuota": -1},
        {"PublishAllPorts": True},
    ):
        container = made.create(host)
        made.client.request("POST", f"/containers/{container}/start").read()


def test_a_container_that_cannot_be_made_leaves_no_volume(made: Made, client: Client) -> None:
    before = client.request("GET", "/volumes").json()["Volumes"]
    with pytest.raises(InvalidArgument):
        made.create(Volumes={"/data": {}, "/etc/passwd": {}})
    assert client.request("GET", "/volumes").json()["Volumes"] == before


def test_directories_of_the_host_are_made_when_nothing_else_can_fail(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        made.create({"Binds": [f"{tmp_path}/new:/a"]}, Volumes={"/etc/passwd": {}})
    assert not (tmp_path / "new").exists()
    made.create({"Binds": [f"{tmp_path}/new:/a"]})
    assert (tmp_path / "new").is_dir()


def test_a_device_that_is_not_there_is_told_in_the_words_that_make_127(made: Made, client: Client) -> None:
    for host in (
        {"Devices": [{"PathOnHost": "/dev/nosuch"}]},
        {"BlkioDeviceReadBps": [{"Path": "/dev/nosuch", "Rate": 1}]},
    ):
        container = made.create(host)
        with pytest.raises(LaminaError, match="no such file or directory"):
            client.request("POST", f"/containers/{container}/start")


def test_security_of_modules_that_the_host_does_not_have_is_passed_over(daemon: Daemon, made: Made) -> None:
    assert _output(daemon, made, "echo ran", {"SecurityOpt": ["label=type:foo"]}) == "ran"
    if not Path("/sys/module/apparmor").exists():
        assert _output(daemon, made, "echo ran", {"SecurityOpt": ["apparmor=foo"]}) == "ran"


def test_a_relative_volume_is_relative_to_the_root(daemon: Daemon, made: Made) -> None:
    assert _output(daemon, made, "mount | grep -c ' /data/a '", Volumes={"data/a": {}}) == "1"


def test_the_host_s_first_process_needs_no_other(daemon: Daemon, made: Made) -> None:
    assert _output(daemon, made, "echo ran", {"Init": True, "PidMode": "host"}) == "ran"


def test_a_request_is_shown_as_docker_completes_it(made: Made) -> None:
    host = {"Memory": 32 << 20, "MemorySwappiness": -1, "PidsLimit": 0, "PidMode": "host"}
    shown = made.inspect(made.create(host, Env=["B=1", "A=2"]))
    completed = shown["HostConfig"]
    assert (completed["MemorySwap"], completed["PidsLimit"], completed["SecurityOpt"]) == (
        64 << 20,
        None,
        ["label=disable"],
    )
    assert "MemorySwappiness" not in completed
    assert shown["Config"]["Env"][:2] == ["B=1", "A=2"]
    assert shown["LogPath"] == ""


def test_a_container_on_the_host_s_network_has_a_place_in_it(daemon: Daemon, made: Made) -> None:
    container = made.create({"NetworkMode": "host"}, Cmd=["sleep", "600"])
    daemon.docker_ok("start", container)
    settings = made.inspect(container)["NetworkSettings"]
    assert os.path.samefile(settings["SandboxKey"], "/proc/self/ns/net")
    assert settings["SandboxID"] == settings["Networks"]["host"]["EndpointID"] != ""


def test_what_is_taken_and_may_not_be_meant_is_told(made: Made, client: Client) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"OomKillDisable": True}}
    created = client.request("POST", "/containers/create", body=body).json()
    made.ids.append(created["Id"])
    assert "OOM killer is disabled for the container, but no memory limit is set" in created["Warnings"][0]


def test_an_empty_request_is_refused_as_one(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="Config cannot be empty in order to create a container"):
        client.request("POST", "/containers/create", body={})


def test_what_has_ended_is_listed_by_its_status_alone(made: Made, client: Client, daemon: Daemon) -> None:
    container = made.create(Cmd=["sh", "-c", "exit 3"])
    daemon.docker("start", "-a", container)
    listed = {
        kind: container in {c["Id"] for c in client.request("GET", "/containers/json", query).json()}
        for kind, query in {
            "exited": {"filters": json.dumps({"exited": ["3"]})},
            "status": {"filters": json.dumps({"status": ["exited"]})},
            "limit": {"limit": "50"},
            "no limit": {"limit": "-2"},
        }.items()
    }
    assert listed == {"exited": False, "status": True, "limit": True, "no limit": False}


def test_waiting_for_an_exit_goes_on_when_a_start_fails(made: Made, client: Client) -> None:
    container = made.create(Cmd=["nonexistent"])
    waiting = client.request("POST", f"/containers/{container}/wait", {"condition": "next-exit"})
    with pytest.raises(LaminaError):
        client.request("POST", f"/containers/{container}/start")
    client.request("DELETE", f"/containers/{container}")
    made.ids.remove(container)
    assert json.loads(waiting.read())["StatusCode"] == 127


def test_an_empty_word_is_a_command_that_is_not_found(made: Made, client: Client) -> None:
    container = made.create(Cmd=[""])
    with pytest.raises(LaminaError, match=r'exec: "": executable file not found in \$PATH'):
        client.request("POST", f"/containers/{container}/start")
    assert made.inspect(container)["State"]["ExitCode"] == 127


def _output(daemon: Daemon, made: Made, command: str, host: dict[str, Any] | None = None, **config: Any) -> str:
    container = made.create(host, Cmd=["sh", "-c", command], **config)
    daemon.docker_ok("start", container)
    daemon.docker_ok("wait", container)
    return daemon.docker_ok("logs", container)


def test_what_is_asked_of_namespaces_is_so(daemon: Daemon, made: Made) -> None:
    assert "eth0" not in _output(daemon, made, "ip link", NetworkDisabled=True)
    assert _output(daemon, made, "mount | grep -c /dev/shm", {"IpcMode": "none"}) == "0"
    assert _output(daemon, made, "hostname", {"NetworkMode": "host"}) == os.uname().nodename
    assert "a.b.c a" in _output(daemon, made, "cat /etc/hosts", Hostname="a.b.c")


def test_options_of_a_tmpfs_are_honoured_in_both_forms(daemon: Daemon, made: Made) -> None:
    options = {"SizeBytes": 1 << 20, "Mode": 0o1770, "Options": [["nr_inodes", "100"], ["exec"]]}
    shown = _output(daemon, made, "mount | grep /x; ls -ld /x", _mount(Type="tmpfs", TmpfsOptions=options))
    assert "size=1024k" in shown
    assert "nr_inodes=100" in shown
    assert "noexec" not in shown
    assert "drwxrwx--T" in shown
    container = made.create({"Tmpfs": {"/x": "size=1m"}})
    assert made.inspect(container)["Mounts"] == []


def test_mounts_are_shown_as_docker_shows_them(made: Made) -> None:
    container = made.create({"Binds": ["/tmp:/a:ro", "shown-volume:/b"], **_mount(Type="tmpfs")}, Volumes={"/c": {}})
    points = {m["Destination"]: m for m in made.inspect(container)["Mounts"]}
    assert points["/a"] == {
        "Type": "bind", "Source": "/tmp", "Destination": "/a", "Mode": "ro", "RW": False, "Propagation": "rprivate"
    }  # fmt: skip
    assert (points["/b"]["Mode"], points["/b"]["Name"], points["/b"]["Driver"]) == ("z", "shown-volume", "local")
    assert points["/c"]["Mode"] == ""
    assert points["/x"] == {
        "Type": "tmpfs", "Source": "", "Destination": "/x", "Mode": "", "RW": True, "Propagation": ""
    }  # fmt: skip
    made.client.request("DELETE", f"/containers/{made.ids.pop()}", {"v": True}).read()
    made.client.request("DELETE", "/volumes/shown-volume").read()


def test_a_read_only_bind_is_so_for_all_that_is_mounted_below_it(daemon: Daemon, made: Made, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    mount.mount("tmpfs", str(below), "tmpfs")
    try:
        for options, written in (({}, "no"), ({"ReadOnlyNonRecursive": True}, "yes")):
            request = _mount(Type="bind", Source=str(tmp_path), ReadOnly=True, BindOptions=options)
            script = "touch /x/f 2>/dev/null && echo bad; touch /x/below/f 2>/dev/null && echo yes || echo no"
            assert _output(daemon, made, script, request) == written
        request = _mount(Type="bind", Source=str(tmp_path), BindOptions={"NonRecursive": True})
        assert _output(daemon, made, "grep -c ' /x' /proc/mounts", request) == "1"
    finally:
        mount.unmount(str(below))


def test_a_device_that_is_a_directory_stands_for_all_in_it(daemon: Daemon, made: Made) -> None:
    device = {"PathOnHost": "/dev/net", "PathInContainer": "/dev/mine", "CgroupPermissions": "rwm"}
    if not Path("/dev/net/tun").is_char_device():
        pytest.skip("there is no /dev/net/tun here")
    assert "tun" in _output(daemon, made, "ls /dev/mine", {"Devices": [device]})


def test_starting_with_a_body_is_refused_and_an_empty_one_is_not(made: Made) -> None:
    container = made.create()
    with pytest.raises(InvalidArgument, match="non-empty request body was deprecated"):
        made.client.request("POST", f"/containers/{container}/start", body={"HostConfig": {}})
    made.client.request("POST", f"/containers/{container}/start", body={}).read()


def test_a_terminal_s_size_needs_two_numbers(made: Made) -> None:
    container = made.create()
    for query in ({}, {"h": "1"}, {"h": "1", "w": "x"}):
        with pytest.raises(InvalidArgument):
            made.client.request("POST", f"/containers/{container}/resize", query)
    with pytest.raises(Conflict):
        made.client.request("POST", f"/containers/{container}/resize", {"h": 1, "w": 1})


def test_a_signal_for_a_stopped_container_is_a_conflict(made: Made) -> None:
    container = made.create()
    with pytest.raises(Conflict, match=f"cannot kill container: {container}: container {container} is not running"):
        made.client.request("POST", f"/containers/{container}/kill")


def test_removing_a_volume_that_is_not_there_is_an_error_without_force(client: Client) -> None:
    assert client.request("DELETE", "/volumes/nosuch", {"force": True}).read() == b""
    with pytest.raises(NotFound):
        client.request("DELETE", "/volumes/nosuch")


def test_logs_with_details_have_a_blank_before_each_line(daemon: Daemon, made: Made) -> None:
    container = made.create(Cmd=["echo", "line"])
    daemon.docker_ok("start", container)
    daemon.docker_ok("wait", container)
    assert daemon.docker("logs", "--details", container).out == " line\n"


def test_logs_with_details_show_what_the_log_s_options_name(daemon: Daemon, made: Made) -> None:
    log = {"Type": "json-file", "Config": {"env": "FOO,NONE", "labels": "l"}}
    container = made.create(
        Cmd=["echo", "line"], Env=["FOO=a b", "BAR=2"], Labels={"l": "1"}, HostConfig={"LogConfig": log}
    )
    daemon.docker_ok("start", container)
    daemon.docker_ok("wait", container)
    assert daemon.docker("logs", "--details", container).out == "FOO=a+b,l=1 line\n"


def test_logs_that_are_not_kept_cannot_be_read(daemon: Daemon, made: Made) -> None:
    result = daemon.docker("logs", made.create(HostConfig={"LogConfig": {"Type": "none"}}))
    assert (result.code, "configured logging driver does not support reading" in result.err) == (1, True)


@pytest.mark.parametrize(
    ("path", "filters"),
    [
        ("/containers/json", {"health": ["bogus"]}),
        ("/containers/json", {"is-task": ["bogus"]}),
        ("/containers/json", {"publish": ["x"]}),
        ("/containers/json", {"expose": ["80-70"]}),
        ("/containers/json", {"expose": ["80-x/tcp"]}),
        ("/containers/json", {"exited": ["9" * 5000]}),
    ],
)
def test_filters_with_values_that_mean_nothing_are_refused(client: Client, path: str, filters: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.request("GET", path, {"filters": json.dumps(filters)})


def test_two_limits_of_time_for_a_prune_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="more than one until filter specified"):
        client.request("POST", "/containers/prune", {"filters": json.dumps({"until": ["1h", "2h"]})})


def test_times_that_cannot_be_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="cannot be after"):
        client.request("GET", "/events", {"since": "10", "until": "5"})
    with pytest.raises(InvalidArgument):
        client.request("GET", "/events", {"since": "9" * 5000, "until": "1"})


def test_names_are_found_by_a_pattern_however_it_is_built(client: Client, made: Made) -> None:
    made.create(query={"name": "a" * 40 + "b"})
    found = {}
    for pattern in ("(a+)+$", "(a+)+b$", "("):
        listed = client.request("GET", "/containers/json", {"all": True, "filters": json.dumps({"name": [pattern]})})
        found[pattern] = len(listed.json())
    assert found == {"(a+)+$": 0, "(a+)+b$": 1, "(": 0}


class _Versioned(http.client.HTTPConnection):
    """A client that names the version it speaks in its paths."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__("lamina", timeout=30)
        self._daemon = daemon

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._daemon.socket_path))


@pytest.mark.parametrize(("version", "kind"), [("1.41", "raw-stream"), ("1.51", "multiplexed-stream")])
def test_streams_are_called_what_the_client_s_version_calls_them(
    daemon: Daemon, made: Made, version: str, kind: str
) -> None:
    connection = _Versioned(daemon)
    connection.request("GET", f"/v{version}/containers/{made.create()}/logs?stdout=1")
    with connection.getresponse() as response:
        assert response.headers["content-type"] == f"application/vnd.docker.{kind}"
    connection.close()


def test_an_old_client_s_condition_for_a_wait_is_passed_over(daemon: Daemon, made: Made) -> None:
    connection = _Versioned(daemon)
    connection.request("POST", f"/v1.29/containers/{made.create()}/wait?condition=removed")
    with connection.getresponse() as response:
        assert json.load(response)["StatusCode"] == 0
    connection.close()


def test_a_method_that_an_endpoint_does_not_have_is_a_page_that_is_not_there(client: Client) -> None:
    with pytest.raises(NotFound, match="page not found"):
        client.request("PUT", "/containers/json")
