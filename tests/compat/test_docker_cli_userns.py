"""``--userns-remap``: who is root in a container is nobody on the host, and nobody notices in the container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon, serving

START = 231_072
MAPPING = ("--userns-remap", "default")


@pytest.fixture(scope="module")
def remapped(needs_root: None, busybox_tar: Path) -> Iterator[Daemon]:
    # pytest's own directories are for root alone; /run/lamina, as it is by default, can be passed through
    base = Path(tempfile.mkdtemp(prefix="lamina-remapped-"))
    base.chmod(0o711)
    (base / "root").mkdir()
    (base / "root" / "userns-remap").write_text(
        json.dumps({"uid_start": START, "gid_start": START, "uid_count": 65536, "gid_count": 65536})
    )
    with serving(base, busybox_tar, MAPPING) as served:
        yield served
    shutil.rmtree(base, ignore_errors=True)


def shell(command: str) -> str:
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False).stdout


def pid_of(daemon: Daemon, name: str) -> str:
    return daemon.docker_ok("inspect", "-f", "{{.State.Pid}}", name).strip()


def test_root_is_nobody_on_the_host(remapped: Daemon) -> None:
    script = "id -u; touch /made; stat -c %u /made /bin/busybox /etc/hosts; cat /proc/self/uid_map; sleep 1000"
    remapped.docker_ok("run", "-d", "--name", "mapped", "busybox", "sh", "-c", script)
    status = Path(f"/proc/{pid_of(remapped, 'mapped')}/status").read_text()
    assert f"Uid:\t{START}\t{START}" in status
    lines = remapped.docker_ok("exec", "mapped", "sh", "-c", script.replace("; sleep 1000", "")).splitlines()
    assert lines[:4] == ["0", "0", "0", "0"]
    assert lines[4].split() == ["0", str(START), "65536"]
    remapped.docker_ok("rm", "-f", "mapped")


def test_the_network_and_limits_work(remapped: Daemon) -> None:
    script = "while :; do echo hello | nc -l -p 80; done"
    remapped.docker_ok("run", "-d", "--name", "server", "--memory", "64m", "busybox", "sh", "-c", script)
    ip = remapped.docker_ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server").strip()
    assert remapped.docker_ok("run", "--rm", "busybox", "nc", "-w", "5", ip, "80") == "hello"
    assert remapped.docker_ok("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net") == "lo"
    remapped.docker_ok("rm", "-f", "server")


def test_volumes_belong_to_the_container_s_root(remapped: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir /data && echo seed > /data/f && chown 5:6 /data/f\nVOLUME /data\n"
    )
    remapped.docker_ok("build", "-q", "-t", "seeded", context)
    script = "stat -c %u:%g /data/f; echo new > /data/new; stat -c %u /data/new"
    assert remapped.docker_ok("run", "--rm", "-v", "vol:/data", "seeded", "sh", "-c", script).splitlines() == [
        "5:6",
        "0",
    ]
    where = Path(remapped.docker_ok("volume", "inspect", "-f", "{{.Mountpoint}}", "vol").strip())
    assert (where / "new").stat().st_uid == START
    assert remapped.docker_ok("run", "--rm", "-v", "vol:/data", "busybox", "cat", "/data/new") == "new"
    remapped.docker_ok("volume", "rm", "vol")


def test_what_comes_out_has_the_container_s_owners(remapped: Daemon, tmp_path: Path) -> None:
    script = "echo x > /f; chown 7:8 /f; sleep 1000"
    remapped.docker_ok("run", "-d", "--name", "giving", "busybox", "sh", "-c", script)
    while remapped.docker("exec", "giving", "stat", "-c", "%u", "/f").out.strip() != "7":
        pass
    for state in ("running", "stopped"):
        listing = shell(f"docker -H {remapped.host} cp giving:/f - | tar -tv --numeric-owner")
        assert " 7/8 " in listing, state
        exported = shell(f"docker -H {remapped.host} export giving | tar -tv --numeric-owner f bin/busybox")
        assert " 7/8 " in exported
        assert " 0/0 " in exported
        if state == "running":
            (tmp_path / "in").write_text("in")
            os.chown(tmp_path / "in", 3, 4)
            remapped.docker_ok("cp", "-a", tmp_path / "in", "giving:/in")
            assert remapped.docker_ok("exec", "giving", "stat", "-c", "%u:%g", "/in") == "3:4"
            remapped.docker_ok("kill", "giving")
    assert remapped.docker_ok("diff", "giving").splitlines() == ["A /f", "A /in"]
    remapped.docker_ok("commit", "giving", "given")
    assert remapped.docker_ok("run", "--rm", "--userns", "host", "given", "stat", "-c", "%u:%g", "/f") == "7:8"
    assert remapped.docker_ok("run", "--rm", "given", "stat", "-c", "%u:%g", "/f") == "7:8"
    remapped.docker_ok("rm", "-f", "giving")
    remapped.docker_ok("rmi", "given")


def test_the_host_s_namespace_can_be_asked_for(remapped: Daemon) -> None:
    remapped.docker_ok("run", "-d", "--name", "unmapped", "--userns", "host", "busybox", "sleep", "1000")
    assert "Uid:\t0\t0" in Path(f"/proc/{pid_of(remapped, 'unmapped')}/status").read_text()
    remapped.docker_ok("rm", "-f", "unmapped")
    assert remapped.docker_ok("run", "--rm", "--userns", "host", "--privileged", "busybox", "id", "-u") == "0"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host's PID namespace when user namespaces are enabled"),
    ],
)
def test_what_a_mapped_container_cannot_have_is_refused(remapped: Daemon, options: list[str], reason: str) -> None:
    assert reason in remapped.docker("create", *options, "busybox", "true").err


def test_containers_live_through_the_daemon_s_death(remapped: Daemon) -> None:
    remapped.docker_ok(
        "run", "-d", "--name", "lasting", "--restart", "always", "busybox", "sh", "-c", "touch /x; sleep 1000"
    )
    remapped.kill()
    remapped.start()
    assert remapped.docker_ok("exec", "lasting", "stat", "-c", "%u", "/x") == "0"
    remapped.docker_ok("restart", "-t", "0", "lasting")
    assert remapped.docker_ok("exec", "lasting", "stat", "-c", "%u", "/x") == "0"
    remapped.docker_ok("rm", "-f", "lasting")
    assert "name=userns" in remapped.docker_ok("info", "--format", "{{.SecurityOptions}}")
