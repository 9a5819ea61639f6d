"""Push: an image goes to a registry, each blob that is not there yet."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.content import ContentStore
from lamina.errors import LaminaError
from lamina.image.layer_blobs import LayerBlobs
from lamina.image.store import Image, ImageStore
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import OCI_CONFIG, OCI_LAYER, Descriptor, layer_compression
from lamina.oci.digest import DiffID, Digest
from lamina.oci.manifest import Manifest, parse_document
from lamina.registry.errors import RegistryUnreachable
from lamina.registry.outgoing import Form, OutgoingLayer, SentLayer, Step, progress_of, push_layers
from lamina.registry.places import RegistryPlace

_LOOK_S = 0.1
_USUAL = Form()


@dataclass(frozen=True)
class PushProgress:
    """What becomes of a layer: *done* bytes of *total*; *source* is the repository that it was mounted from."""

    diff_id: DiffID
    step: Step
    done: int = 0
    total: int = 0
    source: str = ""


Tell = Callable[[PushProgress], None]


@dataclass(frozen=True)
class _Sent:
    manifest: Manifest
    layers: Sequence[SentLayer]


class Pushes:
    """Sends images."""

    def __init__(self, images: ImageStore, content: ContentStore, blobs: LayerBlobs) -> None:
        self._images = images
        self._content = content
        self._blobs = blobs

    async def push(
        self,
        image: Image,
        place: RegistryPlace,
        *,
        form: Form = _USUAL,
        tell: Tell = lambda progress: None,
    ) -> Descriptor:
        """Store an image at a place; returns what points at its manifest there.

        Layers that came compressed, with this image or another, go as they came unless *form* is forced; plain ones are compressed on
        their way. Raises the registry's errors.
        """
        name = place.access.reference
        diff_ids = list(dict.fromkeys(image.config.diff_ids))
        scratch = self._content.temporary_path()
        scratch.mkdir()
        try:
            layers = await self._outgoing(image, diff_ids, place)
            with self._content.lease([*image.blobs, *(layer.known.digest for layer in layers if layer.known)]):
                watching = asyncio.create_task(self._watch(layers, scratch / "progress", tell))
                try:
                    args = (place, image.manifest, image.config.data, layers, scratch, form)
                    sent = await run_in_worker(push_image, (), *args, image.config.diff_ids)
                finally:
                    watching.cancel()
                    await asyncio.wait((watching,))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for diff_id, layer in zip(diff_ids, sent.layers, strict=True):
            tell(PushProgress(diff_id, layer.step, source=layer.source))
        pointer = sent.manifest.descriptor
        await self._blobs.seen(name, [(i, layer.blob) for i, layer in zip(diff_ids, sent.layers, strict=True)])
        await self._images.known_as(image.image_id, [name._replace(tag=None, digest=pointer.digest)])
        return pointer

    async def _outgoing(self, image: Image, diff_ids: Sequence[DiffID], place: RegistryPlace) -> list[OutgoingLayer]:
        """The image's layers, each with the blob that it came in: as this image, as another, or at an earlier push."""
        came = self._images.compressed_layers()
        own = dict(zip(image.config.diff_ids, image.manifest.layers, strict=True))
        known = await self._blobs.forms(diff_ids)
        known |= {diff_id: blob for diff_id, blob in came.items() if diff_id in own}
        known |= {diff_id: blob for diff_id, blob in own.items() if blob.digest != diff_id}
        sources = await self._blobs.sources([blob.digest for blob in known.values()], place.access.reference)
        return [self._layer(diff_id, known.get(diff_id), sources) for diff_id in diff_ids]

    def _layer(
        self, diff_id: DiffID, known: Descriptor | None, sources: dict[Digest, tuple[str, ...]]
    ) -> OutgoingLayer:
        path = self._content.path(known.digest) if known is not None and self._content.exists(known.digest) else None
        return OutgoingLayer(
            diff_id, self._content.path(diff_id), known, path, sources.get(known.digest, ()) if known else ()
        )

    async def _watch(self, layers: Sequence[OutgoingLayer], numbers: Path, tell: Tell) -> None:
        """Tell from time to time what becomes of layers."""
        totals = [(layer.known_path or layer.tar).stat().st_size for layer in layers]
        last = [PushProgress(layer.diff_id, Step.WAITING, 0, 0) for layer in layers]
        while True:
            for index, (step, done) in enumerate(progress_of(numbers)[: len(layers)]):
                progress = PushProgress(layers[index].diff_id, step, min(done, totals[index]), totals[index])
                if progress != last[index] and step in (Step.PREPARING, Step.PUSHING):
                    last[index] = progress
                    tell(progress)
            await asyncio.sleep(_LOOK_S)


def push_image(
    place: RegistryPlace,
    manifest: Manifest,
    config: bytes,
    layers: Sequence[OutgoingLayer],
    scratch: Path,
    form: Form,
    diff_ids: Sequence[DiffID],
) -> _Sent:
    """Store an image, under its own manifest if the layers at the place are what that says. Blocking.

    *layers* are each once; *diff_ids* are the image's, in its order.
    """
    there = _layers_there(place, manifest.config, diff_ids)
    layers = [layer if layer.known else replace(layer, known=there.get(layer.diff_id)) for layer in layers]
    sent = push_layers(place, layers, scratch, form, scratch / "progress")
    pointer = Descriptor(OCI_CONFIG, place.put_data(config), len(config))
    by_diff_id = {layer.diff_id: blob.blob for layer, blob in zip(layers, sent, strict=True)}
    blobs = tuple(by_diff_id[diff_id] for diff_id in diff_ids)
    if [blob.digest for blob in blobs] != [layer.digest for layer in manifest.layers]:
        manifest = Manifest.build(pointer, tuple(map(_as_oci, blobs)))
    place.put_manifest(manifest)
    return _Sent(manifest, sent)


def _as_oci(blob: Descriptor) -> Descriptor:
    """A layer by the name that an OCI manifest has for its kind; other readers refuse a mixture with docker's."""
    form = layer_compression(blob.media_type)
    return Descriptor(OCI_LAYER + ("" if form == "none" else f"+{form}"), blob.digest, blob.size)


def _layers_there(place: RegistryPlace, config: Descriptor, diff_ids: Sequence[DiffID]) -> dict[DiffID, Descriptor]:
    """The layers of the image that has the place's name, if that is of the same config: they need not be compressed again."""
    try:
        media_type, data = place.manifest()
        document = parse_document(data, media_type)
    except RegistryUnreachable:
        raise
    except LaminaError:
        return {}
    if not isinstance(document, Manifest) or document.config.digest != config.digest:
        return {}
    return dict(zip(diff_ids, document.layers, strict=False))
