"""Layers on their way to a place: compressed there, if it has not got them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lamina.layer.compression import Read, compress_file
from lamina.layer.ingest import IngestedLayer, Limits, hash_file, ingest
from lamina.oci.descriptor import OCI_LAYER, Compression, Descriptor
from lamina.oci.digest import DiffID
from lamina.registry.errors import WrongBytes
from lamina.registry.places import Place


@dataclass(frozen=True)
class OutgoingLayer:
    """A layer's tar, and a blob of it that the place may have, or that lies at *known_path*."""

    diff_id: DiffID
    tar: Path
    known: Descriptor | None = None
    known_path: Path | None = None


def fetch_layer(
    place: Place,
    descriptor: Descriptor,
    diff_id: DiffID,
    tar: Path,
    tree: Path,
    limits: Limits,
    blob_path: Path | None = None,
) -> IngestedLayer:
    """Write a layer's tar and tree, and with *blob_path* the compressed bytes as they came; none is left if it is not what it should be.

    Blocking. Raises NotInRegistry, WrongBytes, InvalidLayer.
    """
    with place.open_blob(descriptor.digest) as blob:
        read = _bounded(blob.read, descriptor.size, WrongBytes(str(place), descriptor.digest))
        layer = ingest(read, tar_path=tar, tree_path=tree, blob_path=blob_path, limits=limits)
    for actual, expected in ((layer.blob_digest, descriptor.digest), (layer.diff_id, diff_id)):
        if actual != expected:
            for path in (tar, tree, blob_path):
                if path is not None:
                    path.unlink(missing_ok=True)
            raise WrongBytes(str(place), expected)
    return layer


def _bounded(read: Read, size: int, error: WrongBytes) -> Read:
    """A blob's bytes, of which there may be *size*: what comes behind a compressed stream has no other bound."""
    left = size

    def read_on(wanted: int) -> bytes:
        nonlocal left
        data = read(wanted)
        left -= len(data)
        if left < 0:
            raise error
        return data

    return read_on


def put_layer(
    place: Place, layer: OutgoingLayer, scratch: Path, form: Compression = "gzip", level: int | None = None
) -> Descriptor:
    """See that a place has a layer, compressed in *scratch* on its way; returns what points at it there. Blocking."""
    if layer.known is not None and (layer.known_path is not None or place.has_blob(layer.known.digest)):
        if layer.known_path is not None:
            place.put_file(layer.known.digest, layer.known_path)
        return Descriptor(layer.known.media_type, layer.known.digest, layer.known.size)
    if form == "none":
        place.put_file(layer.diff_id, layer.tar)
        return Descriptor(OCI_LAYER, layer.diff_id, layer.tar.stat().st_size)
    blob = scratch / f"{layer.diff_id.hex}.{form}"
    try:
        compress_file(layer.tar, blob, form, level)
        digest = hash_file(blob)
        place.put_file(digest, blob)
        return Descriptor(f"{OCI_LAYER}+{form}", digest, blob.stat().st_size)
    finally:
        blob.unlink(missing_ok=True)
