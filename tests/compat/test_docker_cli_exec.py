"""Exec: further processes in running containers, through the docker and the lamina command line, and docker-py."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from compat.matrix.lab import everything, joined
from conftest import Daemon, Result
from terminals import terminal

CLIS = ["docker", "lamina"]
Run = Callable[..., Result]


@pytest.fixture
def container(daemon: Daemon) -> Iterator[str]:
    name = f"exec-{os.urandom(4).hex()}"
    daemon.docker_ok("run", "-d", "--name", name, "-e", "OWN=1", "-w", "/tmp", "busybox", "sleep", "1000")
    yield name
    daemon.docker_ok("rm", "-f", name)


@pytest.fixture(params=CLIS)
def run(daemon: Daemon, request: pytest.FixtureRequest) -> Run:
    return daemon.docker if request.param == "docker" else daemon.lamina


def test_output_and_exit_code_are_the_process_s(run: Run, container: str) -> None:
    result = run("exec", container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_be_is_told_as_docker_does(
    run: Run, container: str, command: str, code: int, words: str
) -> None:
    result = run("exec", container, command)
    assert result.code == code
    assert result.out.startswith("OCI runtime exec failed: exec failed: unable to start container process: ")
    assert words in result.out


def test_the_surroundings_are_the_container_s_but_for_what_is_asked(run: Run, container: str) -> None:
    script = "echo $OWN $GIVEN; pwd; id -u; id -g; hostname"
    plain = run("exec", container, "sh", "-c", script).out.split()
    assert plain[:4] == ["1", "/tmp", "0", "0"]
    asked = run("exec", "-e", "GIVEN=2", "-w", "/etc", "-u", "bob:extra", container, "sh", "-c", script).out.split()
    assert asked == ["1", "2", "/etc", "1000", "77", plain[4]]


def test_privileges_are_the_container_s_unless_more_are_asked(run: Run, container: str) -> None:
    def bits(*options: str) -> int:
        out = run("exec", *options, container, "grep", "CapEff", "/proc/self/status").out
        return int(out.split()[1], 16).bit_count()

    assert bits() == 14
    assert bits("--privileged") > 20


def test_input_goes_to_the_process_and_its_end_too(run: Run, container: str) -> None:
    data = os.urandom(3 << 20)
    assert run("exec", "-i", container, "wc", "-c", data=data).out.strip() == str(len(data))
    assert run("exec", container, "cat", data=b"not for it").out == ""


def test_a_detached_process_goes_on_by_itself(daemon: Daemon, run: Run, container: str) -> None:
    assert run("exec", "-d", container, "sh", "-c", "sleep 0.3; echo done > /done").code == 0
    deadline = time.monotonic() + 10
    while daemon.docker("exec", container, "cat", "/done").out != "done\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_terminal_has_a_size_and_keys_to_leave_it_by(daemon: Daemon, container: str) -> None:
    with terminal(daemon, "exec", "-it", container, "sh") as shown:
        shown.expect(b"/tmp #")
        shown.type(b"tty; echo $((40+2))\r")
        shown.expect(b"/dev/pts/")
        shown.expect(b"42")
        shown.type(b"exit 3\r")
        assert shown.end() == 3
    with terminal(daemon, "exec", "-it", container, "sh") as shown:
        shown.expect(b"/tmp #")
        shown.type(b"\x10\x11")
        shown.expect(b"read escape sequence")
        assert shown.end() == 1


def test_only_running_containers_take_commands(daemon: Daemon, run: Run) -> None:
    daemon.docker_ok("create", "--name", "never-started", "busybox", "true")
    result = run("exec", "never-started", "true")
    assert result.code == 1
    assert "is not running" in result.err
    assert "No such container: nobody" in run("exec", "nobody", "true").err
    daemon.docker_ok("rm", "never-started")


def test_a_session_tells_what_it_is_and_how_it_ended(daemon: Daemon, container: str) -> None:
    client = docker.APIClient(base_url=daemon.host, version="auto")
    made = client.exec_create(container, ["sh", "-c", "sleep 0.5; exit 4"], user="bob", privileged=True)
    before = client.exec_inspect(made["Id"])
    assert (before["Running"], before["ExitCode"], before["Pid"]) == (False, None, 0)
    assert before["ProcessConfig"] == {
        "tty": False, "entrypoint": "sh", "arguments": ["-c", "sleep 0.5; exit 4"], "privileged": True, "user": "bob",
    }  # fmt: skip
    client.exec_start(made["Id"], detach=True)
    during = client.exec_inspect(made["Id"])
    assert during["Running"] is True
    assert Path(f"/proc/{during['Pid']}").exists()
    assert client.inspect_container(container)["ExecIDs"] == [made["Id"]]
    with pytest.raises(docker.errors.APIError, match="has been started already"):
        client.exec_start(made["Id"])
    deadline = time.monotonic() + 10
    while client.exec_inspect(made["Id"])["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    after = client.exec_inspect(made["Id"])
    assert (after["ExitCode"], after["CanRemove"]) == (4, True)
    assert client.inspect_container(container)["ExecIDs"] is None
    with pytest.raises(docker.errors.NotFound, match="No such exec instance"):
        client.exec_inspect("0" * 64)
    client.close()


def test_docker_py_s_exec_run_tells_its_streams_apart(daemon: Daemon, container: str) -> None:
    client = docker.DockerClient(base_url=daemon.host, version="auto")
    found = client.containers.get(container).exec_run(["sh", "-c", "echo o; echo e >&2; exit 2"], demux=True)
    assert (found.exit_code, found.output) == (2, (b"o\n", b"e\n"))
    client.close()


def test_events_tell_of_it(daemon: Daemon, container: str) -> None:
    since = str(int(time.time()) - 1)
    daemon.docker_ok("exec", container, "true")
    argv = ["events", "--since", since, "--until", str(int(time.time()) + 1), "--format", "{{json .}}"]
    out = daemon.docker_ok(*argv, "--filter", f"container={container}")
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    told = [event for event in events if event["Action"].startswith("exec_")]
    assert [event["Action"].partition(":")[0] for event in told] == ["exec_create", "exec_start", "exec_die"]
    assert told[-1]["Actor"]["Attributes"]["exitCode"] == "0"


def test_a_hundred_at_once_leave_nothing(daemon: Daemon, container: str) -> None:
    client = docker.APIClient(base_url=daemon.host, version="auto", num_pools=50, timeout=120)
    container_id = client.inspect_container(container)["Id"]
    before = set(os.listdir(f"/proc/{daemon.process.pid}/fd")) if daemon.process else set()

    def one(number: int) -> tuple[bytes, int]:
        made = client.exec_create(container, ["sh", "-c", f"echo {number}; exit {number % 7}"])
        with joined(client.exec_start(made["Id"], socket=True)) as sock:
            framed = everything(sock)
        return framed[8:], client.exec_inspect(made["Id"])["ExitCode"]

    with ThreadPoolExecutor(25) as pool:
        found = list(pool.map(one, range(100)))
    assert found == [(f"{number}\n".encode(), number % 7) for number in range(100)]
    client.close()
    deadline = time.monotonic() + 10
    bundle = daemon.run_root / "container" / container_id
    while list(bundle.glob("exec-*")) or _conmons(str(bundle)) > 1:
        assert time.monotonic() < deadline, f"left: {list(bundle.glob('exec-*'))}"
        time.sleep(0.05)
    assert daemon.process is not None
    while len(os.listdir(f"/proc/{daemon.process.pid}/fd")) > len(before) + 3:
        assert time.monotonic() < deadline, "descriptors are left open"
        time.sleep(0.05)


def test_a_container_s_end_ends_what_runs_in_it(daemon: Daemon) -> None:
    name = daemon.docker_ok("run", "-d", "busybox", "sleep", "1")
    started = time.monotonic()
    result = daemon.docker("exec", name, "sleep", "100")
    assert result.code == 137
    assert time.monotonic() - started < 20
    daemon.docker_ok("rm", name)


def test_a_killed_daemon_leaves_what_runs_alone(own_daemon: Daemon) -> None:
    name = own_daemon.docker_ok("run", "-d", "busybox", "sleep", "1000")
    own_daemon.docker_ok("exec", "-d", name, "sh", "-c", "sleep 2; echo survived > /file")
    own_daemon.kill()
    own_daemon.start()
    deadline = time.monotonic() + 15
    while own_daemon.docker("exec", name, "cat", "/file").out != "survived\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    own_daemon.docker_ok("rm", "-f", name)


def _conmons(bundle: str) -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        found += b"conmon" in words[0] and any(bundle.encode() in word for word in words)
    return found
