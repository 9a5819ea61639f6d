"""Layers on their way to a place: compressed there, if it has not got them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lamina.layer.compression import compress_file
from lamina.oci.descriptor import OCI_LAYER, Descriptor
from lamina.oci.digest import DiffID, Digest
from lamina.registry.places import Place

Form = Literal["gzip", "zstd", "none"]


@dataclass(frozen=True)
class OutgoingLayer:
    """A layer's tar, and a blob of it that the place may have already."""

    diff_id: DiffID
    tar: Path
    known: Descriptor | None = None


def put_layer(
    place: Place, layer: OutgoingLayer, scratch: Path, form: Form = "gzip", level: int | None = None
) -> Descriptor:
    """See that a place has a layer, compressed in *scratch* on its way; returns what points at it there. Blocking."""
    if layer.known is not None and place.has_blob(layer.known.digest):
        return Descriptor(layer.known.media_type, layer.known.digest, layer.known.size)
    if form == "none":
        place.put_file(layer.diff_id, layer.tar)
        return Descriptor(OCI_LAYER, layer.diff_id, layer.tar.stat().st_size)
    blob = scratch / f"{layer.diff_id.hex}.{form}"
    try:
        compress_file(layer.tar, blob, form, level)
        with open(blob, "rb") as file:
            digest = Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
        place.put_file(digest, blob)
        return Descriptor(f"{OCI_LAYER}+{form}", digest, blob.stat().st_size)
    finally:
        blob.unlink(missing_ok=True)
