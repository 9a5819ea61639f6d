"""Push: an image goes to a registry, each blob that is not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamina.content import ContentStore
from lamina.errors import LaminaError
from lamina.image.store import Image
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import OCI_CONFIG, Descriptor
from lamina.oci.manifest import Manifest
from lamina.registry.layers import OutgoingLayer, put_layer
from lamina.registry.places import Place


async def push(image: Image, place: Place, content: ContentStore, scratch: Path) -> Descriptor:
    """Store an image at a place; returns what points at its manifest there. The caller has a lease on the image's blobs.

    Layers that came compressed go as they came, plain ones are compressed below *scratch* on their way. Raises the registry's errors.
    """
    if all(
        content.exists(layer.digest) and layer.digest not in image.config.diff_ids for layer in image.manifest.layers
    ):
        blobs = [(layer, content.path(layer.digest)) for layer in image.manifest.layers]
        return await run_in_worker(push_as_it_is, (), place, image.manifest, image.config.data, blobs)
    layers = [OutgoingLayer(diff_id, content.path(diff_id)) for diff_id in image.config.diff_ids]
    return await run_in_worker(push_compressed, (), place, image.config.data, layers, scratch)


def push_as_it_is(
    place: Place, manifest: Manifest, config: bytes, blobs: Sequence[tuple[Descriptor, Path]]
) -> Descriptor:
    """Store an image whose layers' blobs are as its manifest says. Blocking."""
    for layer, path in blobs:
        place.put_file(layer.digest, path)
    place.put_data(config)
    place.put_manifest(manifest)
    return manifest.descriptor


def push_compressed(place: Place, config: bytes, layers: Sequence[OutgoingLayer], scratch: Path) -> Descriptor:
    """Store an image whose layers are plain here. What has its config there already has its layers. Blocking."""
    pointer = Descriptor(OCI_CONFIG, place.put_data(config), len(config))
    known = _layers_there(place, pointer)
    if len(known) != len(layers):
        known = (None,) * len(layers)
    outgoing = [OutgoingLayer(layer.diff_id, layer.tar, blob) for layer, blob in zip(layers, known, strict=True)]
    manifest = Manifest.build(pointer, tuple(put_layer(place, layer, scratch) for layer in outgoing))
    place.put_manifest(manifest)
    return manifest.descriptor


def _layers_there(place: Place, config: Descriptor) -> tuple[Descriptor | None, ...]:
    """The layers of the image that has the place's name, if that is of the same config."""
    try:
        media_type, data = place.manifest()
        manifest = Manifest.parse(data, media_type or None)
    except LaminaError:
        return ()
    return manifest.layers if manifest.config.digest == config.digest else ()
