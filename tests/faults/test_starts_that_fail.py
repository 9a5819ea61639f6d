"""A start that fails leaves nothing, wherever it fails."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon, leftovers
from waiting import wait_until


def _links(daemon: Daemon) -> set[str]:
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    return {link["ifname"] for link in links if link.get("master") == daemon.bridge}


def test_a_root_that_cannot_be_mounted_leaves_no_endpoint(own_daemon: Daemon) -> None:
    container = own_daemon.docker_ok("create", "busybox", "true")
    layer = own_daemon.root / "snapshot" / "rw" / container
    (layer / "upper").rename(layer / "elsewhere")
    for _ in range(6):
        assert own_daemon.docker("start", container).code == 1
    wait_until(
        lambda: len(_links(own_daemon)) <= 3, "none but the links made ahead"
    )  # the kernel takes them away later
    (layer / "elsewhere").rename(layer / "upper")
    own_daemon.docker_ok("start", container)
    own_daemon.docker_ok("rm", "-f", container)


@pytest.fixture
def hanging_daemon(needs_root: None, tmp_path: Path, busybox_tar: Path) -> Iterator[Daemon]:
    """A daemon whose runtime never creates a container."""
    runtime = tmp_path / "slow-runc"
    real = shutil.which("runc")
    runtime.write_text(f'#!/bin/sh\ncase "$*" in *" create "*) exec sleep 7777;; esac\nexec {real} "$@"\n')
    runtime.chmod(0o755)
    daemon = Daemon(tmp_path, options=["--runtime", str(runtime)])
    try:
        daemon.start()
        daemon.docker_ok("import", busybox_tar, "busybox")
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.poll() is not None:
            daemon.start()
        daemon.discard()
    assert leftovers(daemon) == [], daemon.last_log[-4000:]
    assert [p for p in Path("/proc").glob("[0-9]*/cmdline") if _read(p) == b"sleep\x007777\x00"] == []


def _start_of_what_hangs(daemon: Daemon) -> tuple[str, subprocess.Popen[bytes]]:
    container = daemon.docker_ok("create", "busybox", "true")
    starting = subprocess.Popen(["docker", "-H", daemon.host, "start", container], stderr=subprocess.PIPE)
    while not list((daemon.run_root / "container" / container).glob("conmon.pid")):
        assert starting.poll() is None
    return container, starting


def test_a_start_that_hangs_is_ended_by_a_removal_by_force(hanging_daemon: Daemon) -> None:
    container, starting = _start_of_what_hangs(hanging_daemon)
    hanging_daemon.docker_ok("rm", "-f", container)
    assert b"removal of container" in starting.communicate(timeout=30)[1]


def test_a_daemon_that_is_told_to_end_during_a_start_leaves_nothing_of_it(hanging_daemon: Daemon) -> None:
    container, starting = _start_of_what_hangs(hanging_daemon)
    assert hanging_daemon.stop() == 0
    starting.communicate(timeout=30)
    assert leftovers(hanging_daemon) == [], hanging_daemon.log
    hanging_daemon.start()
    assert hanging_daemon.docker_ok("inspect", "-f", "{{.State.Status}}", container) == "created"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_nobody_but_root_reaches_containers_and_their_secrets(own_daemon: Daemon) -> None:
    own_daemon.docker_ok("run", "-d", "--name", "held", "busybox", "sleep", "600")
    own_daemon.stop()
    for path in (own_daemon.root, own_daemon.run_root / "rootfs", own_daemon.root / "state.db"):
        path.chmod(0o755)  # as an older version made them
    own_daemon.start()
    assert stat.S_IMODE(own_daemon.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(own_daemon.run_root.stat().st_mode) == 0o711
    open_to_all = [p for p in own_daemon.run_root.iterdir() if stat.S_IMODE(p.stat().st_mode) & 0o077]
    assert open_to_all == []
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        reached = any(os.access(p, os.R_OK | os.X_OK) for p in (own_daemon.root, own_daemon.run_root / "rootfs"))
        os._exit(int(reached))
    assert os.waitpid(pid, 0)[1] == 0
    assert own_daemon.docker_ok("run", "--rm", "-u", "bob", "busybox", "cat", "/etc/hostname") != ""


@pytest.mark.parametrize("shared", ["root", "run_root"])
def test_a_second_daemon_on_either_root_is_refused(own_daemon: Daemon, tmp_path: Path, shared: str) -> None:
    roots = {"root": tmp_path / "other", "run_root": tmp_path / "other-run", shared: getattr(own_daemon, shared)}
    options = ["--root", roots["root"], "--run-root", roots["run_root"], "--host", f"unix://{tmp_path}/other.sock"]
    result = own_daemon.lamina("daemon", *options)
    assert result.code == 1
    assert "in use by another lamina daemon" in result.err
