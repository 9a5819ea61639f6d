"""Snapshots: the read-write layer of a container or build step, over its image's lower, mounted as one root.

A read-write layer is two directories (overlayfs' upper and work) below the state root; it lives until it is removed. Its mount lies
below the run root in the host's mount namespace, so that it outlives the daemon; it is gone after a reboot and made again on demand.

One upper may be in one overlay only, and one mount may have several users: the process that runs on it (``mount`` to ``unmount``) and
whoever reads or fills it meanwhile (``mounted``). It is unmounted when the last of them lets go.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lamina.linux import mount
from lamina.linux.deletion import remove_tree
from lamina.linux.files import bytes_below
from lamina.linux.tasks import to_the_end
from lamina.linux.user_namespace import UserNamespace
from lamina.oci.digest import DiffID
from lamina.snapshot.driver import LowerDriver

_FRESH_MODE = 0o755
_REMAPPED = "remapped"
"""Beside a layer's upper directory: whose root its files' root is on the host."""
_TRASH = ".trash-"


@dataclass
class _Use:
    """Who uses a snapshot's mount: a process that runs on it, and a number of others. ``idle`` is set when there are none of these."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    runs: bool = False
    readers: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Snapshots:
    """All read-write layers of one state root."""

    def __init__(
        self, root: Path, run_root: Path, lowers: LowerDriver, user_namespace: UserNamespace | None = None
    ) -> None:
        """With a *user_namespace* those snapshots that are ``remapped`` are for processes in it."""
        self._user_namespace = user_namespace
        self._root = root
        self._mounts = run_root
        self._lowers = lowers
        self._empty = root / ".empty"
        self._uses: dict[str, _Use] = {}

    def open(self, live: Iterable[str]) -> None:
        """Make the directories, those of *live* too if a power failure took them; remove layers and mounts that are nobody's.

        What is mounted still counts as being run on: its process may have outlived the daemon that mounted it.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        self._mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        # what is mounted here has programs that are root's for whoever reaches them; a remapped root is to reach its own
        self._mounts.chmod(0o700 if self._user_namespace is None else 0o710)
        if self._user_namespace is not None:
            os.chown(self._mounts, -1, self._user_namespace.idmap.gid_start)
        self._empty.mkdir(exist_ok=True)
        kept = set(live)
        for path in self._mounts.iterdir():
            if path.name not in kept:
                self._unmount(path)
            else:
                self._use(path.name).runs = True
        for path in self._root.iterdir():
            if path != self._empty and path.name not in kept:
                remove_tree(path)
        for snapshot_id in kept:
            if not self.upper(snapshot_id).exists():
                self.create(snapshot_id)

    def upper(self, snapshot_id: str) -> Path:
        """The directory with everything that was written to the snapshot."""
        return self._root / snapshot_id / "upper"

    def rootfs(self, snapshot_id: str) -> Path:
        """Where the snapshot is or would be mounted."""
        return self._mounts / snapshot_id

    def create(self, snapshot_id: str, *, remapped: bool = False) -> None:
        """Make an empty read-write layer; one that is *remapped* is for processes in the user namespace."""
        base = self._root / snapshot_id
        base.mkdir(mode=0o700, exist_ok=True)
        for name in ("upper", "work"):
            (base / name).mkdir(exist_ok=True)
            (base / name).chmod(_FRESH_MODE)
        if remapped and self._user_namespace is not None:
            (base / _REMAPPED).write_text(str(self._user_namespace.idmap.root))

    async def mount(self, snapshot_id: str, diff_ids: Sequence[DiffID], *, base: int | None = None) -> Path:
        """Mount the snapshot over the layers *diff_ids* for a process to run on and return its root; one that is mounted stays as it is.

        With *base* it is for a build's step, whose layers above the first *base* grow by one each time (``LowerDriver.stacked_lower``).

        Raises BlobNotFound if a layer is not stored, and OSError if the kernel refuses.
        """
        use = self._use(snapshot_id)
        async with use.lock:
            rootfs = await self._mount_over(snapshot_id, diff_ids, base=base)
            use.runs = True
        return rootfs

    async def unmount(self, snapshot_id: str) -> None:
        """The process has ended: unmount the snapshot, unless somebody reads it still. Not mounted is no error."""
        use = self._use(snapshot_id)
        async with use.lock:
            use.runs = False
            await self._unmount_unused(snapshot_id, use)

    @asynccontextmanager
    async def mounted(self, snapshot_id: str, diff_ids: Sequence[DiffID]) -> AsyncIterator[Path]:
        """The snapshot's root for the length of the block, whether a process runs on it or not. Raises as ``mount`` does."""
        use = self._use(snapshot_id)
        async with use.lock:
            rootfs = await self._mount_over(snapshot_id, diff_ids)
            use.readers += 1
            use.idle.clear()
        try:
            yield rootfs
        finally:
            use.readers -= 1
            if not use.readers:
                use.idle.set()
            await to_the_end(self._let_go(snapshot_id, use))

    async def remove(self, snapshot_id: str) -> None:
        """Unmount and delete the read-write layer, when nobody reads it any more; gone already is no error."""
        use = self._use(snapshot_id)
        while use.readers:
            await use.idle.wait()
        async with use.lock:
            await to_the_end(asyncio.to_thread(self._remove, snapshot_id))
        self._uses.pop(snapshot_id, None)

    def size_bytes(self, snapshot_id: str) -> int:
        """Bytes of all regular files that were written to the snapshot. Blocking."""
        return bytes_below(self.upper(snapshot_id))

    def _use(self, snapshot_id: str) -> _Use:
        return self._uses.setdefault(snapshot_id, _Use())

    async def _mount_over(self, snapshot_id: str, diff_ids: Sequence[DiffID], *, base: int | None = None) -> Path:
        if base is None:
            lowers = await self._lowers.lower(diff_ids)
        else:
            lowers = await self._lowers.stacked_lower(diff_ids, base)
        return await to_the_end(asyncio.to_thread(self._mount, snapshot_id, lowers))

    async def _let_go(self, snapshot_id: str, use: _Use) -> None:
        async with use.lock:
            await self._unmount_unused(snapshot_id, use)

    async def _unmount_unused(self, snapshot_id: str, use: _Use) -> None:
        if not use.runs and not use.readers:
            await to_the_end(asyncio.to_thread(self._unmount, self.rootfs(snapshot_id)))

    def _mount(self, snapshot_id: str, lowers: tuple[int, ...]) -> Path:
        target = self.rootfs(snapshot_id)
        target.mkdir(exist_ok=True)
        if os.stat(target).st_dev != os.stat(self._mounts).st_dev:
            return target
        base = self._root / snapshot_id
        (base / "work").mkdir(exist_ok=True)
        with ExitStack() as stack:
            if not lowers:
                lowers = (os.open(self._empty, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),)
                stack.callback(os.close, lowers[0])
            lowers = self._shifted(base, lowers, stack)
            _show_root_of(lowers[0], base / "upper")
            fd = mount.overlay(lowers, str(base / "upper"), str(base / "work"))
        try:
            mount.attach(fd, str(target))
        finally:
            os.close(fd)
        return target

    def _shifted(self, base: Path, lowers: tuple[int, ...], stack: ExitStack) -> tuple[int, ...]:
        """The lowers as processes in the user namespace are to see them, if the layer is for such; closed with the stack.

        What is written lies in the upper with the owners that it has on the host.
        """
        if not (base / _REMAPPED).exists():
            return lowers
        namespace = self._user_namespace
        if namespace is None or (base / _REMAPPED).read_text() != str(namespace.idmap.root):
            raise OSError(f"{base.name} was made for another user namespace: use the same --userns-remap as then")
        shifted = []
        for lower in lowers:
            shifted.append(namespace.shifted(lower))
            stack.callback(os.close, shifted[-1])
        return tuple(shifted)

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
