"""Containers that are removed at the very moment at which they end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from conftest import Daemon


def test_removing_by_force_what_just_ends_leaves_nothing_behind(own_daemon: Daemon) -> None:
    def run_and_remove(number: int) -> None:
        options = ["--rm"] if number % 2 else []
        container = own_daemon.docker_ok("run", "-d", *options, "-v", "/data", "busybox", "sleep", "0.2")
        time.sleep(0.05 * (number % 6))
        removed = own_daemon.docker("rm", "-fv", container)
        assert removed.code == 0 or "No such container" in removed.err, removed.err

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run_and_remove, range(24)))
    assert own_daemon.docker_ok("ps", "-aq") == ""
    assert own_daemon.docker_ok("volume", "ls", "-q") == ""
    own_daemon.stop()
    assert "ERROR" not in own_daemon.log
