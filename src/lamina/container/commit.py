"""Commit: an image of what a container has made of its image."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.container.changes import LayerBelow, not_own
from lamina.container.record import Record
from lamina.image.intake import LayerIntake
from lamina.image.mutate import append, plain_manifest, timestamp
from lamina.image.store import Image, ImageStore
from lamina.layer.diff import write_diff
from lamina.layer.ingest import IngestedLayer, Limits
from lamina.linux.user_namespace import IdMap
from lamina.linux.worker import run_in_worker
from lamina.oci.config import History
from lamina.oci.digest import DiffID, Digest, ImageID
from lamina.oci.reference import Reference
from lamina.snapshot import LowerDriver, Snapshots


@dataclass(frozen=True)
class CommitRequest:
    """What the image is to say: its ``config`` object, who made it and why, and its name."""

    run: Mapping[str, Any]
    comment: str = ""
    author: str = ""
    tags: Sequence[Reference] = ()


class Commits:
    """Makes images of containers."""

    def __init__(self, images: ImageStore, intake: LayerIntake, snapshots: Snapshots, lowers: LowerDriver) -> None:
        self._images = images
        self._intake = intake
        self._snapshots = snapshots
        self._lowers = lowers

    async def commit(self, record: Record, request: CommitRequest) -> Image:
        """Make an image of a container's files as they are now; freezing it is the caller's affair.

        Raises ImageNotFound if its image is gone, LayerTooLarge, or OSError.
        """
        image_id = ImageID(Digest(record.image_id))
        tar, tree = self._intake.content.temporary_path(), self._intake.trees.temporary_path()
        with self._images.hold(image_id), self._intake.content.lease() as lease:
            base = self._images.get(image_id)
            lowers = await self._lowers.lower(base.config.diff_ids)
            upper = self._snapshots.upper(record.id)
            excluded = await asyncio.to_thread(not_own, upper, LayerBelow(lowers, record.idmap))
            try:
                made = await run_in_worker(_write, (), upper, tar, tree, excluded, self._intake.limits, record.idmap)
                if made is not None:
                    self._intake.adopt(made, lease, tar, tree)
            finally:
                tar.unlink(missing_ok=True)
                tree.unlink(missing_ok=True)
            layer = DiffID(made.diff_id) if made is not None else None
            entry = History(
                created=timestamp(),
                created_by=" ".join([record.path, *record.args]),
                author=request.author or None,
                comment=request.comment or None,
                empty_layer=layer is None,
            )
            config = append(base.config, entry, layer=layer, run=request.run, author=request.author or None)
            sizes = [self._intake.content.size(d) for d in config.diff_ids]
            return await self._images.add(config, plain_manifest(config, sizes), tags=request.tags, parent=image_id)


def _write(
    upper: Path, tar: Path, tree: Path, excluded: frozenset[str], limits: Limits, idmap: IdMap | None
) -> IngestedLayer | None:
    owner_in = idmap.to_container if idmap is not None else None
    return write_diff(upper, tar, tree, exclude=frozenset(map(str.encode, excluded)), limits=limits, owner_in=owner_in)
