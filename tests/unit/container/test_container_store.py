"""Records: a change shows when it is committed, and a fact also when it cannot be."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lamina.container.config import ContainerConfig, HostConfig
from lamina.container.record import Record
from lamina.container.store import SCHEMA, ContainerStore
from lamina.state import Database
from lamina.state.database import WriteFailed

ID = "a" * 64


def record(**changes: Any) -> Record:
    made = Record(
        id=ID,
        name="one",
        created="",
        created_ns=1,
        image_id="",
        image_name="",
        path="true",
        args=[],
        config=ContainerConfig(),
        host_config=HostConfig(),
        mounts=[],
        networks={},
        diff_ids=[],
    )
    return made.with_state(**changes)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "db", [SCHEMA])
    yield opened
    await opened.close()


@pytest.fixture
async def store(database: Database) -> ContainerStore:
    opened = ContainerStore(database)
    await opened.open()
    await opened.put(record())
    return opened


async def stored(database: Database) -> Record:
    again = ContainerStore(database)
    await again.open()
    return again.get(ID)


def failing(times: int, write: Callable[..., Any]) -> Callable[..., Any]:
    """A write that meets a full disk so many times."""

    async def attempt(change: Callable[[sqlite3.Connection], object], **options: Any) -> object:
        nonlocal times
        times -= 1
        if times >= 0:
            raise WriteFailed(Path("db"), "database or disk is full")
        return await write(change, **options)

    return attempt


async def test_an_end_shows_on_a_full_disk_and_is_written_when_there_is_room(
    store: ContainerStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.container.store._FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(database, "write", failing(3, database.write))
    await store.settle(record(status="exited", exit_code=3))
    assert store.get(ID).state.exit_code == 3
    assert (await stored(database)).state.status == "created"
    while (await stored(database)).state.status != "exited":
        await asyncio.sleep(0.01)
    await store.close()


async def test_what_could_not_be_written_is_tried_a_last_time_at_the_end(
    store: ContainerStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "write", failing(1, database.write))
    await store.settle(record(status="exited"))
    await store.close()
    assert (await stored(database)).state.status == "exited"


async def test_a_change_that_cannot_be_written_does_not_show(
    store: ContainerStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "write", failing(1, database.write))
    with pytest.raises(WriteFailed):
        await store.put(record(status="running"))
    assert store.get(ID).state.status == "created"


async def test_memory_and_row_agree_when_a_change_is_cancelled(store: ContainerStore, database: Database) -> None:
    changing = asyncio.ensure_future(store.put(record(status="running")))
    await asyncio.sleep(0)
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert store.get(ID).state.status == (await stored(database)).state.status


async def test_a_removal_takes_what_goes_with_it_in_one_transaction(store: ContainerStore, database: Database) -> None:
    def also(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM nothing_of_this_name")

    with pytest.raises(WriteFailed):
        await store.remove(ID, also)
    assert (await stored(database)).name == "one"
    assert ID in store
