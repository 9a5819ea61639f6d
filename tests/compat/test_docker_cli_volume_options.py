"""Volumes that are mounts: the ``local`` driver's options, as with mount(8)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Daemon
from lamina.linux import mount
from waiting import wait_until


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    name = f"vol-{os.urandom(4).hex()}"
    yield name
    daemon.docker("rm", "-f", *daemon.docker("ps", "-aq", "--filter", f"volume={name}").out.split())
    daemon.docker_ok("volume", "rm", "-f", name)


def mountpoint(daemon: Daemon, name: str) -> str:
    return daemon.docker_ok("volume", "inspect", "-f", "{{.Mountpoint}}", name)


def is_mounted(daemon: Daemon, name: str) -> bool:
    return mount.is_mountpoint(mountpoint(daemon, name))


def of_directory(daemon: Daemon, name: str, device: Path) -> None:
    device.mkdir(exist_ok=True)
    options = ["--opt", "type=none", "--opt", "o=bind", "--opt", f"device={device}"]
    daemon.docker_ok("volume", "create", *options, name)


def test_a_directory_of_the_hosts(daemon: Daemon, name: str, tmp_path: Path) -> None:
    of_directory(daemon, name, tmp_path / "device")
    shown: dict[str, Any] = json.loads(daemon.docker_ok("volume", "inspect", name))[0]
    assert shown["Options"] == {"type": "none", "o": "bind", "device": str(tmp_path / "device")}
    daemon.docker_ok("run", "--rm", "-v", f"{name}:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    assert (tmp_path / "device" / "file").read_text() == "kept\n"
    wait_until(lambda: not is_mounted(daemon, name), "it is unmounted when nobody has it any more")
    daemon.docker_ok("volume", "rm", name)
    assert (tmp_path / "device" / "file").read_text() == "kept\n"


def test_it_stays_mounted_for_the_last_of_its_users(daemon: Daemon, name: str, tmp_path: Path) -> None:
    of_directory(daemon, name, tmp_path / "device")
    first, second = (daemon.docker_ok("run", "-d", "-v", f"{name}:/data", "busybox", "sleep", "1000") for _ in range(2))
    daemon.docker_ok("rm", "-f", first)
    assert is_mounted(daemon, name)
    daemon.docker_ok("exec", second, "touch", "/data/there")
    assert (tmp_path / "device" / "there").exists()
    daemon.docker_ok("rm", "-f", second)
    wait_until(lambda: not is_mounted(daemon, name), "it is unmounted")


def test_it_gets_what_the_image_has_in_its_place(daemon: Daemon, name: str, tmp_path: Path) -> None:
    of_directory(daemon, name, tmp_path / "device")
    daemon.docker_ok("create", "-v", f"{name}:/etc", "busybox", "true")
    assert (tmp_path / "device" / "passwd").exists()


def test_files_are_copied_also_while_nobody_runs(daemon: Daemon, name: str, tmp_path: Path) -> None:
    of_directory(daemon, name, tmp_path / "device")
    (tmp_path / "device" / "file").write_text("from the host")
    container = daemon.docker_ok("create", "-v", f"{name}:/data", "busybox", "true")
    daemon.docker_ok("cp", f"{container}:/data/file", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "from the host"
    assert not is_mounted(daemon, name)


@pytest.mark.parametrize("command", ["docker", "lamina"])
def test_memory(daemon: Daemon, name: str, command: str) -> None:
    options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=1000"]
    getattr(daemon, f"{command}_ok")("volume", "create", *options, name)
    script = "grep ' /data tmpfs' /proc/mounts; stat -c %u /data"
    told = daemon.docker_ok("run", "--rm", "-v", f"{name}:/data", "busybox", "sh", "-c", script)
    assert "size=1024k" in told
    assert told.endswith("1000")


def test_options_with_a_mount(daemon: Daemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    opts = f"volume-opt=type=none,volume-opt=o=bind,volume-opt=device={tmp_path / 'device'}"
    daemon.docker_ok(
        "run", "--rm", "--mount", f"type=volume,src={name},dst=/data,{opts}", "busybox", "touch", "/data/x"
    )
    assert (tmp_path / "device" / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--opt", "colour=red"], 'invalid option: "colour"'),
        (["--opt", "type=nfs"], 'missing required option: "device"'),
        (["--opt", "device=/x"], 'missing required option: "type"'),
        (["--opt", "size=10m"], "quota size requested but no quota support"),
        (["--driver", "nosuch"], 'plugin "nosuch" not found'),
    ],
)
def test_options_that_make_no_sense(daemon: Daemon, options: list[str], message: str) -> None:
    name = f"vol-{os.urandom(4).hex()}"
    result = daemon.docker("volume", "create", *options, name)
    assert (result.code, message in result.err) == (1, True)
    assert daemon.docker("volume", "inspect", name).code == 1


def test_what_cannot_be_mounted_is_told_and_leaves_nothing(daemon: Daemon, name: str, tmp_path: Path) -> None:
    options = ["--opt", "type=none", "--opt", "o=bind", "--opt", f"device={tmp_path / 'nowhere'}"]
    daemon.docker_ok("volume", "create", *options, name)
    result = daemon.docker("run", "--name", name, "-v", f"{name}:/data", "busybox", "true")
    assert (result.code, "failed to mount local volume" in result.err) == (125, True)
    assert daemon.docker("container", "inspect", name).code == 1
    # one that is there at first, and gone at the start
    (tmp_path / "nowhere").mkdir()
    daemon.docker_ok("create", "--name", name, "-v", f"{name}:/data", "busybox", "true")
    (tmp_path / "nowhere").rmdir()
    result = daemon.docker("start", name)
    assert (result.code, "failed to mount local volume" in result.err) == (1, True)


def test_mounts_outlive_their_daemon_and_go_after_it(own_daemon: Daemon, tmp_path: Path) -> None:
    of_directory(own_daemon, "vol", tmp_path / "device")
    container = own_daemon.docker_ok("run", "-d", "-v", "vol:/data", "busybox", "sleep", "1000")
    own_daemon.kill()
    own_daemon.start()
    assert is_mounted(own_daemon, "vol")
    own_daemon.docker_ok("exec", container, "touch", "/data/file")
    assert (tmp_path / "device" / "file").exists()
    pid = int(own_daemon.docker_ok("inspect", "-f", "{{.State.Pid}}", container))
    own_daemon.kill()
    os.kill(pid, 9)
    own_daemon.start()
    wait_until(lambda: not is_mounted(own_daemon, "vol"), "it is unmounted")
    own_daemon.docker_ok("rm", container)
    own_daemon.docker_ok("volume", "rm", "vol")
    assert (tmp_path / "device" / "file").exists()
