"""A database takes writes while its volume is backed up: the restored copy has every row that was acknowledged before it stood still.

``make soak``. The image is made of Debian's packages by ``lamina bootstrap``, which takes a minute or two.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon, leftovers
from waiting import wait_until

BOOTSTRAP_S = 900
WRITES_S = 30
BACKUPS_AT_S = (8, 16, 24)
DATA = "/var/lib/postgresql"
SERVE = (
    "cd /; set -- /etc/postgresql/*/main; v=${1%/main}; v=${v##*/}; "
    "install -d -o postgres -g postgres /run/postgresql; "
    "exec setpriv --reuid=postgres --regid=postgres --init-groups "
    f"/usr/lib/postgresql/$v/bin/postgres -D {DATA}/$v/main -c config_file=/etc/postgresql/$v/main/postgresql.conf"
)
WRITE = (
    "psql -qc 'create table numbers (n integer primary key, text text)'; n=0; "
    "while [ ! -e /tmp/stop ]; do n=$((n+1)); "
    "psql -qc \"insert into numbers values ($n, repeat(md5('$n'), 50))\" && echo $n >> /tmp/acknowledged; done"
)


@pytest.fixture(scope="module")
def databases(needs_root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("databases"), command_timeout_s=BOOTSTRAP_S)
    try:
        daemon.start()
        daemon.lamina_ok("bootstrap", "debian:12", "--quiet", "--tag", "postgres", "--include=postgresql")
        yield daemon
    finally:
        daemon.discard()
    assert leftovers(daemon) == [], daemon.last_log[-4000:]


def start(daemon: Daemon, name: str, volume: str) -> str:
    daemon.docker_ok("run", "-d", "--name", name, "-v", f"{volume}:{DATA}", "postgres", "sh", "-c", SERVE)
    wait_until(lambda: query(daemon, name, "select 1") == "1", f"{name} answers\n{daemon.docker('logs', name)}", 60)
    return name


def query(daemon: Daemon, name: str, sql: str) -> str:
    return daemon.docker("exec", "-u", "postgres", name, "psql", "-tAc", sql).out.strip()


def acknowledged(daemon: Daemon, name: str) -> int:
    return int(daemon.docker("exec", name, "tail", "-n1", "/tmp/acknowledged").out.strip() or 0)


@pytest.mark.parametrize("commands", [False, True], ids=["frozen", "by its own commands"])
def test_no_acknowledged_row_is_missing_from_a_backup(databases: Daemon, tmp_path: Path, commands: bool) -> None:
    volume, name = ("by-commands", "db-c") if commands else ("frozen", "db-f")
    start(databases, name, volume)
    writer = subprocess.Popen(
        ["docker", "-H", databases.host, "exec", "-u", "postgres", name, "sh", "-c", WRITE], stderr=subprocess.DEVNULL
    )
    begun = time.monotonic()
    backups: list[tuple[int, Path]] = []
    options = ["--quiesce", name]
    if commands:  # the database's own way: what is copied between the two is made whole by its log
        pids = "grep -l '^Name:.postgres$' /proc/[0-9]*/status | cut -d/ -f3"
        run = "setpriv --reuid=postgres --regid=postgres --init-groups psql -qc"
        options += [
            "--pre",
            f"{run} 'checkpoint'; kill -STOP $({pids})",
            "--post",
            f"kill -CONT $({pids})",
        ]
    for at in BACKUPS_AT_S:
        time.sleep(max(0, begun + at - time.monotonic()))
        before = acknowledged(databases, name)
        backup = tmp_path / f"{at}.tar.zst"
        databases.lamina_ok("volume", "backup", volume, "-o", backup, *options)
        backups.append((before, backup))
    time.sleep(max(0, begun + WRITES_S - time.monotonic()))
    databases.docker_ok("exec", "-u", "postgres", name, "touch", "/tmp/stop")
    assert writer.wait(30) == 0
    assert acknowledged(databases, name) == int(query(databases, name, "select count(*) from numbers"))
    for number, (before, backup) in enumerate(backups):
        assert before > 0
        copy = f"{volume}-{number}"
        databases.lamina_ok("volume", "restore", "-i", backup, copy)
        restored = start(databases, copy, copy)
        count, highest = map(int, query(databases, restored, "select count(*), max(n) from numbers").split("|"))
        assert (count, highest >= before) == (highest, True), (count, highest, before)
        wrong = "select count(*) from numbers where text <> repeat(md5(n::text), 50)"
        assert query(databases, restored, wrong) == "0"
        databases.docker_ok("exec", "-u", "postgres", restored, "psql", "-qc", "reindex table numbers")
        databases.docker_ok("exec", "-u", "postgres", restored, "sh", "-c", "pg_dumpall > /dev/null")
        print(f"backup {number}: {before} rows acknowledged before, {count} restored")
        databases.docker_ok("rm", "-fv", restored)
    databases.docker_ok("rm", "-f", name)
