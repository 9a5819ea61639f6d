"""Backups, copies and snapshots of volumes: with everything that files have, whole or not at all, also while containers write."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from conftest import LAMINA, Daemon
from waiting import wait_until

FILL = """
cd /data
mkdir -p deep/er empty && chmod 2750 deep && chown 7:8 deep
echo one > deep/er/one && ln deep/er/one two && ln -s deep/er/one link && ln -s /etc/shadow out
mkfifo fifo && chmod 600 fifo && mknod null c 1 3 && mknod whiteout c 0 0
head -c 300000 /dev/urandom > random && chmod 4755 random && chown 1000:77 random
printf 'x' > "$(printf 'name with \\n newline')"
touch -d '2001-02-03 04:05:06' deep/er/one
chmod 1777 . && chown 3:4 .
"""


class Volumes:
    """Volumes under names that nothing else has, which are removed in the end."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._stem = os.urandom(4).hex()

    def __call__(self, word: str = "v") -> str:
        return f"{word}-{self._stem}"

    def filled(self, word: str = "v", script: str = FILL) -> str:
        self.daemon.docker_ok("run", "--rm", "-v", f"{self(word)}:/data", "busybox", "sh", "-c", script)
        return self(word)

    def path(self, name: str) -> Path:
        return Path(self.daemon.docker_ok("volume", "inspect", "-f", "{{.Mountpoint}}", name))

    def writer(self, name: str, script: str) -> str:
        options = ["-d", "--name", self("writer"), "-v", f"{name}:/data"]
        self.daemon.docker_ok("run", *options, "busybox", "sh", "-c", script)
        return self("writer")

    def remove(self) -> None:
        self.daemon.docker("rm", "-f", *self.daemon.docker("ps", "-aq", "--filter", f"name={self._stem}").out.split())
        names = self.daemon.docker("volume", "ls", "-q", "--filter", f"name={self._stem}").out.split()
        if names:
            self.daemon.docker_ok("volume", "rm", "-f", *names)


@pytest.fixture
def volumes(daemon: Daemon) -> Iterator[Volumes]:
    made = Volumes(daemon)
    yield made
    made.remove()


def facts(top: Path) -> dict[str, Any]:
    """Everything that files have: kind, mode, owners, times, attributes, bytes, and which are the same file."""
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for path in sorted([top, *top.rglob("*")]):
        status = path.lstat()
        name = str(path.relative_to(top))
        content = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        attributes = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
        same = inodes.setdefault(status.st_ino, name)
        found[name] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            content,
            attributes,
            same,
        )
    return found


