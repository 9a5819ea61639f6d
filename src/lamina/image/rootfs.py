"""Import: a root file system's tar becomes an image of one layer."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any

from lamina.image.intake import LayerIntake
from lamina.image.mutate import append, plain_manifest, timestamp
from lamina.image.store import Image, ImageStore
from lamina.linux.pipes import feed
from lamina.oci.config import History, ImageConfig
from lamina.oci.digest import DiffID
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference


async def import_rootfs(
    images: ImageStore,
    intake: LayerIntake,
    tar: AsyncIterable[bytes],
    *,
    source: str,
    run: Mapping[str, Any],
    tag: Reference | None = None,
    message: str | None = None,
    platform: Platform | None = None,
) -> Image:
    """Make an image of a root file system tar (plain or compressed), with *run* as its ``config`` object.

    Raises InvalidLayer if the tar may not be a layer; nothing is left behind then.
    """
    with intake.content.lease() as lease:
        layer = await feed(tar, lambda fd: intake.from_fd(fd, lease))
        entry = History(created=timestamp(), comment=message or f"Imported from {source}")
        config = append(ImageConfig.empty(platform), entry, layer=DiffID(layer.diff_id), run=run)
        tags: Sequence[Reference] = [tag] if tag else []
        return await images.add(config, plain_manifest(config, [layer.tar_size]), tags=tags)
