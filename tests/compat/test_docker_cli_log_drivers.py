"""Log drivers that write elsewhere, too: syslog and the journal."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon

JOURNAL = Path("/run/systemd/journal/socket")
WAIT_S = 20


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(WAIT_S)
        yield receiver


def options_for(receiver: socket.socket, *more: str) -> list[str]:
    port = receiver.getsockname()[1]
    options = ["--log-driver", "syslog", "--log-opt", f"syslog-address=udp://127.0.0.1:{port}"]
    for option in more:
        options += ["--log-opt", option]
    return options


def test_lines_go_to_syslog_and_stay_readable(daemon: Daemon, syslog: socket.socket) -> None:
    script = "echo out; sleep 0.2; echo err >&2"
    more = ("tag={{.Name}}", "syslog-facility=local3")
    daemon.docker_ok("run", "--name", "told", *options_for(syslog, *more), "busybox", "sh", "-c", script)
    lines = [syslog.recv(4096).decode() for _ in range(2)]
    assert re.fullmatch(r"<158>\w{3} [ \d]\d [\d:]{8} \S+ told\[\d+\]: out", lines[0])
    assert re.fullmatch(r"<155>\w{3} [ \d]\d [\d:]{8} \S+ told\[\d+\]: err", lines[1])
    assert daemon.docker_ok("logs", "told") == "out"
    daemon.docker_ok("rm", "told")


def test_the_newer_format_has_a_whole_time(daemon: Daemon, syslog: socket.socket) -> None:
    options = options_for(syslog, "syslog-format=rfc5424micro")
    daemon.docker_ok("run", "--rm", *options, "busybox", "echo", "hi")
    line = syslog.recv(4096).decode()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"
    assert re.fullmatch(rf"<30>1 {stamp} \S+ [0-9a-f]{{12}} \d+ [0-9a-f]{{12}} - hi", line)


def test_no_line_is_lost_over_the_daemon_s_death(own_daemon: Daemon, syslog: socket.socket) -> None:
    script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); usleep 10000; done"
    own_daemon.docker_ok("run", "-d", "--name", "told", *options_for(syslog), "busybox", "sh", "-c", script)
    for _ in range(3):
        time.sleep(0.4)
        own_daemon.kill()
        own_daemon.start()
    own_daemon.docker_ok("wait", "told")
    received: set[int] = set()
    while len(received) < 200:
        received.add(int(syslog.recv(4096).decode().rpartition(" ")[2]))
    assert received == set(range(200))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("syslog-address=gopher://x", "invalid syslog-address"),
        ("syslog-facility=moon", "invalid syslog facility: moon"),
        ("syslog-format=poem", "Invalid syslog format: poem"),
    ],
)
def test_options_that_cannot_be_are_refused(daemon: Daemon, option: str, reason: str) -> None:
    result = daemon.docker("create", "--log-driver", "syslog", "--log-opt", option, "busybox", "true")
    assert reason in result.err


@contextlib.contextmanager
def journal() -> Iterator[socket.socket]:
    """Something that listens where the journal would."""
    made = [path for path in (JOURNAL.parent, JOURNAL.parent.parent) if not path.exists()]
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(JOURNAL))
        receiver.settimeout(WAIT_S)
        try:
            yield receiver
        finally:
            JOURNAL.unlink()
            for path in made:
                path.rmdir()


def test_lines_go_to_the_journal(daemon: Daemon) -> None:
    if JOURNAL.exists():
        pytest.skip("this host has a journal of its own, which the test would write to")
    assert "journald is not enabled on this host" in daemon.docker("create", "--log-driver", "journald", "busybox").err
    with journal() as receiver:
        options = ["--log-driver", "journald", "--log-opt", "tag=my-{{.Name}}"]
        daemon.docker_ok("run", "--name", "told", *options, "busybox", "echo", "hello journal")
        data = receiver.recv(1 << 16)
        fields = dict(line.split(b"=", 1) for line in data.splitlines() if b"=" in line)
        assert b"hello journal" in data
        assert fields[b"CONTAINER_NAME"] == b"told"
        assert fields[b"CONTAINER_TAG"] == b"my-told"
        assert fields[b"CONTAINER_ID_FULL"].decode() == daemon.docker_ok("inspect", "-f", "{{.Id}}", "told").strip()
        assert daemon.docker_ok("logs", "told") == "hello journal"
        daemon.docker_ok("rm", "told")
