"""Health checks: what they run and when, what they say of a container, and what comes of that."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Daemon

WAIT_S = 20
QUICK = ("--health-interval", "200ms", "--health-retries", "2")


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    name = f"checked-{os.urandom(4).hex()}"
    yield name
    daemon.docker("rm", "-f", name)


def health(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker_ok("inspect", "-f", "{{json .State.Health}}", name))
    return found


def until(daemon: Daemon, name: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the checks say, when it is as wanted."""
    deadline = time.monotonic() + WAIT_S
    while not true(found := health(daemon, name)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def run(daemon: Daemon, name: str, *options: str, script: str = "sleep 1000") -> None:
    daemon.docker_ok("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)


def test_a_container_is_starting_then_healthy_then_unhealthy(daemon: Daemon, name: str) -> None:
    began = str(time.time() - 1)
    run(daemon, name, *QUICK, "--health-cmd", "echo looked; test ! -e /bad")
    assert health(daemon, name) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert "(health: starting)" in daemon.docker_ok("ps", "--filter", f"name={name}")
    healthy = until(daemon, name, lambda h: h["Status"] == "healthy")
    assert (healthy["Log"][0]["ExitCode"], healthy["Log"][0]["Output"]) == (0, "looked\n")
    assert "(healthy)" in daemon.docker_ok("ps", "--filter", f"name={name}", "--filter", "health=healthy")
    daemon.docker_ok("exec", name, "touch", "/bad")
    unhealthy = until(daemon, name, lambda h: h["Status"] == "unhealthy")
    assert unhealthy["FailingStreak"] >= 2
    assert len(unhealthy["Log"]) <= 5
    assert "(unhealthy)" in daemon.docker_ok("ps", "--filter", f"name={name}", "--filter", "health=unhealthy")
    daemon.docker_ok("exec", name, "rm", "/bad")
    until(daemon, name, lambda h: h["Status"] == "healthy" and h["FailingStreak"] == 0)
    argv = ["events", "--since", began, "--until", str(time.time()), "--filter", f"container={name}"]
    told = daemon.docker_ok(*argv, "--filter", "event=health_status", "--format", "{{.Action}}").splitlines()
    assert told == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]


def test_failures_of_the_start_period_do_not_count(daemon: Daemon, name: str) -> None:
    options = ("--health-start-period", "30s", "--health-start-interval", "100ms", "--health-interval", "1h")
    run(daemon, name, *options, "--health-retries", "1", "--health-cmd", "test -e /ready")
    until(daemon, name, lambda h: len(h["Log"]) >= 3)
    assert health(daemon, name)["Status"] == "starting"
    assert health(daemon, name)["FailingStreak"] == 0
    daemon.docker_ok("exec", name, "touch", "/ready")
    until(daemon, name, lambda h: h["Status"] == "healthy")


def test_a_check_that_takes_too_long_is_killed(daemon: Daemon, name: str) -> None:
    run(daemon, name, *QUICK, "--health-timeout", "300ms", "--health-cmd", "exec sleep 4711")
    found = until(daemon, name, lambda h: h["Status"] == "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (300ms)"
    deadline = time.monotonic() + WAIT_S
    while daemon.docker_ok("exec", name, "sh", "-c", "pgrep -f 'sleep 471[1]' | wc -l").strip() not in ("0", "1"):
        assert time.monotonic() < deadline


def test_a_check_that_cannot_be_run_says_why(daemon: Daemon, name: str, context: Path) -> None:
    (context / "Dockerfile").write_text(
        'FROM busybox\nHEALTHCHECK --interval=200ms --retries=1 CMD ["/no/such", "x"]\n'
    )
    daemon.docker_ok("build", "-q", "-t", "unsound", context)
    daemon.docker_ok("run", "-d", "--name", name, "unsound", "sleep", "1000")
    found = until(daemon, name, lambda h: h["Status"] == "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert "/no/such" in found["Log"][0]["Output"]


def test_an_image_s_check_can_be_switched_off(daemon: Daemon, name: str, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nHEALTHCHECK --interval=200ms CMD true\n")
    daemon.docker_ok("build", "-q", "-t", "sound", context)
    daemon.docker_ok("run", "-d", "--name", name, "sound", "sleep", "1000")
    until(daemon, name, lambda h: h["Status"] == "healthy")
    daemon.docker_ok("rm", "-f", name)
    daemon.docker_ok("run", "-d", "--no-healthcheck", "--name", name, "sound", "sleep", "1000")
    time.sleep(0.5)
    assert daemon.docker_ok("inspect", "-f", "{{json .State}}", name).find("Health") < 0
    assert daemon.docker_ok("ps", "-q", "--filter", f"name={name}", "--filter", "health=none")


def test_long_output_is_cut(daemon: Daemon, name: str) -> None:
    run(daemon, name, *QUICK, "--health-cmd", "head -c 10000 /dev/zero | tr '\\0' x")
    found = until(daemon, name, lambda h: bool(h["Log"]))
    assert found["Log"][0]["Output"] == "x" * 4096 + "..."


def test_what_is_paused_or_has_ended_is_not_checked(daemon: Daemon, name: str) -> None:
    run(daemon, name, *QUICK, "--health-cmd", "true")
    until(daemon, name, lambda h: h["Status"] == "healthy")
    daemon.docker_ok("pause", name)
    assert health(daemon, name)["Status"] == "unhealthy"
    before = health(daemon, name)["Log"]
    time.sleep(0.5)
    assert health(daemon, name)["Log"] == before
    daemon.docker_ok("unpause", name)
    until(daemon, name, lambda h: h["Status"] == "healthy")
    daemon.docker_ok("kill", name)
    assert health(daemon, name)["Status"] == "unhealthy"
    daemon.docker_ok("start", name)
    assert health(daemon, name) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    until(daemon, name, lambda h: h["Status"] == "healthy")


@pytest.mark.parametrize(("action", "status"), [("kill", "exited"), ("stop", "exited"), ("restart", "running")])
def test_an_unhealthy_container_is_dealt_with_as_wanted(daemon: Daemon, name: str, action: str, status: str) -> None:
    script = "trap 'exit 9' TERM; touch /run-$(ls / | grep -c ^run-); while :; do sleep 0.05; done"
    options = ("--health-cmd", "test -e /run-1", "--health-on-failure", action)
    argv = ("run", "-d", "--name", name, *QUICK, *options, "busybox", "sh", "-c", script)
    daemon.lamina_ok(*argv)
    deadline = time.monotonic() + WAIT_S
    while True:
        found = json.loads(daemon.docker_ok("inspect", name))[0]["State"]
        if found["Status"] == status and (status == "exited" or found["Health"]["Status"] == "healthy"):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    if status == "exited":
        assert found["ExitCode"] == (137 if action == "kill" else 9)


def test_the_next_daemon_goes_on_checking(own_daemon: Daemon) -> None:
    run(own_daemon, "c1", *QUICK, "--health-cmd", "test ! -e /bad")
    until(own_daemon, "c1", lambda h: h["Status"] == "healthy")
    own_daemon.kill()
    own_daemon.start()
    assert health(own_daemon, "c1")["Status"] == "healthy"
    own_daemon.docker_ok("exec", "c1", "touch", "/bad")
    until(own_daemon, "c1", lambda h: h["Status"] == "unhealthy")


@pytest.mark.parametrize(
    "option", ["--health-interval", "--health-timeout", "--health-start-period", "--health-start-interval"]
)
def test_times_that_cannot_be_are_refused(daemon: Daemon, option: str) -> None:
    result = daemon.docker("create", option, "1us", "--health-cmd", "true", "busybox", "true")
    assert "cannot be less than 1ms" in result.err
