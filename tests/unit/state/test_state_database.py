"""The database: a change is whole or not at all."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lamina.linux import mount
from lamina.state import Database, Schema
from lamina.state.database import DatabaseDamaged, WriteFailed

SCHEMA = Schema("thing", ("CREATE TABLE thing (name TEXT PRIMARY KEY) STRICT",))


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    for lasting in (True, False):
        database = await Database.open(tmp_path / "db", [SCHEMA])
        await database.write(lambda c, n=str(lasting): c.execute("INSERT INTO thing VALUES (?)", (n,)), lasting=lasting)  # type: ignore[misc]
        await database.close()
    database = await Database.open(tmp_path / "db", [SCHEMA])
    rows = await database.read(lambda c: c.execute("SELECT name FROM thing ORDER BY name").fetchall())
    assert [row["name"] for row in rows] == ["False", "True"]
    await database.close()


async def test_a_change_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "db", [SCHEMA])

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO thing VALUES ('a')")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(change)
    assert await database.read(lambda c: c.execute("SELECT * FROM thing").fetchall()) == []
    await database.close()


async def test_a_schema_grows_by_further_statements(tmp_path: Path) -> None:
    await (await Database.open(tmp_path / "db", [SCHEMA])).close()
    grown = Schema("thing", (*SCHEMA.migrations, "ALTER TABLE thing ADD COLUMN size INTEGER"))
    database = await Database.open(tmp_path / "db", [grown])
    await database.write(lambda c: c.execute("INSERT INTO thing VALUES ('a', 1)"))
    await database.close()
    with pytest.raises(DatabaseDamaged, match="newer version"):
        await Database.open(tmp_path / "db", [SCHEMA])


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"nonsense" * 100)
    with pytest.raises(DatabaseDamaged):
        await Database.open(tmp_path / "db", [SCHEMA])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount.mount("tmpfs", str(place), "tmpfs", data="size=16m")
    yield place
    mount.unmount(str(place))


async def test_on_a_full_disk_what_frees_can_be_written_and_nothing_else(small_disk: Path) -> None:
    database = await Database.open(small_disk / "db", [SCHEMA])
    await database.write(lambda c: c.execute("INSERT INTO thing VALUES (?)", ("x" * 200_000,)))
    with suppress(OSError), open(small_disk / "filling", "wb", buffering=0) as filling:
        while filling.write(bytes(4096)):
            pass
    with pytest.raises(WriteFailed, match="full"):
        await database.write(lambda c: c.execute("INSERT INTO thing VALUES (?)", ("y" * 3_000_000,)))
    await database.write(lambda c: c.execute("UPDATE thing SET name = ?", ("z" * 1_000_000,)), frees=True)
    (small_disk / "filling").unlink()
    await database.write(lambda c: c.execute("DELETE FROM thing"), frees=True)
    assert (small_disk / "db-ballast").stat().st_size > 0
    assert await database.read(lambda c: c.execute("SELECT * FROM thing").fetchall()) == []
    await database.close()


async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "db").touch(0o644)
    database = await Database.open(tmp_path / "db", [SCHEMA])
    await database.write(lambda c: c.execute("INSERT INTO thing VALUES ('a')"))
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob("db*")} == {0o600}
    await database.close()
