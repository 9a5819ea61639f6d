"""Bytes become a layer: one pass through decompression, both digests, the tar on disk and the scan of its headers.

The bytes flow from a descriptor through a worker process into the content store; nothing of a layer is ever held in memory. A layer
exists when its tar bears its digest's name; what goes wrong before that leaves nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path

from lamina.content import ContentStore
from lamina.content.store import Lease
from lamina.layer.ingest import IngestedLayer, Limits, from_fd, ingest
from lamina.layer.merge import merge
from lamina.layer.tree import load
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import DiffID, Digest
from lamina.snapshot import LayerTrees

_log = logging.getLogger(__name__)


class LayerIntake:
    """Where layers come in, whatever they come from."""

    def __init__(self, content: ContentStore, trees: LayerTrees, limits: Limits) -> None:
        self.content = content
        self.trees = trees
        self.limits = limits

    async def from_fd(self, source_fd: int, lease: Lease, *, keep_compressed: bool = False) -> IngestedLayer:
        """Store the lowest layer of an image, that *source_fd* (a pipe, socket or file) holds, plain or compressed.

        With *keep_compressed* the compressed blob is kept as it came, so that its digest survives.
        Raises InvalidLayer and DecompressionLimit's kinds for what may not be a layer.
        """
        tar, tree = self.content.temporary_path(), self.trees.temporary_path()
        blob = self.content.temporary_path() if keep_compressed else None
        try:
            layer = await run_in_worker(ingest_lowest, (source_fd,), source_fd, tar, tree, blob, self.limits)
            await self.repair(layer, lease, tar, tree, blob)
        finally:
            for path in (tar, tree, blob):
                if path is not None:
                    path.unlink(missing_ok=True)
        return layer

    def adopt(self, layer: IngestedLayer, lease: Lease, tar: Path, tree: Path, blob: Path | None = None) -> None:
        """Give a layer's finished files their names: the tree first, as it is worthless without the tar."""
        self._adopt(layer, lease, tar, tree, blob, damaged=frozenset())

    async def repair(self, layer: IngestedLayer, lease: Lease, tar: Path, tree: Path, blob: Path | None = None) -> None:
        """As ``adopt``; blobs that are stored already are hashed again, and replaced if they are damaged."""
        lease.add(layer.diff_id, layer.blob_digest)
        digests = {layer.diff_id, layer.blob_digest}
        damaged = frozenset([digest for digest in digests if await self.content.is_damaged(digest)])
        for digest in damaged:
            _log.warning("blob %s is damaged: it is replaced", digest)
        self._adopt(layer, lease, tar, tree, blob, damaged=damaged)

    def _adopt(
        self,
        layer: IngestedLayer,
        lease: Lease,
        tar: Path,
        tree: Path,
        blob: Path | None,
        *,
        damaged: frozenset[Digest],
    ) -> None:
        lease.add(layer.diff_id, layer.blob_digest)
        self.trees.adopt(tree, DiffID(layer.diff_id))
        self.content.adopt(tar, layer.diff_id, replace=layer.diff_id in damaged)
        if blob is not None and blob.exists():
            self.content.adopt(blob, layer.blob_digest, replace=layer.blob_digest in damaged)


def ingest_lowest(source_fd: int, tar: Path, tree: Path, blob: Path | None, limits: Limits) -> IngestedLayer:
    """Ingest a layer that has none below it. Raises InvalidLayer also if it needs one."""
    layer = ingest(from_fd(source_fd), tar_path=tar, tree_path=tree, blob_path=blob, limits=limits)
    merge([load(tree)])
    return layer
