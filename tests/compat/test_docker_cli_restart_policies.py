"""Restart policies: who comes back, how often, and what stops that; also over the daemon's end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Daemon

WAIT_S = 20


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    name = f"again-{os.urandom(4).hex()}"
    yield name
    daemon.docker("rm", "-f", name)


def state(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker_ok("inspect", name))[0]
    return {"RestartCount": found["RestartCount"], **found["State"]}


def until(daemon: Daemon, name: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A container's state, when it is as wanted."""
    deadline = time.monotonic() + WAIT_S
    while not true(found := state(daemon, name)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def is_in(status: str) -> Callable[[dict[str, Any]], bool]:
    return lambda found: bool(found["Status"] == status)


def test_always_brings_a_container_back_until_it_is_stopped(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "-d", "--restart", "always", "--name", name, "busybox", "sh", "-c", "echo turn; exit 0")
    until(daemon, name, lambda s: s["RestartCount"] >= 3)
    assert daemon.docker_ok("logs", name).count("turn") >= 3
    daemon.docker_ok("stop", name)
    stopped = state(daemon, name)
    assert (stopped["Status"], stopped["Running"], stopped["Restarting"]) == ("exited", False, False)
    time.sleep(1.5)
    assert state(daemon, name)["RestartCount"] == stopped["RestartCount"]


def test_each_restart_waits_twice_as_long_as_the_one_before(daemon: Daemon, name: str) -> None:
    began = time.time() - 1
    daemon.docker_ok("run", "-d", "--restart", "always", "--name", name, "busybox", "false")
    until(daemon, name, lambda s: s["RestartCount"] >= 5)
    daemon.docker_ok("rm", "-f", name)
    argv = ["events", "--since", str(began), "--until", str(time.time()), "--filter", f"container={name}"]
    told = [json.loads(line) for line in daemon.docker_ok(*argv, "--format", "{{json .}}").splitlines()]
    moments: dict[str, list[int]] = {"start": [], "die": []}
    for event in told:
        if event["Action"] in moments:
            moments[event["Action"]].append(event["timeNano"])
    waits = [(start - die) / 1e9 for die, start in zip(moments["die"], moments["start"][1:], strict=False)]
    for wait, least in zip(waits, (0.1, 0.2, 0.4, 0.8), strict=False):
        assert wait >= least


def test_on_failure_gives_up_after_its_tries(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "-d", "--restart", "on-failure:2", "--name", name, "busybox", "sh", "-c", "exit 7")
    ended = until(daemon, name, lambda s: s["Status"] == "exited")
    assert (ended["ExitCode"], ended["RestartCount"]) == (7, 2)


def test_on_failure_takes_success_for_the_end(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "-d", "--restart", "on-failure", "--name", name, "busybox", "true")
    ended = until(daemon, name, lambda s: s["Status"] == "exited")
    assert ended["RestartCount"] == 0


def test_a_container_between_two_runs_is_shown_as_restarting(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "-d", "--restart", "always", "--name", name, "busybox", "sh", "-c", "exit 3")
    found = until(daemon, name, lambda s: s["RestartCount"] >= 4 and bool(s["Restarting"]))
    assert (found["Status"], found["Running"], found["ExitCode"]) == ("restarting", True, 3)
    shown = daemon.docker_ok(
        "ps", "--filter", f"name={name}", "--filter", "status=restarting", "--format", "{{.Status}}"
    )
    assert shown.startswith("Restarting (3) ")
    assert "is restarting, wait until the container is running" in daemon.docker("exec", name, "true").err
    assert (
        "container is restarting: stop the container before removing or force remove" in daemon.docker("rm", name).err
    )
    assert daemon.docker("start", name).code == 0
    assert daemon.docker("kill", name).code == 0
    assert state(daemon, name)["Status"] == "exited"


@pytest.mark.parametrize("command", [["kill"], ["stop"], ["kill", "-s", "TERM"]])
def test_who_ends_a_container_ends_its_restarts(daemon: Daemon, name: str, command: list[str]) -> None:
    script = "trap 'exit 1' TERM; while :; do sleep 0.05; done"
    daemon.docker_ok("run", "-d", "--restart", "always", "--name", name, "busybox", "sh", "-c", script)
    daemon.docker_ok(*command, name)
    until(daemon, name, lambda s: s["Status"] == "exited")
    time.sleep(0.5)
    assert state(daemon, name)["Status"] == "exited"
    daemon.docker_ok("start", name)
    assert state(daemon, name)["RestartCount"] == 0


def test_another_signal_does_not(daemon: Daemon, name: str) -> None:
    script = "trap 'exit 1' HUP; while :; do sleep 0.05; done"
    daemon.docker_ok("run", "-d", "--restart", "always", "--name", name, "busybox", "sh", "-c", script)
    daemon.docker_ok("kill", "-s", "HUP", name)
    until(daemon, name, lambda s: s["RestartCount"] == 1 and s["Status"] == "running")


def test_a_process_that_fails_to_start_again_ends_it(daemon: Daemon, name: str) -> None:
    script = "rm /bin/sh; exit 5"
    daemon.docker_ok("run", "-d", "--restart", "always", "--name", name, "busybox", "/bin/sh", "-c", script)
    ended = until(daemon, name, lambda s: s["Status"] == "exited")
    assert "no such file or directory" in ended["Error"]


def test_a_container_that_is_removed_with_its_process_outlives_restart(daemon: Daemon, name: str) -> None:
    daemon.docker_ok("run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
    daemon.docker_ok("restart", "-t", "0", name)
    assert state(daemon, name)["Status"] == "running"
    daemon.docker_ok("kill", name)
    assert daemon.docker("inspect", name).code == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--restart", "sometimes"], "unknown policy 'sometimes'"),
        (["--restart", "always:3"], "maximum retry count cannot be used with restart policy 'always'"),
    ],
)
def test_policies_that_cannot_be_are_refused(daemon: Daemon, options: list[str], reason: str) -> None:
    assert reason in daemon.docker("create", *options, "busybox", "true").err


