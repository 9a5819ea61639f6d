"""Logs are kept short: by default, as asked for, and without losing a line of who follows."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon
from waiting import wait_until

WAIT_S = 30


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    name = f"talker-{os.urandom(4).hex()}"
    yield name
    daemon.docker("rm", "-f", name)


def bytes_on_disk(daemon: Daemon, name: str) -> int:
    path = Path(daemon.docker_ok("inspect", "-f", "{{.LogPath}}", name).strip())
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def until_at_most(daemon: Daemon, name: str, size: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := bytes_on_disk(daemon, name)) > size:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_log_keeps_its_end_within_its_limits(daemon: Daemon, name: str) -> None:
    options = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    daemon.docker_ok("run", "--name", name, *options, "busybox", "sh", "-c", "seq 1 20000")
    until_at_most(daemon, name, 60 << 10)
    lines = [int(line) for line in daemon.docker_ok("logs", name).split()]
    assert lines == list(range(lines[0], 20001))
    assert 100 < len(lines) < 2000


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_what_is_set_aside_is_compressed_on_demand(daemon: Daemon, name: str, driver: str) -> None:
    options = ["--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=3"]
    options += ["--log-opt", "compress=true"] if driver == "json-file" else []
    script = "for n in $(seq 50); do seq $((n*200-199)) $((n*200)); usleep 20000; done; sleep 1000"
    daemon.docker_ok("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)
    path = Path(daemon.docker_ok("inspect", "-f", "{{.LogPath}}", name).strip())
    wait_until(lambda: (path.parent / f"{path.name}.2.gz").exists(), "a second compressed file")
    until_quiet(daemon, name)
    lines = [int(line) for line in daemon.docker_ok("logs", name).split()]
    assert lines == list(range(lines[0], 10001))


def test_compressing_without_anything_set_aside_is_refused(daemon: Daemon, name: str) -> None:
    result = daemon.docker("create", "--log-opt", "max-size=1m", "--log-opt", "compress=true", "busybox", "true")
    assert "compress cannot be true when max-file is less than 2 or max-size is not set" in result.err


def test_a_log_is_limited_when_nobody_asked_for_it(daemon: Daemon, name: str) -> None:
    script = "yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 60000000; sleep 1000"
    daemon.docker_ok("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    deadline = time.monotonic() + WAIT_S
    while bytes_on_disk(daemon, name) < 1 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    until_quiet(daemon, name)
    assert 10 << 20 < bytes_on_disk(daemon, name) <= 31 << 20


def until_quiet(daemon: Daemon, name: str) -> None:
    before = -1
    while (size := bytes_on_disk(daemon, name)) != before:
        before = size
        time.sleep(0.5)


def test_who_follows_loses_no_line(daemon: Daemon, name: str) -> None:
    options = ("--log-opt", "max-size=10k", "--log-opt", "max-file=2")
    script = "for n in $(seq 100); do seq $((n*500-499)) $((n*500)); usleep 10000; done"
    daemon.docker_ok("create", "--name", name, *options, "busybox", "sh", "-c", script)
    daemon.docker_ok("start", name)
    argv = ["docker", "-H", daemon.host, "logs", "-f", name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as follower:
        killer = threading.Timer(WAIT_S, follower.kill)
        killer.start()
        assert follower.stdout is not None
        lines = [int(line) for line in follower.stdout.read().split()]
        killer.cancel()
    # it may have come when the first lines were gone
    assert lines == list(range(lines[0], 50001))
    assert len(lines) > 25000


def test_a_log_can_be_cleared_while_it_is_written(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "-d", "--name", name, "busybox", "sh", "-c", "echo old; sleep 1000")
    deadline = time.monotonic() + WAIT_S
    while daemon.docker_ok("logs", name) != "old":
        assert time.monotonic() < deadline
    assert daemon.lamina_ok("logs", "--clear", name) == ""
    assert daemon.docker_ok("logs", name) == ""
    daemon.docker_ok("exec", name, "sh", "-c", "echo said elsewhere")
    assert daemon.docker_ok("logs", name) == ""


def test_a_log_is_cleared_when_its_container_has_ended(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "--name", name, "busybox", "echo", "one")
    daemon.lamina_ok("logs", "--clear", name)
    assert daemon.docker_ok("logs", name) == ""
    daemon.docker_ok("start", "-a", name)
    assert daemon.docker_ok("logs", name) == "one"


def test_lines_come_on_behind_a_cleared_log(daemon: Daemon, name: str) -> None:
    daemon.docker_ok(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done"
    )
    for _ in range(5):
        time.sleep(0.1)
        daemon.lamina_ok("logs", "--clear", name)
    time.sleep(0.3)
    lines = [int(line) for line in daemon.docker_ok("logs", name).split()]
    assert lines == list(range(lines[0], lines[0] + len(lines)))
    assert lines[0] > 20


def test_the_next_daemon_cuts_what_has_grown_meanwhile(own_daemon: Daemon) -> None:
    options = ("--log-opt", "max-size=50k", "--log-opt", "max-file=2")
    script = "sleep 1; seq 1 50000; sleep 1000"
    own_daemon.docker_ok("run", "-d", "--name", "talker", *options, "busybox", "sh", "-c", script)
    path = (
        own_daemon.root
        / "container"
        / own_daemon.docker_ok("inspect", "-f", "{{.Id}}", "talker").strip()
        / "container.log"
    )
    own_daemon.kill()
    deadline = time.monotonic() + WAIT_S
    while path.stat().st_size < 2_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    own_daemon.start()
    until_at_most(own_daemon, "talker", 100 << 10)
    lines = [int(line) for line in own_daemon.docker_ok("logs", "talker").split()]
    assert lines == list(range(lines[0], 50001))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--log-opt", "max-size=ten"], "invalid size: 'ten'"),
        (["--log-opt", "max-file=0"], "max-file cannot be less than 1"),
        (["--log-opt", "nonsense=1"], "unknown log opt 'nonsense' for json-file log driver"),
        (["--log-opt", "mode=quick"], "unknown log mode: quick"),
        (["--log-opt", "max-buffer-size=1m"], "only supported with 'mode=non-blocking'"),
        (["--log-opt", "compress=perhaps"], 'parsing "perhaps": invalid syntax'),
        (["--log-opt", "tag={{.Nothing}}"], "there is no field Nothing"),
        (["--log-driver", "splunk"], "log driver 'splunk'"),
    ],
)
def test_options_that_cannot_be_are_refused(daemon: Daemon, options: list[str], reason: str) -> None:
    result = daemon.docker("create", *options, "busybox", "true")
    assert result.code != 0
    assert reason in result.err


def test_details_show_what_the_options_name(daemon: Daemon, name: str) -> None:
    options = ["--label", "app.name=web", "--label", "other=1", "--env", "COLOR=red", "--log-opt", "labels-regex=^app"]
    options += ["--log-opt", "env=COLOR", "--log-opt", "tag={{.Name}}/{{.ImageName}}"]
    daemon.docker_ok("run", "--name", name, *options, "busybox", "echo", "hi")
    shown = daemon.docker_ok("logs", "--details", name)
    assert shown == f"COLOR=red,app.name=web,tag={name}%2Fbusybox hi"


def test_tail_of_many_lines_over_files(daemon: Daemon, name: str) -> None:
    options = ("--log-opt", "max-size=30k", "--log-opt", "max-file=4", "--log-driver", "local")
    daemon.docker_ok("run", "--name", name, *options, "busybox", "sh", "-c", "seq 1 20000; sleep 0.5; echo last >&2")
    assert daemon.docker_ok("logs", "--tail", "1000", name).split() == [str(n) for n in range(19002, 20001)]
    assert daemon.docker("logs", "--tail", "1", name).err == "last\n"
