"""Volumes are somebody's data: nothing but a removal that was asked for takes one away."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lamina.state import Database
from lamina.volume import VolumeInUse, VolumeNotFound, VolumeStore
from lamina.volume.store import SCHEMA


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "db", [SCHEMA])
    yield opened
    await opened.close()


async def opened(database: Database, tmp_path: Path) -> VolumeStore:
    store = VolumeStore(database, tmp_path / "volume")
    await store.open()
    return store


async def test_volumes_survive_the_loss_of_the_database(database: Database, tmp_path: Path) -> None:
    store = await opened(database, tmp_path)
    (store_volume := await store.create("kept")).path.joinpath("file").write_text("x")
    anonymous = await store.create()
    await database.write(lambda c: c.execute("DELETE FROM volume"))
    again = await opened(database, tmp_path)
    assert {v.name: v.anonymous for v in again} == {"kept": False, anonymous.name: True}
    assert (again.get("kept").path / "file").read_text() == "x"
    assert again.get("kept").path == store_volume.path


async def test_what_was_on_its_way_in_or_out_is_removed_by_the_next_start(database: Database, tmp_path: Path) -> None:
    store = await opened(database, tmp_path)
    await store.create("kept")
    for name in (".tmp-1-half", ".trash-1-gone", "kept/.tmp-2-_data"):
        (tmp_path / "volume" / name / "_data").mkdir(parents=True)
    again = await opened(database, tmp_path)
    assert [v.name for v in again] == ["kept"]
    assert [p.name for p in (tmp_path / "volume").iterdir()] == ["kept"]
    assert [p.name for p in (tmp_path / "volume" / "kept").iterdir()] == ["_data"]


async def test_a_removal_that_was_not_committed_did_not_happen(database: Database, tmp_path: Path) -> None:
    store = await opened(database, tmp_path)
    (await store.create("vol")).path.joinpath("file").write_text("x")
    with pytest.raises(sqlite3.OperationalError), store.removing(["vol"]):
        assert "vol" not in store
        raise sqlite3.OperationalError("disk full")
    assert (store.get("vol").path / "file").read_text() == "x"
    (tmp_path / "volume" / "vol").rename(tmp_path / "volume" / ".trash-12-vol")  # as a crash at that place leaves it
    assert ((await opened(database, tmp_path)).get("vol").path / "file").read_text() == "x"


async def test_a_removed_volume_is_gone_with_its_files(database: Database, tmp_path: Path) -> None:
    store = await opened(database, tmp_path)
    await store.create("vol")
    await store.remove("vol")
    assert list((tmp_path / "volume").iterdir()) == []
    with pytest.raises(VolumeNotFound):
        await store.remove("vol")
    assert list(await opened(database, tmp_path)) == []


async def test_a_volume_is_held_while_a_container_that_wants_it_is_made(database: Database, tmp_path: Path) -> None:
    store = await opened(database, tmp_path)
    with store.hold() as hold:
        volume = await hold.create()
        assert volume.anonymous
        with pytest.raises(VolumeInUse):
            await store.remove(volume.name)
    await store.remove(volume.name)


async def test_a_directory_that_a_power_failure_took_is_made_again(database: Database, tmp_path: Path) -> None:
    volume = await (await opened(database, tmp_path)).create("vol")
    volume.path.rmdir()
    volume.path.parent.rmdir()
    assert (await opened(database, tmp_path)).get("vol").path.is_dir()
