"""A container may choose among the runtimes that the daemon knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon, serving


@pytest.fixture
def wrapped(needs_root: None, tmp_path: Path, busybox_tar: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon with a runtime that notes how it is called."""
    told = tmp_path / "told"
    script = tmp_path / "wrapper"
    runc = shutil.which("runc")
    assert runc is not None
    script.write_text(f'#!/bin/sh\necho "$@" >> {told}\nexec {runc} "$@"\n')
    script.chmod(0o755)
    with serving(tmp_path / "daemon", busybox_tar, ["--add-runtime", f"wrapped={script}"]) as served:
        yield served, told


def test_a_container_runs_on_the_runtime_that_it_chose(wrapped: tuple[Daemon, Path]) -> None:
    daemon, told = wrapped
    told.unlink()
    daemon.docker_ok("run", "--rm", "busybox", "true")
    assert not told.exists()
    daemon.docker_ok("run", "-d", "--name", "choosy", "--runtime", "wrapped", "busybox", "sleep", "1000")
    assert " create " in told.read_text()
    assert daemon.docker_ok("exec", "choosy", "echo", "hi") == "hi"
    assert " exec " in told.read_text()
    assert json.loads(daemon.docker_ok("inspect", "choosy"))[0]["HostConfig"]["Runtime"] == "wrapped"
    daemon.kill()
    daemon.start()
    assert daemon.docker_ok("exec", "choosy", "echo", "still") == "still"
    daemon.docker_ok("restart", "-t", "0", "choosy")
    daemon.docker_ok("rm", "-f", "choosy")
    info = json.loads(daemon.docker_ok("info", "--format", "{{json .Runtimes}}"))
    assert info["wrapped"]["path"] == str(told.parent / "wrapper")


def test_a_runtime_that_nobody_knows_is_refused(daemon: Daemon) -> None:
    result = daemon.docker("create", "--runtime", "nobody", "busybox", "true")
    assert "unknown or invalid runtime name: nobody" in result.err
