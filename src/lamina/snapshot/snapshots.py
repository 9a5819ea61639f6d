"""Snapshots: the read-write layer of a container or build step, over its image's lower, mounted as one root.

A read-write layer is two directories (overlayfs' upper and work) below the state root; it lives until it is removed. Its mount lies
below the run root in the host's mount namespace, so that it outlives the daemon; it is gone after a reboot and made again on demand.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from lamina.linux import mount
from lamina.oci.digest import DiffID
from lamina.snapshot.deletion import remove_tree
from lamina.snapshot.driver import LowerDriver

_FRESH_MODE = 0o755
_TRASH = ".trash-"


class Snapshots:
    """All read-write layers of one state root."""

    def __init__(self, root: Path, run_root: Path, lowers: LowerDriver) -> None:
        self._root = root
        self._mounts = run_root
        self._lowers = lowers
        self._empty = root / ".empty"

    def open(self, live: Iterable[str]) -> None:
        """Make the directories; remove read-write layers and mounts that none of the ids *live* owns."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._mounts.mkdir(parents=True, exist_ok=True)
        self._empty.mkdir(exist_ok=True)
        kept = set(live)
        for path in self._mounts.iterdir():
            if path.name not in kept:
                self._unmount(path)
        for path in self._root.iterdir():
            if path != self._empty and path.name not in kept:
                remove_tree(path)

    def upper(self, snapshot_id: str) -> Path:
        """The directory with everything that was written to the snapshot."""
        return self._root / snapshot_id / "upper"

    def rootfs(self, snapshot_id: str) -> Path:
        """Where the snapshot is or would be mounted."""
        return self._mounts / snapshot_id

    def create(self, snapshot_id: str) -> None:
        """Make an empty read-write layer."""
        base = self._root / snapshot_id
        base.mkdir(mode=0o700)
        for name in ("upper", "work"):
            (base / name).mkdir()
            (base / name).chmod(_FRESH_MODE)

    async def mount(self, snapshot_id: str, diff_ids: Sequence[DiffID]) -> Path:
        """Mount the snapshot over the layers *diff_ids* and return its root; one that is mounted stays as it is.

        Raises BlobNotFound if a layer is not stored, and OSError if the kernel refuses.
        """
        lowers = await self._lowers.lower(diff_ids)
        return await asyncio.to_thread(self._mount, snapshot_id, lowers)

    async def unmount(self, snapshot_id: str) -> None:
        """Unmount the snapshot; not mounted is no error."""
        await asyncio.to_thread(self._unmount, self.rootfs(snapshot_id))

    async def remove(self, snapshot_id: str) -> None:
        """Unmount and delete the read-write layer; gone already is no error."""
        await asyncio.to_thread(self._remove, snapshot_id)

    def size_bytes(self, snapshot_id: str) -> int:
        """Bytes of all regular files that were written to the snapshot. Blocking."""
        total = 0
        seen: set[int] = set()
        for path, _, names in os.walk(self.upper(snapshot_id)):
            for name in names:
                with suppress(FileNotFoundError):
                    status = os.lstat(f"{path}/{name}")
                    if status.st_ino not in seen:
                        seen.add(status.st_ino)
                        total += status.st_size
        return total

    def _mount(self, snapshot_id: str, lowers: tuple[int, ...]) -> Path:
        target = self.rootfs(snapshot_id)
        target.mkdir(exist_ok=True)
        if os.stat(target).st_dev != os.stat(self._mounts).st_dev:
            return target
        base = self._root / snapshot_id
        (base / "work").mkdir(exist_ok=True)
        if lowers:
            _show_root_of(lowers[0], base / "upper")
        empty = os.open(self._empty, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if not lowers else None
        try:
            fd = mount.overlay(lowers or (empty or 0,), str(base / "upper"), str(base / "work"))
        finally:
            if empty is not None:
                os.close(empty)
        try:
            mount.attach(fd, str(target))
        finally:
            os.close(fd)
        return target

    def _unmount(self, target: Path) -> None:
        with suppress(FileNotFoundError):
            while os.stat(target).st_dev != os.stat(self._mounts).st_dev:
                mount.unmount(str(target))
            target.rmdir()

    def _remove(self, snapshot_id: str) -> None:
        self._unmount(self.rootfs(snapshot_id))
        trash = self._root / f"{_TRASH}{secrets.token_hex(8)}"
        try:
            (self._root / snapshot_id).rename(trash)
        except FileNotFoundError:
            return
        remove_tree(trash)


def _show_root_of(lower_fd: int, upper: Path) -> None:
    """Give a fresh upper the attributes of the image's root, which it would hide otherwise."""
    status = os.stat(f"/proc/self/fd/{lower_fd}")
    fresh = os.stat(upper)
    if (
        not any(upper.iterdir())
        and (fresh.st_uid, fresh.st_gid) == (0, 0)
        and stat.S_IMODE(fresh.st_mode) == _FRESH_MODE
    ):
        os.chown(upper, status.st_uid, status.st_gid)
        upper.chmod(stat.S_IMODE(status.st_mode))
        os.utime(upper, ns=(status.st_mtime_ns, status.st_mtime_ns))
