"""An image from an image: a layer appended, the JSON changed, one history entry written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from lamina.oci.config import History, ImageConfig
from lamina.oci.descriptor import OCI_CONFIG, OCI_LAYER, Descriptor
from lamina.oci.digest import DiffID
from lamina.oci.manifest import Manifest


def append(
    base: ImageConfig,
    entry: History,
    *,
    layer: DiffID | None = None,
    run: Mapping[str, Any] | None = None,
    author: str | None = None,
) -> ImageConfig:
    """The image that one instruction makes of *base*: *layer* on top if it changed files, *run* as its ``config`` object."""
    diff_ids = [*base.diff_ids, layer] if layer else list(base.diff_ids)
    return base.derive(
        run=base.run_document if run is None else run,
        history=[*base.history, entry],
        diff_ids=diff_ids,
        created=entry.created or timestamp(),
        author=author,
    )


def squashed(base: ImageConfig, image: ImageConfig, layer: DiffID | None, *, created: str, comment: str) -> ImageConfig:
    """*image*, made of *base*, with one layer in place of those above the base's; the instructions lose theirs in the history."""
    kept = len(base.history)
    emptied = [msgspec.structs.replace(entry, empty_layer=True) for entry in image.history[kept:]]
    entry = History(created=created, comment=comment, empty_layer=layer is None)
    return image.derive(
        run=image.run_document,
        history=[*image.history[:kept], *emptied, entry],
        diff_ids=[*base.diff_ids, *([layer] if layer else [])],
        created=created,
    )


def plain_manifest(config: ImageConfig, layer_sizes: Sequence[int]) -> Manifest:
    """A manifest whose layers are the uncompressed tars, so that each blob's digest is the layer's diff ID."""
    layers = tuple(
        Descriptor(media_type=OCI_LAYER, digest=diff_id, size=size)
        for diff_id, size in zip(config.diff_ids, layer_sizes, strict=True)
    )
    pointer = Descriptor(media_type=OCI_CONFIG, digest=config.image_id, size=len(config.data))
    return Manifest.build(pointer, layers)


def timestamp(now: datetime | None = None, *, epoch_s: int | None = None) -> str:
    """RFC 3339 in UTC with nanosecond digits, as image configs have it; *epoch_s* takes the place of now (SOURCE_DATE_EPOCH)."""
    moment = now or (datetime.now(UTC) if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
