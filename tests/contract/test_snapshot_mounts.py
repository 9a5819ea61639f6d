"""A snapshot's one mount and its users: who runs on it, who reads it, who removes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lamina.content import ContentStore
from lamina.linux import mount
from lamina.snapshot import Snapshots
from lamina.snapshot.directory import DirectoryLowers
from lamina.snapshot.trees import LayerTrees

ID = "a" * 64


@pytest.fixture
async def snapshots(needs_root: None, tmp_path: Path) -> AsyncIterator[Snapshots]:
    made = _snapshots(tmp_path)
    made.open(())
    made.create(ID)
    yield made
    mount.unmount_all(str(tmp_path))


def _snapshots(base: Path) -> Snapshots:
    content = ContentStore(base / "content")
    lowers = DirectoryLowers(base / "lowers", content, LayerTrees(base / "trees", content))
    return Snapshots(base / "rw", base / "mounts", lowers)


def _is_mounted(snapshots: Snapshots) -> bool:
    return mount.is_mountpoint(str(snapshots.rootfs(ID)))


async def test_a_reader_leaves_the_mount_of_a_process_that_runs(snapshots: Snapshots) -> None:
    await snapshots.mount(ID, ())
    async with snapshots.mounted(ID, ()) as rootfs:
        assert rootfs == snapshots.rootfs(ID)
    assert _is_mounted(snapshots)
    await snapshots.unmount(ID)
    assert not _is_mounted(snapshots)


async def test_a_process_that_ends_leaves_the_mount_to_its_reader(snapshots: Snapshots) -> None:
    await snapshots.mount(ID, ())
    async with snapshots.mounted(ID, ()) as rootfs:
        await snapshots.unmount(ID)
        await snapshots.mount(ID, ())
        await snapshots.unmount(ID)
        assert mount.mountpoints(str(rootfs)) == [str(rootfs)]
    assert not _is_mounted(snapshots)


async def test_a_process_of_an_earlier_daemon_keeps_its_mount(snapshots: Snapshots, tmp_path: Path) -> None:
    await snapshots.mount(ID, ())
    later = _snapshots(tmp_path)
    later.open([ID])
    async with later.mounted(ID, ()):
        pass
    assert _is_mounted(snapshots)
    await later.unmount(ID)
    assert not _is_mounted(snapshots)


async def test_a_removal_waits_for_readers(snapshots: Snapshots) -> None:
    async with snapshots.mounted(ID, ()) as rootfs:
        removal = asyncio.ensure_future(snapshots.remove(ID))
        await asyncio.sleep(0.05)
        (rootfs / "written").write_bytes(b"x")
        assert not removal.done()
    await removal
    assert not snapshots.upper(ID).exists()
    assert not _is_mounted(snapshots)


async def test_many_readers_share_one_mount(snapshots: Snapshots) -> None:
    async def read() -> int:
        async with snapshots.mounted(ID, ()) as rootfs:
            await asyncio.sleep(0.01)
            return len(mount.mountpoints(str(rootfs)))

    assert await asyncio.gather(*(read() for _ in range(8))) == [1] * 8
    assert not _is_mounted(snapshots)


async def test_a_layer_that_a_power_failure_took_is_made_again(snapshots: Snapshots, tmp_path: Path) -> None:
    lost = "b" * 64
    _snapshots(tmp_path).open([ID, lost])
    assert snapshots.upper(lost).is_dir()
