"""What made an image: its history, each entry tied to the image that it made where the store still knows that."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.content import ContentStore
from lamina.image.store import Image, ImageStore
from lamina.oci.config import History
from lamina.oci.digest import DiffID, ImageID
from lamina.oci.reference import Reference


@dataclass(frozen=True)
class HistoryStep:
    """One instruction: what it wrote into the history, the layer it made, and the image that stood after it, if known."""

    entry: History
    layer: DiffID | None
    size_bytes: int
    image_id: ImageID | None
    names: tuple[Reference, ...]


def history(image: Image, images: ImageStore, content: ContentStore) -> list[HistoryStep]:
    """The steps of an image, the newest first."""
    layers = iter(image.config.diff_ids)
    made = [(entry, None if entry.empty_layer else next(layers, None)) for entry in image.config.history]
    known: Image | None = image
    steps = []
    for position, (entry, layer) in enumerate(reversed(made)):
        current = known if known and len(known.config.history) == len(made) - position else None
        image_id = current.image_id if current else None
        size = content.size(layer) if layer and content.exists(layer) else 0
        steps.append(HistoryStep(entry, layer, size, image_id, tuple(images.names(image_id)) if image_id else ()))
        parent = known.parent if known else None
        known = images.get(parent) if parent is not None and parent in images else None
    return steps