def test_the_next_daemon_starts_what_is_to_run(own_daemon: Daemon) -> None:
    """A host that was switched off has none of the processes: killing conmon and container stands for that here."""
    run = ("run", "-d", "busybox", "sleep", "1000")
    for policy in ("always", "unless-stopped", "on-failure", "no"):
        own_daemon.docker_ok(*run[:2], "--restart", policy, "--name", policy, *run[2:])
        own_daemon.docker_ok(*run[:2], "--restart", policy, "--name", f"{policy}-stopped", *run[2:])
        own_daemon.docker_ok("stop", "-t", "0", f"{policy}-stopped")
    own_daemon.docker_ok("create", "--restart", "always", "--name", "never-begun", "busybox", "sleep", "1000")
    own_daemon.docker_ok(*run[:2], "--restart", "always", "--name", "joined", "--network", "container:always", *run[2:])
    pids = [int(state(own_daemon, n)["Pid"]) for n in ("always", "unless-stopped", "on-failure", "no", "joined")]
    own_daemon.kill()
    for pid in pids:
        os.kill(pid, 9)
    time.sleep(0.3)
    own_daemon.start()
    expected = {
        "always": "running",
        "always-stopped": "running",
        "unless-stopped": "running",
        "unless-stopped-stopped": "exited",
        "on-failure": "running",
        "on-failure-stopped": "exited",
        "no": "exited",
        "no-stopped": "exited",
        "never-begun": "created",
        "joined": "running",
    }
    for name, status in expected.items():
        until(own_daemon, name, is_in(status))
    assert state(own_daemon, "no")["ExitCode"] == 137  # conmon was there to tell
    time.sleep(0.5)
    assert {name: state(own_daemon, name)["Status"] for name in expected} == expected