def test_a_backup_has_everything_and_gives_it_back(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    name = volumes.filled()
    os.setxattr(volumes.path(name) / "random", "user.colour", b"red\0blue")
    os.setxattr(volumes.path(name) / "deep", "trusted.overlay.opaque", b"y")
    before = facts(volumes.path(name))
    daemon.lamina_ok("volume", "backup", name, "-o", tmp_path / "backup.tar.zst")
    result = daemon.lamina("volume", "restore", "-i", tmp_path / "backup.tar.zst", volumes("copy"))
    assert (result.code, result.out.strip()) == (0, volumes("copy"))
    assert f"of volume {name}, taken 20" in result.err
    assert facts(volumes.path(volumes("copy"))) == before
    assert facts(volumes.path(name)) == before


def test_a_backup_tells_what_it_is_of(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    daemon.docker_ok("volume", "create", "--label", "of=everything", volumes())
    container = volumes.writer(volumes(), "echo x > /data/file; sleep 1000")
    daemon.lamina_ok("volume", "backup", volumes(), "-o", tmp_path / "backup.tar.zst", "--quiesce", container)
    with zstandard.open(tmp_path / "backup.tar.zst") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        first = archive.next()
        assert first is not None
        about = json.load(archive.extractfile(first))  # type: ignore[arg-type]
        names = [member.name for member in archive]
    assert names == ["volume.json", "data", "data/file", "end"]
    assert (about["volume"], about["labels"], about["quiesced"]) == (volumes(), {"of": "everything"}, container)
    assert [(c["name"], c["image"], c["running"]) for c in about["containers"]] == [(container, "busybox", True)]


def test_the_same_files_give_the_same_bytes(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    name = volumes.filled()
    bodies = []
    for number in range(2):
        daemon.lamina_ok("volume", "backup", name, "-o", tmp_path / str(number))
        data = zstandard.ZstdDecompressor().stream_reader((tmp_path / str(number)).read_bytes()).read()
        bodies.append(data[data.index(b"data/") :])
    assert bodies[0] == bodies[1]


def test_restore_overwrites_when_told_to_alone(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    name = volumes.filled()
    before = facts(volumes.path(name))
    daemon.lamina_ok("volume", "backup", name, "-o", tmp_path / "backup")
    volumes.filled(script="echo other > /data/newer")
    refused = daemon.lamina("volume", "restore", "-i", tmp_path / "backup")
    assert refused.code == 1
    assert f"volume {name} exists and is not empty" in refused.err
    assert (volumes.path(name) / "newer").exists()
    daemon.lamina_ok("volume", "restore", "--force", "-i", tmp_path / "backup")
    assert facts(volumes.path(name)) == before
    container = volumes.writer(name, "sleep 1000")
    in_use = daemon.lamina("volume", "restore", "--force", "-i", tmp_path / "backup")
    assert (in_use.code, "volume is in use" in in_use.err) == (1, True)
    daemon.docker_ok("rm", "-f", container)


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "no end", "outside"])
def test_a_damaged_backup_changes_nothing(daemon: Daemon, volumes: Volumes, tmp_path: Path, damage: str) -> None:
    name = volumes.filled()
    backup = tmp_path / "backup"
    daemon.lamina_ok("volume", "backup", name, "-o", backup)
    data = backup.read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(data).read()
    if damage == "cut":
        backup.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        backup.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    elif damage == "foreign":
        subprocess.run(["tar", "-cf", backup, "-C", tmp_path, "--files-from", "/dev/null"], check=True)
    elif damage == "empty":
        backup.write_bytes(b"")
    elif damage == "no end":
        backup.write_bytes(plain[: plain.rindex(b"end\0")] + bytes(1024))
    else:
        backup.write_bytes(plain.replace(b"data/deep/er/one", b"data/../../../x"))
    before = facts(volumes.path(name))
    result = daemon.lamina("volume", "restore", "--force", "-i", backup)
    assert result.code == 1, result.out
    assert "lamina: " in result.err or "backup" in result.err
    assert facts(volumes.path(name)) == before
    result = daemon.lamina("volume", "restore", "-i", backup, volumes("new"))
    assert result.code == 1
    assert daemon.docker("volume", "inspect", volumes("new")).code == 1
    assert not list(daemon.root.glob("volume/.tmp-*"))


def test_a_clone_is_a_volume_of_its_own(daemon: Daemon, volumes: Volumes) -> None:
    name = volumes.filled()
    os.setxattr(volumes.path(name) / "random", "user.colour", b"red")
    assert daemon.lamina_ok("volume", "clone", name, volumes("clone")) == volumes("clone")
    assert facts(volumes.path(volumes("clone"))) == facts(volumes.path(name))
    volumes.filled("clone", "echo changed > /data/two")
    assert (volumes.path(name) / "two").read_text() == "one\n"
    refused = daemon.lamina("volume", "clone", name, volumes("clone"))
    assert (refused.code, "exists and is not empty" in refused.err) == (1, True)


# ---- snapshots


def test_snapshots_keep_what_was_and_share_what_is_the_same(daemon: Daemon, volumes: Volumes) -> None:
    name = volumes.filled()
    time.sleep(2.1)  # what has just been changed is not relied on
    first = facts(volumes.path(name))
    for snapshot in ("one", "two"):
        assert daemon.lamina_ok("volume", "snapshot", "create", name, snapshot) == snapshot
    volumes.filled(script="cd /data; echo changed > two; rm random; echo new > new")
    daemon.lamina_ok("volume", "snapshot", "create", name, "three")
    assert daemon.lamina_ok("volume", "snapshot", "ls", "-q", name).split() == ["one", "two", "three"]
    shown = [
        json.loads(line) for line in daemon.lamina_ok("volume", "snapshot", "ls", "--format", "json", name).splitlines()
    ]
    assert [item["Shared"] for item in shown][1] == shown[1]["Size"]
    place = volumes.path(name).parent / "snapshots"
    assert facts(place / "one" / "data") == facts(place / "two" / "data") == first
    assert (place / "one" / "data" / "random").stat().st_ino == (place / "two" / "data" / "random").stat().st_ino
    third = facts(volumes.path(name))
    daemon.lamina_ok("volume", "snapshot", "restore", name, "one")
    assert facts(volumes.path(name)) == first
    volumes.filled(script="echo damaged > /data/random")
    assert facts(place / "one" / "data") == first
    daemon.lamina_ok("volume", "snapshot", "rm", name, "one")
    assert facts(place / "two" / "data") == first
    daemon.lamina_ok("volume", "snapshot", "restore", "--to", volumes("other"), name, "three")
    assert facts(volumes.path(volumes("other"))) == third


def test_what_snapshots_refuse(daemon: Daemon, volumes: Volumes) -> None:
    name = volumes.filled()
    daemon.lamina_ok("volume", "snapshot", "create", name, "one")
    for words, message in (
        (["create", name, "one"], "has a snapshot one already"),
        (["create", name, "../x"], "invalid snapshot name"),
        (["create", volumes("nosuch")], "no such volume"),
        (["restore", name, "two"], "has no snapshot two"),
        (["rm", name, ".."], "has no snapshot .."),
    ):
        result = daemon.lamina("volume", "snapshot", *words)
        assert (result.code, message in result.err) == (1, True), result.err
    refused = daemon.docker("volume", "rm", name)
    assert (refused.code, "volume has snapshots" in refused.err) == (1, True)
    assert name not in daemon.docker_ok("volume", "prune", "--all", "--force", "--filter", f"label!={name}")
    container = volumes.writer(name, "sleep 1000")
    result = daemon.lamina("volume", "snapshot", "restore", name, "one")
    assert (result.code, "volume is in use" in result.err) == (1, True)
    daemon.docker_ok("rm", "-f", container)
    daemon.docker_ok("volume", "rm", "-f", name)


def test_what_is_mounted_is_cared_for_as_well(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs"]
    daemon.docker_ok("volume", "create", *options, volumes())
    container = volumes.writer(volumes(), "echo kept > /data/file; sleep 1000")
    path = volumes.path(volumes())
    wait_until(lambda: (path / "file").exists(), "the file")
    daemon.lamina_ok("volume", "snapshot", "create", volumes(), "s")
    daemon.lamina_ok("volume", "backup", volumes(), "-o", tmp_path / "b", "--quiesce", container)
    daemon.lamina_ok("volume", "restore", "-i", tmp_path / "b", volumes("restored"))
    for copy in (daemon.lamina_ok("volume", "clone", volumes(), volumes("clone")), volumes("restored")):
        assert (volumes.path(copy) / "file").read_text() == "kept\n"
    result = daemon.lamina("volume", "snapshot", "restore", volumes(), "s")
    assert result.code == 1


def test_a_volume_stays_while_it_is_backed_up(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    name = volumes.filled(script="for n in 1 2 3 4 5 6; do head -c 8000000 /dev/urandom > /data/$n; done")
    command = [str(LAMINA), "volume", "backup", name]
    with (tmp_path / "backup").open("wb") as file:
        environment = {**os.environ, "LAMINA_HOST": daemon.host}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            file.write(running.stdout.read(100000))
            refused = daemon.docker("volume", "rm", name)
            assert (refused.code, "volume is in use" in refused.err) == (1, True)
            file.write(running.stdout.read())
        assert running.returncode == 0
    daemon.lamina_ok("volume", "restore", "-i", tmp_path / "backup", volumes("restored"))
    assert facts(volumes.path(volumes("restored"))) == facts(volumes.path(name))


# ---- while containers write

COUNT = "n=0; while :; do n=$((n+1)); echo $n > /data/first; echo $n > /data/second; done"


def test_a_container_stands_still_for_the_copy(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    """It writes a number first to one file and then to another: a copy of one moment has numbers that differ by one at most."""
    container = volumes.writer(volumes(), COUNT)
    path = volumes.path(volumes())
    wait_until(lambda: (path / "second").exists(), "it writes")
    for number in range(5):
        daemon.lamina_ok("volume", "backup", volumes(), "-o", tmp_path / "b", "--quiesce", container)
        daemon.lamina_ok("volume", "restore", "-i", tmp_path / "b", volumes(f"copy{number}"))
        copy = volumes.path(volumes(f"copy{number}"))
        first, second = ((copy / word).read_text().strip() for word in ("first", "second"))
        # a file that has just been emptied for its next number is of the same moment, too
        assert not first or not second or int(first) - int(second) in (0, 1)
    assert daemon.docker_ok("inspect", "-f", "{{.State.Status}}", container) == "running"
    before = (path / "second").read_text()
    wait_until(lambda: (path / "second").read_text() != before, "it goes on")
    assert not list(daemon.root.glob("volume/.tmp-*"))


def test_commands_before_and_after_instead(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    container = volumes.writer(volumes(), "sleep 1000")
    options = [
        "--quiesce",
        container,
        "--pre",
        "echo dumped > /data/dump",
        "--post",
        "rm /data/dump; echo done > /data/done",
    ]
    daemon.lamina_ok("volume", "backup", volumes(), "-o", tmp_path / "backup", *options)
    path = volumes.path(volumes())
    assert sorted(p.name for p in path.iterdir()) == ["done"]
    daemon.lamina_ok("volume", "restore", "-i", tmp_path / "backup", volumes("copy"))
    assert (volumes.path(volumes("copy")) / "dump").read_text() == "dumped\n"
    failing = ["--quiesce", container, "--pre", "echo no; exit 7"]
    result = daemon.lamina("volume", "snapshot", "create", volumes(), "s", *failing)
    assert (result.code, "ended with 7: no" in result.err) == (1, True)
    assert daemon.lamina_ok("volume", "snapshot", "ls", "-q", volumes()) == ""


def test_who_cannot_stand_still_is_told(daemon: Daemon, volumes: Volumes, tmp_path: Path) -> None:
    name = volumes.filled()
    daemon.docker_ok("run", "-d", "--name", volumes("other"), "busybox", "sleep", "1000")
    for options, message in (
        (["--quiesce", volumes("other")], "does not have volume"),
        (["--quiesce", volumes("nosuch")], "No such container"),
        (["--pre", "true"], "--pre and --post need --quiesce"),
    ):
        result = daemon.lamina("volume", "backup", name, "-o", tmp_path / "backup", *options)
        assert (result.code, message in result.err) == (1, True), result.err
    assert not (tmp_path / "backup").exists()


def test_a_daemon_that_is_killed_during_a_backup_leaves_nothing(own_daemon: Daemon, tmp_path: Path) -> None:
    volumes = Volumes(own_daemon)
    volumes.filled(script="head -c 200000000 /dev/urandom > /data/large")
    container = volumes.writer(volumes(), "sleep 1000")
    words = ["volume", "backup", volumes(), "-o", str(tmp_path / "backup"), "--quiesce", container]
    running = subprocess.Popen(
        [str(LAMINA), *words],
        env={**os.environ, "LAMINA_HOST": own_daemon.host},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: list(own_daemon.root.glob("volume/.tmp-*/_data")), "the copy")
    own_daemon.kill()
    assert running.wait(30) != 0
    assert not (tmp_path / "backup").exists()
    own_daemon.start()
    assert not list(own_daemon.root.glob("volume/.tmp-*"))
    # one that stood still when the daemon died does not go on by itself, and is shown as what it is
    status = own_daemon.docker_ok("inspect", "-f", "{{.State.Status}}", container)
    assert status in ("running", "paused")
    if status == "paused":
        own_daemon.docker_ok("unpause", container)
