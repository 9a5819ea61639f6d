"""Containers that are removed at the very moment at which they end."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from conftest import Daemon
from lamina.client.client import Client
from lamina.errors import LaminaError
from lamina.linux import mount
from lamina.linux.cgroups import Hierarchies


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


def test_removing_by_force_what_removes_itself_at_its_end_is_no_conflict(own_daemon: Daemon) -> None:
    for _ in range(4):
        own_daemon.docker_ok("run", "-d", "--rm", "--name", "fleeting", "busybox", "sleep", "600")
        assert own_daemon.docker_ok("rm", "-f", "fleeting") == "fleeting"


def test_what_is_being_started_is_removed_before_or_not_at_all(own_daemon: Daemon) -> None:
    def ask(method: str, path: str) -> None:
        with suppress(LaminaError):
            Client(own_daemon.host).request(method, path).read()

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            container = own_daemon.docker_ok("create", "busybox", "sleep", "600")
            starting = pool.submit(ask, "POST", f"/containers/{container}/start")
            remove = ("DELETE", f"/containers/{container}") if number % 2 else ("POST", "/containers/prune")
            for asked in [pool.submit(ask, *remove) for _ in range(20)]:
                asked.result()
            starting.result()
    running = own_daemon.docker_ok("ps", "-q").split()
    assert sorted(running) == sorted(own_daemon.docker_ok("ps", "-aq").split())
    groups = Hierarchies.of_host().directories(own_daemon.cgroup)[0]
    assert sorted(p.name[:12] for p in groups.glob("*/")) == sorted(running)


def test_removing_by_force_ends_a_start_under_way(own_daemon: Daemon) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in range(6):
            container = own_daemon.docker_ok("create", "busybox", "sleep", "600")
            starting = pool.submit(own_daemon.docker, "start", container)
            own_daemon.docker_ok("rm", "-f", container)
            starting.result()
    assert own_daemon.docker_ok("ps", "-aq") == ""


def test_an_image_that_is_removed_during_a_create_leaves_no_container_without_one(own_daemon: Daemon) -> None:
    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            own_daemon.docker_ok("tag", "busybox", "other")
            own_daemon.docker_ok("build", "-t", "passing", "-", data=f"FROM busybox\nENV N={number}\n".encode())
            creating = pool.submit(own_daemon.docker, "create", "-v", "/etc", "passing", "true")
            own_daemon.docker("rmi", "-f", "passing")
            created = creating.result()
            if created.code == 0:
                own_daemon.docker_ok("start", created.out.strip())
                own_daemon.docker_ok("rm", "-fv", created.out.strip())


def test_an_export_leaves_a_running_container_its_root(own_daemon: Daemon, tmp_path: Path) -> None:
    container = own_daemon.docker_ok("create", "busybox", "sleep", "600")
    with ThreadPoolExecutor(4) as pool:
        exports = [pool.submit(own_daemon.docker, "export", "-o", tmp_path / f"{n}.tar", container) for n in range(4)]
        own_daemon.docker_ok("start", container)
        assert all(export.result().code == 0 for export in exports)
    root = json.loads(own_daemon.docker_ok("inspect", container))[0]["GraphDriver"]["Data"]["MergedDir"]
    assert mount.mountpoints(root) == [root]


def test_what_a_killed_daemon_left_of_a_removed_container_is_ended(own_daemon: Daemon) -> None:
    container = own_daemon.docker_ok("run", "-d", "busybox", "sleep", "600")
    pid = json.loads(own_daemon.docker_ok("inspect", container))[0]["State"]["Pid"]
    own_daemon.kill()
    with sqlite3.connect(own_daemon.root / "state.db") as database:
        database.execute("DELETE FROM container")
    database.close()
    own_daemon.start()
    assert not Path(f"/proc/{pid}").exists()
    assert not any(d.exists() for d in Hierarchies.of_host().directories(f"{own_daemon.cgroup}/{container}"))
