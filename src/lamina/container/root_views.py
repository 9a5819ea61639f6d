"""What a container sees as its root, its volumes included, for reading and writing its files from outside.

Of a container that runs it is its own view, with all that it has mounted. Of one that does not, the root is put together for a moment:
a copy of the snapshot's mount, in a place of its own, with the container's binds and volumes over it. Nobody else has it mounted, and a
container that is started meanwhile is not touched.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from lamina.container import init_layer
from lamina.container.record import NEVER, MountPoint, Record, volumes_of
from lamina.linux import mount, paths, processes
from lamina.linux.tasks import to_the_end
from lamina.oci.digest import DiffID, Digest
from lamina.snapshot import Snapshots
from lamina.volume import VolumeMounts


class RootViews:
    """The views of one state root's containers."""

    def __init__(self, run_root: Path, snapshots: Snapshots, volume_mounts: VolumeMounts) -> None:
        self._run_root = run_root
        self._snapshots = snapshots
        self._volume_mounts = volume_mounts

    def open(self) -> None:
        """Remove the views that a killed daemon left."""
        self._run_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in self._run_root.iterdir():
            _take_down(place)

    @asynccontextmanager
    async def of(self, record: Record) -> AsyncIterator[int]:
        """A directory descriptor of a container's root for the length of the block. Paths in it are hostile (``linux.paths``)."""
        fd = _root_of_process(record)
        if fd is not None:
            try:
                yield fd
            finally:
                os.close(fd)
            return
        async with self._snapshots.mounted(record.id, [DiffID(Digest(d)) for d in record.diff_ids]) as rootfs:
            if record.state.started_at == NEVER:
                init_layer.mark(rootfs)
            place = self._run_root / secrets.token_hex(8)
            await self._volume_mounts.take(volumes_of(record), place.name)
            try:
                await to_the_end(asyncio.to_thread(_put_together, place, rootfs, record))
                with paths.directory(place) as root:
                    yield root
            finally:
                await to_the_end(asyncio.to_thread(_take_down, place))
                await to_the_end(self._volume_mounts.give_back(volumes_of(record), place.name))


def _root_of_process(record: Record) -> int | None:
    """The root that a running container's first process has; None if there is no process any more."""
    if not record.state.has_process:
        return None
    pidfd = processes.open_process(record.state.pid, record.state.started_ticks)
    if pidfd is None:
        return None
    try:
        fd = os.open(f"/proc/{record.state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(pidfd)
    if processes.start_time(record.state.pid) != record.state.started_ticks:
        os.close(fd)  # it ended in between, and what was opened may be another's
        return None
    return fd


def _put_together(place: Path, rootfs: Path, record: Record) -> None:
    place.mkdir(mode=0o700)
    _attach(str(rootfs), str(place), read_only=record.host_config.readonly_rootfs)
    mount.mount("", str(place), flags=mount.MS_PRIVATE)
    with paths.directory(place) as root:
        for point in _outermost_first(record.mounts):
            if os.path.exists(point.source):
                _cover(root, point)


def _outermost_first(points: Sequence[MountPoint]) -> list[MountPoint]:
    return sorted((p for p in points if p.type in ("bind", "volume")), key=lambda point: point.destination.count("/"))


def _cover(root: int, point: MountPoint) -> None:
    if os.path.isdir(point.source):
        target = paths.make_directories_in_root(root, point.destination)
    else:
        target = paths.open_in_root(root, point.destination, os.O_PATH)
    try:
        _attach(point.source, f"/proc/self/fd/{target}", read_only=not point.rw)
    finally:
        os.close(target)


def _attach(source: str, target: str, *, read_only: bool) -> None:
    tree = mount.clone_tree(source)
    try:
        if read_only:
            mount.set_attributes(tree, mount.MOUNT_ATTR_RDONLY)
        mount.attach(tree, target)
    finally:
        os.close(tree)


def _take_down(place: Path) -> None:
    mount.unmount_all(str(place))
    with suppress(FileNotFoundError):
        place.rmdir()
