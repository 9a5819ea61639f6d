"""The unmodified docker command line: running containers."""

from __future__ import annotations

import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon


def test_run_prints_what_the_command_prints(daemon: Daemon) -> None:
    assert daemon.docker_ok("run", "--rm", "busybox", "echo", "hi") == "hi"


def test_standard_input_reaches_the_process_and_its_end_too(daemon: Daemon) -> None:
    assert daemon.docker_ok("run", "-i", "--rm", "busybox", "cat", data=b"hi\n") == "hi"


def test_a_megabyte_goes_through_standard_input_and_comes_back_whole(daemon: Daemon) -> None:
    data = bytes(range(32, 127)) * 11000
    assert daemon.docker_ok("run", "-i", "--rm", "busybox", "cat", data=data).encode() == data.strip()


def test_standard_error_comes_apart_from_standard_output(daemon: Daemon) -> None:
    result = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_a_terminal_is_allocated(daemon: Daemon) -> None:
    assert daemon.docker_ok("run", "-t", "--rm", "busybox", "tty").startswith("/dev/pts/")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["nonexistent"], 127),
        (["/etc"], 126),
        (["true"], 0),
        (["sh", "-c", "sleep 9 & kill -9 $!; wait $!"], 137),
    ],
)
def test_the_exit_code_comes_through(daemon: Daemon, command: list[str], code: int) -> None:
    assert daemon.docker("run", "--rm", "busybox", *command).code == code


def test_an_unknown_image_is_125_and_says_so(daemon: Daemon) -> None:
    result = daemon.docker("run", "--rm", "--pull", "never", "no-such-image", "true")
    assert result.code == 125
    assert "No such image: no-such-image:latest" in result.err


def test_a_detached_container_is_followed_stopped_waited_for_and_removed(daemon: Daemon) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo started; while :; do sleep 0.1; done"
    container = daemon.docker_ok("run", "-d", "busybox", "sh", "-c", script)
    _until_logged(daemon, container, "started")
    assert container[:12] in daemon.docker_ok("ps", "-q")
    daemon.docker_ok("stop", "-t", "5", container)
    assert daemon.docker_ok("wait", container) == "3"
    assert daemon.docker_ok("logs", "-f", container) == "started\nbye"
    daemon.docker_ok("rm", container)
    assert daemon.docker("inspect", container).code == 1


def test_logs_know_tail_since_and_timestamps(daemon: Daemon) -> None:
    container = daemon.docker_ok("run", "-d", "busybox", "sh", "-c", "for i in 1 2 3 4; do echo line $i; done")
    daemon.docker_ok("wait", container)
    assert daemon.docker_ok("logs", "--tail", "2", container) == "line 3\nline 4"
    stamped = daemon.docker_ok("logs", "-t", "--tail", "1", container)
    assert stamped.endswith("Z line 4")
    assert daemon.docker_ok("logs", "--since", "2100-01-01T00:00:00Z", container) == ""
    daemon.docker_ok("rm", container)


def test_attaching_later_shows_what_comes_from_then_on(daemon: Daemon) -> None:
    container = daemon.docker_ok("run", "-d", "busybox", "sh", "-c", "sleep 1; echo late")
    assert daemon.docker_ok("attach", "--no-stdin", container) == "late"
    daemon.docker_ok("rm", container)


def test_ps_filters_by_status_name_label_and_ancestor(daemon: Daemon) -> None:
    container = daemon.docker_ok("create", "--name", "filtered", "--label", "a=b", "busybox", "true")
    for one in ("status=created", "name=filtered", "label=a", "label=a=b", "ancestor=busybox", f"id={container[:8]}"):
        assert container in daemon.docker_ok("ps", "-a", "--no-trunc", "-q", "--filter", one), one
    for none in ("status=running", "name=other", "label=a=c"):
        assert container not in daemon.docker_ok("ps", "-a", "--no-trunc", "-q", "--filter", none), none
    assert daemon.docker("ps", "--filter", "bogus=1").code == 1
    daemon.docker_ok("rm", "filtered")


def test_a_name_in_use_is_refused_in_docker_s_words(daemon: Daemon) -> None:
    daemon.docker_ok("create", "--name", "taken", "busybox", "true")
    result = daemon.docker("create", "--name", "taken", "busybox", "true")
    assert 'The container name "/taken" is already in use by container' in result.err
    daemon.docker_ok("rm", "taken")


def test_environment_user_directory_and_hostname(daemon: Daemon) -> None:
    options = ["-e", "A=b", "-w", "/tmp", "-u", "bob", "-h", "box"]
    out = daemon.docker_ok(
        "run", "--rm", *options, "busybox", "sh", "-c", "echo $A $HOME $(pwd) $(id -u):$(id -G) $(hostname)"
    )
    assert out == "b /tmp /tmp 1000:1000 77 box"


