"""Lowers by extraction: one directory a layer, stacked by overlayfs.

For kernels that cannot mount EROFS from files (before 6.12), stores that lie on overlayfs or tmpfs, and user namespaces. Slower and
larger than the index, and held to the same contract tests.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lamina.content import BlobNotFound, ContentStore
from lamina.layer.extract import extract_layer
from lamina.linux.files import sync_directory, temporary_name
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import ChainID, DiffID, chain_id


class DirectoryLowers:
    """The ``directory`` driver: trees below *root*, named by the chain ID up to the layer.

    By the chain and not by the layer alone, since a layer may hold hard links to files of the layers below it, which are copied up.
    """

    name = "directory"

    def __init__(self, root: Path, content: ContentStore) -> None:
        self._root = root
        self._content = content
        self._fds: dict[ChainID, int] = {}
        self._locks: dict[ChainID, asyncio.Lock] = {}

    def open(self) -> None:
        """Make the directory and remove unfinished trees."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob(".tmp-*"):
            shutil.rmtree(leftover)

    async def lower(self, diff_ids: Sequence[DiffID]) -> tuple[int, ...]:
        """See LowerDriver; a descriptor for each layer."""
        return tuple([await self._layer(diff_ids[:n]) for n in range(len(diff_ids), 0, -1)])

    async def forget(self, diff_ids: Sequence[DiffID]) -> None:
        """See LowerDriver. Only the topmost layer's tree goes: those below may serve other stacks."""
        chain = chain_id(diff_ids)
        if chain is None:
            return
        fd = self._fds.pop(chain, None)
        if fd is not None:
            os.close(fd)
        await asyncio.to_thread(shutil.rmtree, self._path(chain), ignore_errors=True)

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
        tar = self._content.path(diff_ids[-1])
        if not tar.exists():
            raise BlobNotFound(diff_ids[-1])
        below = [self._content.path(d) for d in diff_ids[:-1]]
        temporary = temporary_name(path)
        temporary.mkdir(mode=0o755)
        try:
            await run_in_worker(extract_layer, (), tar, temporary, lower=below)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(self._root)

    def _path(self, chain: ChainID) -> Path:
        return self._root / chain.hex
