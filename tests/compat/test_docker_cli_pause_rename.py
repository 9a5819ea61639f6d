"""Pausing and renaming containers, through the docker and the lamina command line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Daemon, Result

Run = Callable[..., Result]


@pytest.fixture(params=["docker", "lamina"])
def run(daemon: Daemon, request: pytest.FixtureRequest) -> Run:
    return daemon.docker if request.param == "docker" else daemon.lamina


@pytest.fixture
def container(daemon: Daemon) -> Iterator[str]:
    """One that counts: what it says tells whether it goes on."""
    name = f"counting-{os.urandom(4).hex()}"
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
    daemon.docker_ok("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    yield name
    daemon.docker("rm", "-f", name)


def counted(daemon: Daemon, name: str) -> int:
    out = daemon.docker_ok("logs", "--tail", "1", name)
    return int(out or 0)


def status(daemon: Daemon, name: str) -> str:
    return daemon.docker_ok("inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", name)


def test_a_paused_container_stands_still_and_goes_on(daemon: Daemon, run: Run, container: str) -> None:
    assert run("pause", container).out.strip() == container
    assert status(daemon, container) == "paused true true"
    before = counted(daemon, container)
    time.sleep(0.3)
    assert counted(daemon, container) == before
    assert "(Paused)" in daemon.docker_ok("ps", "--filter", f"name={container}")
    assert daemon.docker_ok("ps", "-q", "--filter", "status=paused", "--filter", f"name={container}")
    assert "is paused" in run("exec", container, "true").err
    assert run("unpause", container).out.strip() == container
    assert status(daemon, container) == "running false true"
    deadline = time.monotonic() + 10
    while counted(daemon, container) == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_so_already_is_refused(daemon: Daemon, run: Run, container: str) -> None:
    result = run("unpause", container)
    assert result.code == 1
    assert "is not paused" in result.err
    run("pause", container)
    assert "is already paused" in run("pause", container).err
    daemon.docker_ok("create", "--name", "resting", "busybox", "true")
    assert "is not running" in run("pause", "resting").err
    daemon.docker_ok("rm", "resting")


@pytest.mark.parametrize("command", [["kill"], ["stop", "-t", "0"], ["stop", "-t", "5"], ["rm", "-f"]])
def test_a_paused_container_can_be_ended(daemon: Daemon, run: Run, container: str, command: list[str]) -> None:
    daemon.docker_ok("pause", container)
    began = time.monotonic()
    assert run(*command, container).code == 0
    assert time.monotonic() - began < 15
    if command[0] != "rm":
        assert status(daemon, container).startswith("exited")


def test_events_tell_of_pausing_and_renaming(daemon: Daemon, container: str) -> None:
    since = str(int(time.time()) - 1)
    daemon.docker_ok("pause", container)
    daemon.docker_ok("unpause", container)
    daemon.docker_ok("rename", container, f"{container}-new")
    argv = ["events", "--since", since, "--until", str(int(time.time()) + 1), "--format", "{{json .}}"]
    out = daemon.docker_ok(*argv, "--filter", "event=pause", "--filter", "event=unpause", "--filter", "event=rename")
    events = [json.loads(line) for line in out.splitlines()]
    own = [e for e in events if e["Actor"]["Attributes"]["name"].startswith(container)]
    assert [e["Action"] for e in own] == ["pause", "unpause", "rename"]
    assert own[-1]["Actor"]["Attributes"]["oldName"] == f"/{container}"
    daemon.docker_ok("rm", "-f", f"{container}-new")


def test_a_new_daemon_knows_who_is_paused(own_daemon: Daemon) -> None:
    for name in ("one", "two"):
        own_daemon.docker_ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    own_daemon.docker_ok("pause", "one")
    own_daemon.kill()
    pid = int(own_daemon_pid(own_daemon, "two"))
    own_daemon.start()
    assert status(own_daemon, "one") == "paused true true"
    assert status(own_daemon, "two") == "running false true"
    assert Path(f"/proc/{pid}").exists()
    own_daemon.docker_ok("unpause", "one")
    assert own_daemon.docker("exec", "one", "echo", "awake").out == "awake\n"


def own_daemon_pid(daemon: Daemon, name: str) -> str:
    """A container's process, asked of the next daemon's files: there is none at the moment."""
    bundles = daemon.run_root / "container"
    return next(path.read_text() for path in bundles.glob("*/pidfile"))


def test_a_container_gets_another_name(daemon: Daemon, run: Run, container: str) -> None:
    renamed = f"{container}-renamed"
    assert run("rename", container, renamed).code == 0
    assert daemon.docker_ok("inspect", "-f", "{{.Name}}", renamed) == f"/{renamed}"
    assert "No such" in daemon.docker("inspect", container).err
    daemon.docker_ok("create", "--name", container, "busybox", "true")  # the old name is free
    result = run("rename", renamed, container)
    assert result.code == 1
    assert "is already in use" in result.err
    assert "with the same name" in run("rename", renamed, renamed).err
    assert "Invalid container name" in run("rename", renamed, "no/good").err
    daemon.docker_ok("rm", "-f", container, renamed)


def test_a_name_lasts_over_daemons(own_daemon: Daemon) -> None:
    own_daemon.docker_ok("create", "--name", "before", "busybox", "true")
    own_daemon.docker_ok("rename", "before", "after")
    own_daemon.kill()
    own_daemon.start()
    assert own_daemon.docker_ok("ps", "-a", "--format", "{{.Names}}") == "after"
