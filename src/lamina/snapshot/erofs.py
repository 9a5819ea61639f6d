"""Lowers without unpacking: one EROFS index over the tars of all layers, mounted file-backed.

The index holds directories, attributes and, for each file, where its bytes lie in which layer's tar. The kernel reads them from
there, so a lower costs a few megabytes of disk and a fraction of a second however large the image is. Since the mount is EROFS, no
process can write to an image: there is no code in the kernel that would.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lamina.content import BlobNotFound, ContentStore
from lamina.layer.erofs import write_image
from lamina.layer.merge import merge
from lamina.layer.tree import StaleTree, load
from lamina.linux.files import temporary_name
from lamina.linux.mount import FilesystemContext
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import ChainID, DiffID, chain_id
from lamina.snapshot.trees import LayerTrees

_SUFFIX = ".erofs"
_IN_PROCESS_TREE_BYTES = 64 << 10
"""Trees that are smaller than this together are merged in a thread; starting a worker would cost more."""


class ErofsLowers:
    """The ``erofs`` driver: indexes below *root*, one a stack of layers, named by its chain ID."""

    name = "erofs"

    def __init__(self, root: Path, content: ContentStore, trees: LayerTrees) -> None:
        self._root = root
        self._content = content
        self._trees = trees
        self._mounts: dict[ChainID, int] = {}
        self._locks: dict[ChainID, asyncio.Lock] = {}

    def open(self) -> None:
        """Make the directory and remove unfinished indexes."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob(".tmp-*"):
            leftover.unlink()

    async def lower(self, diff_ids: Sequence[DiffID]) -> tuple[int, ...]:
        """See LowerDriver; always one descriptor, or none for no layers."""
        chain = chain_id(diff_ids)
        if chain is None:
            return ()
        if chain not in self._mounts:
            async with self._locks.setdefault(chain, asyncio.Lock()):
                if chain not in self._mounts:
                    self._mounts[chain] = await self._open(chain, diff_ids)
        return (self._mounts[chain],)

    async def keep_only(self, stacks: Iterable[Sequence[DiffID]]) -> None:
        """See LowerDriver."""
        kept = {chain_id(stack) for stack in stacks} | {chain for chain, lock in self._locks.items() if lock.locked()}
        for chain in [c for c in self._mounts if c not in kept]:
            self._locks.pop(chain, None)
            await asyncio.to_thread(os.close, self._mounts.pop(chain))
        names = {self._path(chain).name for chain in kept if chain is not None}
        for path in self._root.glob(f"*{_SUFFIX}"):
            if path.name not in names and not self._is_being_made(path):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """See LowerDriver."""
        while self._mounts:
            os.close(self._mounts.popitem()[1])

    async def _open(self, chain: ChainID, diff_ids: Sequence[DiffID]) -> int:
        tars = [self._content.path(d) for d in diff_ids]
        for diff_id, tar in zip(diff_ids, tars, strict=True):
            if not tar.exists():
                raise BlobNotFound(diff_id)
        index = self._path(chain)
        if not index.exists():
            await self._build(index, chain, diff_ids)
        return await asyncio.to_thread(mount_index, index, tars)

    async def _build(self, index: Path, chain: ChainID, diff_ids: Sequence[DiffID]) -> None:
        uuid = hashlib.sha256(chain.encode()).digest()[:16]
        tars = [self._content.path(d) for d in diff_ids]
        for attempt in range(2):
            trees = await self._trees.paths(list(diff_ids))
            small = sum(t.stat().st_size for t in trees) < _IN_PROCESS_TREE_BYTES
            try:
                if small:
                    await asyncio.to_thread(build_index, index, trees, tars, uuid)
                else:
                    await run_in_worker(build_index, (), index, trees, tars, uuid)
            except StaleTree:
                if attempt:
                    raise
                for diff_id in diff_ids:
                    self._trees.remove(diff_id)
            else:
                return

    def _path(self, chain: ChainID) -> Path:
        return self._root / (chain.hex + _SUFFIX)

    def _is_being_made(self, path: Path) -> bool:
        """Whether an index came under way, or into use, since the stacks to keep were looked at."""
        return any(
            self._path(chain) == path for chain, lock in self._locks.items() if lock.locked() or chain in self._mounts
        )


def build_index(index: Path, trees: Sequence[Path], tars: Sequence[Path], uuid: bytes) -> None:
    """Write the merged index of some layers' trees. Not synced: what a crash spoils is found by its missing name or made again.

    Blocking; run it in a thread or a worker. Raises StaleTree if a tree is of an older format.
    """
    temporary = temporary_name(index)
    try:
        write_image(merge([load(t) for t in trees]), temporary, tars=tars, uuid=uuid)
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        temporary.replace(index)
    finally:
        temporary.unlink(missing_ok=True)


def mount_index(index: Path, tars: Sequence[Path]) -> int:
    """Mount an index over its tars; return the detached mount's descriptor.

    File names go to the kernel as ``/proc/self/fd/N``, since an option's value may have 255 bytes at most.
    """
    fds = [os.open(p, os.O_RDONLY | os.O_CLOEXEC) for p in (index, *tars)]
    try:
        with FilesystemContext("erofs") as context:
            context.set_string("source", f"/proc/self/fd/{fds[0]}")
            context.set_flag("ro")
            for fd in fds[1:]:
                context.set_string("device", f"/proc/self/fd/{fd}")
            return context.mount()
    finally:
        for fd in fds:
            os.close(fd)
