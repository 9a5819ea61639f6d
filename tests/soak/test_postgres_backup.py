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


def backed_up_while_written_to(
    daemon: Daemon, name: str, volume: str, directory: Path, *options: str
) -> list[tuple[int, Path]]:
    """Write for half a minute and back up meanwhile: how many rows were acknowledged before each backup, and where it is."""
    start(daemon, name, volume)
    command = ["docker", "-H", daemon.host, "exec", "-u", "postgres", name, "sh", "-c", WRITE]
    writer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    begun = time.monotonic()
    backups: list[tuple[int, Path]] = []
    for at in BACKUPS_AT_S:
        time.sleep(max(0, begun + at - time.monotonic()))
        before = acknowledged(daemon, name)
        assert before > 0
        backups.append((before, directory / f"{at}.tar.zst"))
        daemon.lamina_ok("volume", "backup", volume, "-o", backups[-1][1], "--quiesce", name, *options)
    time.sleep(max(0, begun + WRITES_S - time.monotonic()))
    daemon.docker_ok("exec", "-u", "postgres", name, "touch", "/tmp/stop")
    assert writer.wait(30) == 0
    assert acknowledged(daemon, name) == int(query(daemon, name, "select count(*) from numbers"))
    return backups


def check(daemon: Daemon, name: str, before: int) -> None:
    """All rows up to some number are there, that of the last acknowledged one or a later; they are what was written."""
    count, highest = map(int, query(daemon, name, "select count(*), max(n) from numbers").split("|"))
    assert (count, highest >= before) == (highest, True), (count, highest, before)
    assert query(daemon, name, "select count(*) from numbers where text <> repeat(md5(n::text), 50)") == "0"
    daemon.docker_ok("exec", "-u", "postgres", name, "psql", "-qc", "reindex table numbers")
    daemon.docker_ok("exec", "-u", "postgres", name, "sh", "-c", "pg_dumpall > /dev/null")
    print(f"{name}: {before} rows acknowledged before the backup, {count} restored")


def test_no_acknowledged_row_is_missing_when_the_database_stands_still(databases: Daemon, tmp_path: Path) -> None:
    for number, (before, backup) in enumerate(backed_up_while_written_to(databases, "frozen", "data", tmp_path)):
        copy = f"restored-{number}"
        databases.lamina_ok("volume", "restore", "-i", backup, copy)
        check(databases, start(databases, copy, copy), before)
        databases.docker_ok("rm", "-fv", copy)
    databases.docker_ok("rm", "-f", "frozen")


def test_no_acknowledged_row_is_missing_from_the_databases_own_dump(databases: Daemon, tmp_path: Path) -> None:
    """The database goes on; what it dumps itself before the copy is whole, and gone from the volume after it."""
    as_postgres = "setpriv --reuid=postgres --regid=postgres --init-groups"
    options = ["--pre", f"{as_postgres} pg_dump -f {DATA}/dump.sql", "--post", f"rm {DATA}/dump.sql"]
    backups = backed_up_while_written_to(databases, "dumping", "live", tmp_path, *options)
    assert databases.docker("exec", "dumping", "ls", f"{DATA}/dump.sql").code != 0
    for number, (before, backup) in enumerate(backups):
        name = f"loaded-{number}"
        databases.lamina_ok("volume", "restore", "-i", backup, f"dumped-{number}")
        start(databases, name, name)
        place = databases.docker_ok("volume", "inspect", "-f", "{{.Mountpoint}}", f"dumped-{number}")
        databases.docker_ok("cp", f"{place}/dump.sql", f"{name}:/tmp/dump.sql")
        databases.docker_ok("exec", name, "chmod", "644", "/tmp/dump.sql")
        databases.docker_ok("exec", "-u", "postgres", name, "psql", "-qf", "/tmp/dump.sql")
        check(databases, name, before)
        databases.docker_ok("rm", "-fv", name)
    databases.docker_ok("rm", "-f", "dumping")
