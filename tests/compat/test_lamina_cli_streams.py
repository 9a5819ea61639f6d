"""lamina's command line joined to a container: terminals, detach keys, signals, large input, streams that are closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import LAMINA, Daemon
from terminals import terminal

_PATIENCE_S = 30
_DETACH = b"\x10\x11"


@contextmanager
def piped(daemon: Daemon, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "LAMINA_HOST": daemon.host}
    argv = [str(LAMINA), *arguments]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def shell(daemon: Daemon) -> Iterator[str]:
    """A container with a terminal in which a shell waits."""
    container = daemon.lamina_ok("run", "-dit", "busybox", "sh")
    yield container
    daemon.lamina("rm", "-f", container)


def test_the_exit_code_of_a_command_on_a_terminal_is_the_container_s(daemon: Daemon) -> None:
    for _ in range(3):
        with terminal(daemon, "run", "--rm", "-it", "busybox", "sh") as typed:
            typed.expect(b"# ")
            typed.type(b"exit 5\n")
            assert typed.end() == 5


def test_the_detach_keys_leave_a_container_running(daemon: Daemon) -> None:
    with terminal(daemon, "run", "-it", "--name", "detached", "busybox", "sh") as typed:
        typed.expect(b"# ")
        typed.type(b"echo one$((1))\n" + _DETACH)
        assert typed.end() == 0
    assert daemon.lamina_ok("inspect", "-f", "{{.State.Running}}", "detached") == "true"
    assert "one1" in daemon.lamina_ok("logs", "detached")
    daemon.lamina_ok("rm", "-f", "detached")


def test_detaching_from_attach_is_told_as_a_failure(daemon: Daemon, shell: str) -> None:
    with terminal(daemon, "attach", shell) as typed:
        typed.type(b"echo t$((1))o\n")
        typed.expect(b"t1o")
        typed.type(_DETACH)
        assert typed.end() == 1
        assert b"read escape sequence" in typed.shown


def test_detaching_from_start_is_a_success_with_keys_of_one_s_own(daemon: Daemon) -> None:
    container = daemon.lamina_ok("create", "-it", "busybox", "sh")
    with terminal(daemon, "start", "-ai", "--detach-keys", "ctrl-a,b", container) as typed:
        typed.expect(b"# ")
        typed.type(b"\x01")
        typed.type(b"b")
        assert typed.end() == 0
    daemon.lamina_ok("rm", "-f", container)


def test_keys_that_only_begin_to_detach_reach_the_container(daemon: Daemon, shell: str) -> None:
    with terminal(daemon, "attach", "--detach-keys", "x,y", shell) as typed:
        typed.type(b"echo x-y; exit 4\n")
        typed.expect(b"\nx-y")
        assert typed.end() == 4


@pytest.mark.parametrize("state", ["created", "exited"])
def test_attaching_to_what_does_not_run_is_refused(daemon: Daemon, state: str) -> None:
    container = daemon.lamina_ok("create", "busybox", "true")
    if state == "exited":
        daemon.lamina_ok("start", container)
        daemon.lamina_ok("wait", container)
    result = daemon.lamina("attach", container)
    assert (result.code, result.err) == (1, "You cannot attach to a stopped container, start it first\n")
    daemon.lamina_ok("rm", container)


def test_input_larger_than_every_buffer_goes_through_and_comes_back(daemon: Daemon) -> None:
    data = os.urandom(1 << 20) * 20
    environment = {**os.environ, "LAMINA_HOST": daemon.host}
    argv = [str(LAMINA), "run", "-i", "--rm", "busybox", "cat"]
    done = subprocess.run(argv, input=data, capture_output=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_input_that_the_container_does_not_read_is_no_failure(daemon: Daemon) -> None:
    result = daemon.lamina("run", "-i", "--rm", "busybox", "sh", "-c", "exit 6", data=b"x" * (4 << 20))
    assert (result.code, result.err) == (6, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(daemon: Daemon, closed: str) -> None:
    for command in ("run --rm busybox echo hi", "ps"):
        done = subprocess.run(
            ["sh", "-c", f"exec {LAMINA} {command} {closed}"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "LAMINA_HOST": daemon.host},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        if ">&-" not in closed.split("2")[0]:
            assert done.stdout != ""


def test_the_third_interrupt_ends_a_command_whose_container_ignores_it(daemon: Daemon) -> None:
    script = "trap 'echo caught' INT TERM; echo ready; while true; do sleep 0.1; done"
    with piped(daemon, "run", "--name", "stubborn", "busybox", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == b"caught\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE_S) == 1
        assert process.stderr is not None
        assert b"got 3 SIGTERM/SIGINTs, forcefully exiting" in process.stderr.read()
    daemon.lamina_ok("rm", "-f", "stubborn")


@pytest.mark.parametrize("name", ["ALRM", "CONT", "WINCH", "HUP", "USR1"])
def test_signals_are_passed_on(daemon: Daemon, name: str) -> None:
    script = f"trap 'exit 7' {name}; echo ready; while true; do sleep 0.1; done"
    with piped(daemon, "run", "--rm", "busybox", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.wait(_PATIENCE_S) == 7


@pytest.mark.parametrize(("proxies", "gone"), [("true", True), ("false", False)])
def test_attach_passes_signals_on_unless_told_not_to(daemon: Daemon, proxies: str, gone: bool) -> None:
    script = "trap 'exit 7' TERM; while true; do echo ready; sleep 0.1; done"
    container = daemon.lamina_ok("run", "-d", "busybox", "sh", "-c", script)
    with piped(daemon, "attach", f"--sig-proxy={proxies}", container) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE_S) == (7 if gone else -signal.SIGTERM)
    assert daemon.lamina_ok("inspect", "-f", "{{.State.Running}}", container) == ("false" if gone else "true")
    daemon.lamina_ok("rm", "-f", container)


def test_what_cannot_be_written_is_told_in_a_line(daemon: Daemon) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {LAMINA} run --rm busybox echo hi > /dev/full"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LAMINA_HOST": daemon.host},
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "no space left on device\n")


def test_archives_are_not_written_to_a_terminal(daemon: Daemon) -> None:
    for arguments in (["save", "busybox"], ["export", "nothing"]):
        with terminal(daemon, *arguments) as typed:
            assert typed.end() == 1
            assert b"cowardly refusing to save to a terminal" in typed.shown


_PRETENDER = """
import fcntl, os, socket, sys, time
lock = open(sys.argv[1] + "/root.lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(1)  # the state root is in use
open(sys.argv[1] + "/started", "a").write("x")
time.sleep(0.3)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + "/s.sock")
listener.listen()
listener.settimeout(10)
try:
    while True:
        listener.accept()
except TimeoutError:
    pass
"""
_ASKER = """
import sys
from lamina.client import address
base = sys.argv[1]
address.DEFAULT_SOCKET, address._LOG, address._LOCK = base + "/s.sock", base + "/log", base + "/start.lock"
address._DAEMON = (sys.executable, base + "/pretender.py", base)
address.connect(None).close()
"""


def test_commands_that_find_no_daemon_at_the_same_time_start_one(needs_root: None, tmp_path: Path) -> None:
    (tmp_path / "pretender.py").write_text(_PRETENDER)
    asking = [subprocess.Popen([sys.executable, "-c", _ASKER, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(_PATIENCE_S) for process in asking] == [0, 0, 0, 0]
    assert (tmp_path / "started").read_text() == "x"