def test_default_capabilities_and_readonly_paths_are_docker_s(daemon: Daemon) -> None:
    assert "00000000a80425fb" in daemon.docker_ok("run", "--rm", "busybox", "grep", "CapEff", "/proc/self/status")
    result = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo x > /proc/sys/kernel/hostname")
    assert result.code == 1
    assert "Read-only file system" in result.err


def test_containers_reach_each_other_by_address(daemon: Daemon) -> None:
    server = daemon.docker_ok("run", "-d", "busybox", "sh", "-c", "echo found | nc -l -p 8000")
    address = daemon.docker_ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", server)
    script = f"for i in 1 2 3 4 5 6 7 8 9; do nc {address} 8000 </dev/null && exit; sleep 0.2; done"
    assert daemon.docker_ok("run", "--rm", "busybox", "sh", "-c", script) == "found"
    daemon.docker_ok("rm", "-f", server)


def test_networks_none_and_host(daemon: Daemon) -> None:
    assert "eth0" not in daemon.docker_ok("run", "--rm", "--network", "none", "busybox", "ip", "link")
    assert daemon.bridge in daemon.docker_ok("run", "--rm", "--network", "host", "busybox", "ip", "link")


def test_what_is_not_supported_is_refused_and_named(daemon: Daemon) -> None:
    for option in (["--volume-driver", "nosuch"], ["--isolation", "hyperv"]):
        result = daemon.docker("create", *option, "busybox", "true")
        assert result.code == 1, option
        assert "not support" in result.err or "so far" in result.err, result.err


def test_events_tell_a_container_s_life(daemon: Daemon) -> None:
    since = str(int(time.time()) - 1)
    container = daemon.docker_ok("run", "--rm", "-d", "busybox", "true")
    _until(lambda: daemon.docker("inspect", container).code == 1)
    lines = daemon.docker_ok(
        "events",
        "--since",
        since,
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"container={container}",
        "--format",
        "{{.Action}}",
    )
    assert lines.split("\n") == ["create", "start", "die", "destroy"]


def test_events_tell_what_a_container_does_to_its_network_and_volumes(daemon: Daemon) -> None:
    since = str(time.time())
    daemon.docker_ok("run", "--rm", "-v", "told:/v", "busybox", "true")
    daemon.docker_ok("volume", "rm", "told")
    span = ["--since", since, "--until", str(time.time() + 0.5)]
    form = '{{.Type}} {{.Action}} {{index .Actor.Attributes "name"}}{{index .Actor.Attributes "read/write"}}'
    told = [line.split() for line in daemon.docker_ok("events", *span, "--format", form).split("\n")]
    assert [" ".join(words[:2]) for words in told] == [
        "volume create", "container create", "container attach", "network connect", "volume mount", "container start",
        "container die", "network disconnect", "volume unmount", "container destroy", "volume destroy",
    ]  # fmt: skip
    assert told[3][2] == "bridge"
    assert told[4][2] == "true"


def test_kill_and_restart(daemon: Daemon) -> None:
    container = daemon.docker_ok("run", "-d", "busybox", "sleep", "60")
    first = json.loads(daemon.docker_ok("inspect", container))[0]["State"]["Pid"]
    daemon.docker_ok("restart", "-t", "0", container)
    state = json.loads(daemon.docker_ok("inspect", container))[0]["State"]
    assert state["Running"]
    assert state["Pid"] != first
    daemon.docker_ok("kill", container)
    assert json.loads(daemon.docker_ok("inspect", container))[0]["State"]["ExitCode"] == 137
    daemon.docker_ok("rm", container)


def test_volumes_last_and_anonymous_ones_get_the_image_s_content(daemon: Daemon) -> None:
    daemon.docker_ok("run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo x > /data/f")
    assert daemon.docker_ok("run", "--rm", "-v", "kept:/data", "busybox", "cat", "/data/f") == "x"
    assert "passwd" in daemon.docker_ok("run", "--rm", "-v", "/etc", "busybox", "ls", "/etc")
    daemon.docker_ok("volume", "rm", "kept")
    assert daemon.docker_ok("volume", "ls", "-q") == ""


def _until_logged(daemon: Daemon, container: str, text: str) -> None:
    _until(lambda: text in daemon.docker("logs", container).out)


def _until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def donor(daemon: Daemon) -> Iterator[str]:
    """A running container whose namespaces others may join."""
    script = "echo shared > /dev/shm/note; sleep 600"
    container = daemon.docker_ok("run", "-d", "--ipc", "shareable", "--shm-size", "1m", "busybox", "sh", "-c", script)
    yield container
    daemon.docker_ok("rm", "-f", container)


