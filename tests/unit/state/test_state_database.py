"""The database: a change is whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lamina.state import Database, Schema
from lamina.state.database import DatabaseDamaged

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
