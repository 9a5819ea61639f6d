"""Lowers by extraction: one directory a layer, stacked by overlayfs.

For kernels that cannot mount EROFS from files (before 6.12), stores that lie on overlayfs or tmpfs, and user namespaces. Slower and
larger than the index, and held to the same contract tests.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lamina.content import BlobNotFound, ContentStore
from lamina.layer.extract import extract_layer
from lamina.linux.deletion import remove_tree
from lamina.linux.files import sync_directory, temporary_name
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import ChainID, DiffID, chain_id
from lamina.snapshot.trees import LayerTrees


class DirectoryLowers:
    """The ``directory`` driver: trees below *root*, named by the chain ID up to the layer.

    By the chain and not by the layer alone, since a layer may hold hard links to files of the layers below it, which are copied up.
    """

    name = "directory"

    def __init__(self, root: Path, content: ContentStore, trees: LayerTrees) -> None:
        self._root = root
        self._content = content
        self._trees = trees
        self._fds: dict[ChainID, int] = {}
        self._locks: dict[ChainID, asyncio.Lock] = {}
        self._asked_for: list[Sequence[DiffID]] = []

    def open(self) -> None:
        """Make the directory and remove unfinished trees."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob(".tmp-*"):
            remove_tree(leftover)

    async def lower(self, diff_ids: Sequence[DiffID]) -> tuple[int, ...]:
        """See LowerDriver; a descriptor for each layer."""
        self._asked_for.append(diff_ids)
        try:
            return tuple([await self._layer(diff_ids[:n]) for n in range(len(diff_ids), 0, -1)])
        finally:
            self._asked_for.remove(diff_ids)

    async def stacked_lower(self, diff_ids: Sequence[DiffID], base: int) -> tuple[int, ...]:
        """See LowerDriver; every layer has a directory of its own anyway."""
        return await self.lower(diff_ids)

    async def keep_only(self, stacks: Iterable[Sequence[DiffID]]) -> None:
        """See LowerDriver; a stack's layers are kept one by one, since others may stand on them."""
        kept = {chain for stack in (*stacks, *self._asked_for) for chain in _prefixes(stack)}
        for chain in [c for c in self._fds if c not in kept]:
            self._locks.pop(chain, None)
            os.close(self._fds.pop(chain))
        names = {chain.hex for chain in kept}
        for path in list(self._root.iterdir()):
            if path.name not in names and not self._is_in_use(path):
                await asyncio.to_thread(remove_tree, path)

    def close(self) -> None:
        """See LowerDriver."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    async def _layer(self, diff_ids: Sequence[DiffID]) -> int:
        chain = chain_id(diff_ids)
        assert chain is not None
        async with self._locks.setdefault(chain, asyncio.Lock()):
            if chain not in self._fds:
                path = self._path(chain)
                if not path.exists():
                    await self._extract(path, diff_ids)
                self._fds[chain] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fds[chain]

    async def _extract(self, path: Path, diff_ids: Sequence[DiffID]) -> None:
        tars = [self._content.path(d) for d in diff_ids]
        if not tars[-1].exists():
            raise BlobNotFound(diff_ids[-1])
        trees = await self._trees.paths(list(diff_ids))
        temporary = temporary_name(path)
        temporary.mkdir(mode=0o755)
        try:
            await run_in_worker(extract_layer, (), tars, trees, temporary)
            temporary.rename(path)
        except BaseException:
            remove_tree(temporary)
            raise
        sync_directory(self._root)

    def _path(self, chain: ChainID) -> Path:
        return self._root / chain.hex

    def _is_in_use(self, path: Path) -> bool:
        """Whether a tree came under way, or into use, since the stacks to keep were looked at."""
        busy = {chain for stack in self._asked_for for chain in _prefixes(stack)} | self._fds.keys()
        return any(path.name.endswith(chain.hex) for chain in busy)


def _prefixes(stack: Sequence[DiffID]) -> Iterator[ChainID]:
    """The chain ID of every layer of a stack, the lowest first."""
    chain: ChainID | None = None
    for diff_id in stack:
        chain = chain_id((diff_id,)) if chain is None else chain_id((DiffID(chain), diff_id))
        assert chain is not None
        yield chain
