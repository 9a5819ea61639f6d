"""A machine that was switched off: no process is left, nothing is mounted, and the run root is empty."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from conftest import Daemon
from lamina.linux.cgroups import Hierarchies


def state(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker_ok("inspect", "-f", "{{json .State}}", name))
    return found


def switch_off(daemon: Daemon) -> None:
    """End the daemon and all that it has started, and take away what a reboot takes."""
    daemon.kill()
    mark = str(daemon.run_root).encode()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
                children = (process / "task" / process.name / "children").read_text().split()
            except OSError:
                continue
            if words.startswith(b"/") and b"conmon" in words.split(b"\0")[0] and mark in words:
                for pid in (process.name, *children):
                    os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.3)
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(str(daemon.run_root))), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(daemon.run_root)
    Hierarchies.of_host().remove(daemon.cgroup)


def test_after_a_reboot_all_is_in_the_right_state(own_daemon: Daemon) -> None:
    run = ("run", "-d", "--name")
    own_daemon.docker_ok(*run, "plain", "busybox", "sh", "-c", "echo said; sleep 1000")
    own_daemon.docker_ok(
        *run, "always", "--restart", "always", "-v", "kept:/data", "busybox", "sh", "-c", "date > /data/f; sleep 1000"
    )
    own_daemon.docker_ok(*run, "paused", "busybox", "sleep", "1000")
    own_daemon.docker_ok("pause", "paused")
    own_daemon.docker_ok(*run, "passing", "--rm", "busybox", "sleep", "1000")
    own_daemon.docker_ok(
        *run, "checked", "--restart", "unless-stopped", "--health-cmd", "true", "busybox", "sleep", "1000"
    )
    assert own_daemon.docker("run", "--name", "done", "busybox", "sh", "-c", "exit 3").code == 3
    own_daemon.docker_ok("unpause", "paused")  # a frozen process cannot be killed the hard way here
    switch_off(own_daemon)
    own_daemon.start()
    for name in ("plain", "paused"):
        found = state(own_daemon, name)
        assert (found["Status"], found["ExitCode"], found["Running"]) == ("exited", 255, False)
    assert state(own_daemon, "done")["ExitCode"] == 3
    assert own_daemon.docker("inspect", "passing").code == 1
    assert own_daemon.docker_ok("logs", "plain") == "said"
    deadline = time.monotonic() + 20
    for name in ("always", "checked"):
        while state(own_daemon, name)["Status"] != "running":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert state(own_daemon, "checked")["Health"]["Status"] in ("starting", "healthy")
    assert own_daemon.docker_ok("exec", "always", "ls", "/data") == "f"
    own_daemon.docker_ok("start", "plain")
    assert own_daemon.docker_ok("exec", "plain", "echo", "back") == "back"