def test_shared_memory_of_a_shareable_container_is_that_of_who_joins_it(daemon: Daemon, donor: str) -> None:
    read = ("sh", "-c", "cat /dev/shm/note; df -k /dev/shm | tail -1; echo back > /dev/shm/note")
    joined = daemon.docker_ok("run", "--rm", "--ipc", f"container:{donor}", "busybox", *read).split()
    assert (joined[0], joined[2]) == ("shared", "1024")
    assert daemon.docker_ok("run", "--rm", "--ipc", f"container:{donor}", "busybox", "cat", "/dev/shm/note") == "back"


def test_private_shared_memory_is_not_joined(daemon: Daemon) -> None:
    private = daemon.docker_ok("run", "-d", "busybox", "sleep", "600")
    result = daemon.docker("run", "--rm", "--ipc", f"container:{private}", "busybox", "true")
    assert (result.code, f"can't join IPC of container {private}: non-shareable IPC" in result.err) == (125, True)
    daemon.docker_ok("rm", "-f", private)


def test_who_joins_a_network_bears_the_names_of_who_has_it(daemon: Daemon, donor: str) -> None:
    show = ("sh", "-c", "hostname; cat /etc/hostname; tail -n 1 /etc/hosts; echo 10.9.9.9 added >> /etc/hosts")
    address = daemon.docker_ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", donor)
    joined = daemon.docker_ok("run", "--rm", "--network", f"container:{donor}", "busybox", *show).split()
    assert joined == [donor[:12], donor[:12], address, donor[:12]]
    again = daemon.docker_ok(
        "run", "--rm", "--network", f"container:{donor}", "busybox", "tail", "-n", "1", "/etc/hosts"
    )
    assert again == "10.9.9.9 added"


def test_who_joins_a_network_has_no_name_of_his_own(daemon: Daemon, donor: str) -> None:
    result = daemon.docker("run", "--rm", "--network", f"container:{donor}", "--hostname", "own", "busybox", "true")
    assert (result.code, "conflicting options: hostname and the network mode" in result.err) == (125, True)


def test_a_container_that_is_joined_is_shown_by_its_id(daemon: Daemon, donor: str) -> None:
    modes = [f"--{kind}=container:{donor[:9]}" for kind in ("ipc", "network", "pid")]
    container = daemon.docker_ok("create", *modes, "busybox", "true")
    shown = "{{.HostConfig.IpcMode}} {{.HostConfig.NetworkMode}} {{.HostConfig.PidMode}}"
    assert set(daemon.docker_ok("inspect", "-f", shown, container).split()) == {f"container:{donor}"}
    daemon.docker_ok("rm", container)


def test_nothing_of_a_read_only_root_can_be_written(daemon: Daemon) -> None:
    script = "for f in hosts hostname resolv.conf; do touch /etc/$f && echo $f; done; true"
    assert daemon.docker_ok("run", "--rm", "--read-only", "busybox", "sh", "-c", script) == ""


def test_on_the_host_s_network_the_name_is_the_host_s(daemon: Daemon) -> None:
    assert daemon.docker_ok("run", "--rm", "--network", "host", "busybox", "hostname") == os.uname().nodename


def test_lines_of_a_log_are_whole_whatever_pieces_they_were_written_in(daemon: Daemon) -> None:
    script = "printf a; sleep 0.2; printf b; echo error >&2; sleep 0.2; echo c"
    container = daemon.docker_ok("run", "-d", "busybox", "sh", "-c", script)
    daemon.docker_ok("wait", container)
    lines = daemon.docker_ok("logs", "-t", container).splitlines()
    assert [line.split(" ")[1] for line in lines] == ["abc"]
    daemon.docker_ok("rm", container)


def test_a_container_is_marked_as_one(daemon: Daemon) -> None:
    script = "test -f /.dockerenv && readlink /etc/mtab"
    assert daemon.docker_ok("run", "--rm", "busybox", "sh", "-c", script) == "/proc/mounts"


@pytest.mark.parametrize("command", ["create", "run"])
def test_an_export_has_the_places_of_mounts(daemon: Daemon, tmp_path: Path, command: str) -> None:
    daemon.docker_ok(command, "--name", "exported", "busybox", "true")
    daemon.docker_ok("export", "-o", tmp_path / "tar", "exported")
    assert daemon.docker_ok("ps", "-as", "--filter", "name=exported", "--format", "{{.Size}}").startswith("0B ")
    daemon.docker_ok("rm", "exported")
    with tarfile.open(tmp_path / "tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert names >= {".dockerenv", "dev/console", "dev/pts", "dev/shm", "etc/hosts", "etc/mtab", "proc", "sys"}
