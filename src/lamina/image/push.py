"""Push: an image goes to a registry, each blob that is not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lamina.content import ContentStore
from lamina.errors import LaminaError
from lamina.image.store import Image, ImageStore
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import OCI_CONFIG, Descriptor
from lamina.oci.digest import DiffID
from lamina.oci.manifest import Manifest, parse_document
from lamina.registry.layers import OutgoingLayer, put_layer
from lamina.registry.places import Place


async def push(image: Image, place: Place, images: ImageStore, content: ContentStore, scratch: Path) -> Descriptor:
    """Store an image at a place; returns what points at its manifest there.

    Layers that came compressed, with this image or another, go as they came; plain ones are compressed below *scratch* on their way.
    Raises the registry's errors.
    """
    known = images.compressed_layers()
    layers = [_outgoing(diff_id, known.get(diff_id), content) for diff_id in image.config.diff_ids]
    with content.lease([*image.blobs, *(layer.known.digest for layer in layers if layer.known is not None)]):
        return await run_in_worker(push_image, (), place, image.manifest, image.config.data, layers, scratch)


def push_image(
    place: Place, manifest: Manifest, config: bytes, layers: Sequence[OutgoingLayer], scratch: Path
) -> Descriptor:
    """Store an image, under its own manifest if the layers at the place are what that says. Blocking."""
    pointer = Descriptor(OCI_CONFIG, place.put_data(config), len(config))
    there = _layers_there(place, pointer)
    if len(there) == len(layers):
        layers = [
            layer if layer.known is not None else replace(layer, known=blob)
            for layer, blob in zip(layers, there, strict=True)
        ]
    blobs = tuple(put_layer(place, layer, scratch) for layer in layers)
    if [blob.digest for blob in blobs] != [layer.digest for layer in manifest.layers]:
        manifest = Manifest.build(pointer, blobs)
    place.put_manifest(manifest)
    return manifest.descriptor


def _outgoing(diff_id: DiffID, known: Descriptor | None, content: ContentStore) -> OutgoingLayer:
    if known is None or not content.exists(known.digest):
        return OutgoingLayer(diff_id, content.path(diff_id))
    return OutgoingLayer(diff_id, content.path(diff_id), known, content.path(known.digest))


def _layers_there(place: Place, config: Descriptor) -> tuple[Descriptor, ...]:
    """The layers of the image that has the place's name, if that is of the same config: they need not be compressed again."""
    try:
        media_type, data = place.manifest()
        document = parse_document(data, media_type)
    except LaminaError:
        return ()
    return document.layers if isinstance(document, Manifest) and document.config.digest == config.digest else ()
