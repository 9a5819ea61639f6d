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
from lamina.layer.merge import merge, stackable
from lamina.layer.tree import StaleTree, load
from lamina.linux.files import temporary_name
from lamina.linux.mount import FilesystemContext
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import ChainID, DiffID, chain_id
from lamina.snapshot.trees import LayerTrees

_SUFFIX = ".erofs"
_IN_PROCESS_TREE_BYTES = 64 << 10
_SMALL_LAYER_BYTES = 512 << 10
"""Trees that are smaller than this together are handled in a thread; starting a worker would cost more."""
_MAXIMUM_STACKED = 24
"""A longer stack is folded into one index: each layer costs every look-up a little."""


class ErofsLowers:
    """The ``erofs`` driver: indexes below *root*, one a stack of layers, named by its chain ID."""

    name = "erofs"

    def __init__(self, root: Path, content: ContentStore, trees: LayerTrees) -> None:
        self._root = root
        self._content = content
        self._trees = trees
        self._mounts: dict[ChainID, int] = {}
        self._layers: dict[DiffID, int | None] = {}
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

    async def stacked_lower(self, diff_ids: Sequence[DiffID], base: int) -> tuple[int, ...]:
        """See LowerDriver: an index of the base, or of more where there is one, and one of its own for each layer above that."""
        height = next((h for h in range(len(diff_ids), base, -1) if self._is_indexed(diff_ids[:h])), base)
        above = diff_ids[height:]
        if len(above) > _MAXIMUM_STACKED:
            return await self.lower(diff_ids)
        layers = [await self._layer(diff_id) for diff_id in reversed(above)]
        if None in layers:
            return await self.lower(diff_ids)
        return (*(fd for fd in layers if fd is not None), *await self.lower(diff_ids[:height]))

    def _is_indexed(self, diff_ids: Sequence[DiffID]) -> bool:
        chain = chain_id(diff_ids)
        return chain is not None and (chain in self._mounts or self._path(chain).exists())

    async def keep_only(self, stacks: Iterable[Sequence[DiffID]]) -> None:
        """See LowerDriver."""
        stacks = list(stacks)
        needed = {diff_id for stack in stacks for diff_id in stack}
        for diff_id in [d for d in self._layers if d not in needed]:
            fd = self._layers.pop(diff_id)
            if fd is not None:
                await asyncio.to_thread(os.close, fd)
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
        while self._layers:
            fd = self._layers.popitem()[1]
            if fd is not None:
                os.close(fd)

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

    async def _layer(self, diff_id: DiffID) -> int | None:
        """A mount of one layer's own index, None if overlayfs cannot stack the layer as it is."""
        if diff_id not in self._layers:
            async with self._locks.setdefault(ChainID(diff_id), asyncio.Lock()):
                if diff_id not in self._layers:
                    self._layers[diff_id] = await self._open_layer(diff_id)
        return self._layers[diff_id]

    async def _open_layer(self, diff_id: DiffID) -> int | None:
        tar = self._content.path(diff_id)
        if not tar.exists():
            raise BlobNotFound(diff_id)
        (tree,) = await self._trees.paths([diff_id])
        index = temporary_name(self._root / "layer")
        uuid = hashlib.sha256(diff_id.encode()).digest()[:16]
        try:
            if tree.stat().st_size < _SMALL_LAYER_BYTES:
                is_made = await asyncio.to_thread(build_layer_index, index, tree, tar, uuid)
            else:
                is_made = await run_in_worker(build_layer_index, (), index, tree, tar, uuid)
            return await asyncio.to_thread(mount_index, index, [tar]) if is_made else None
        except StaleTree:
            return None
        finally:
            index.unlink(missing_ok=True)  # the mount holds it; it is made again in less time than its sync would take

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


def build_layer_index(index: Path, tree: Path, tar: Path, uuid: bytes) -> bool:
    """Write the index of one layer for overlayfs to stack; False if it cannot. Blocking. Raises StaleTree."""
    stacked = stackable(load(tree))
    if stacked is not None:
        write_image(stacked, index, tars=[tar], uuid=uuid)
    return stacked is not None


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
