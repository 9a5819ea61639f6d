"""Pull: an image comes from a registry, each layer that is not here yet, verified before anything is shown.

A layer that several pulls want is fetched once. Layers are fetched in worker processes: a large one in one of its own, small ones
several in one, as starting a worker costs more than they do. What has come of a layer when a pull breaks off, or the daemon dies, is
kept and gone on with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lamina.content.store import Lease
from lamina.errors import LaminaError
from lamina.image.errors import ImageNotFound, PlatformMismatch
from lamina.image.intake import LayerIntake
from lamina.image.layer_blobs import LayerBlobs
from lamina.image.store import Image, ImageStore
from lamina.layer.merge import merge
from lamina.layer.tree import load
from lamina.linux.worker import run_in_worker
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    Descriptor,
    InvalidDocument,
    UnsupportedMediaType,
    layer_compression,
)
from lamina.oci.digest import DiffID, Digest
from lamina.oci.manifest import Index, Manifest, parse_document
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.registry.access import Learned
from lamina.registry.copying import select
from lamina.registry.errors import RegistryRefused
from lamina.registry.incoming import IncomingLayer, fetch_layers
from lamina.registry.partial import discard, progress_of
from lamina.registry.places import Place, RegistryPlace

_AT_ONCE = 3
"""How many workers fetch side by side, as with docker."""
_BATCH_BYTES = 8 << 20
_LARGEST_LAYER = 1 << 40
_LOOK_S = 0.1
_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "application/json")

Stage = Literal["exists", "waiting", "downloading", "downloaded", "extracting", "complete"]


@dataclass(frozen=True)
class LayerProgress:
    """How far a layer has come: *done* bytes of *total*, where the stage has some."""

    digest: Digest
    stage: Stage
    done: int = 0
    total: int = 0


Tell = Callable[[LayerProgress], None]


@dataclass(frozen=True)
class RemoteImage:
    """What a place has: the digest of what its name means, which may be an index, and of that one image's manifest and config."""

    digest: Digest
    manifest: Manifest
    config: bytes
    learned: dict[str, Learned] = field(default_factory=dict)


@dataclass(frozen=True)
class Pulled:
    """A stored image, the digest that its name means at the registry, and whether it was there already under this name."""

    image: Image
    digest: Digest
    was_here: bool


@dataclass
class _Batch:
    """Layers that one worker fetches, for as long as somebody waits for them."""

    layers: Sequence[tuple[Descriptor, DiffID]]
    task: asyncio.Task[None] = field(init=False)
    users: int = 0
    begun: bool = False


class Pulls:
    """Fetches images; knows which layers are on their way."""

    def __init__(self, images: ImageStore, intake: LayerIntake, blobs: LayerBlobs) -> None:
        self._images = images
        self._intake = intake
        self._blobs = blobs
        self._arriving: dict[Digest, _Batch] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def pull(
        self,
        place: RegistryPlace,
        platform: Platform | None,
        lease: Lease,
        *,
        tagged: bool = True,
        tell: Tell = lambda progress: None,
    ) -> Pulled:
        """Store the image that a place has for a platform (None: this host's, or the only one), under the place's name.

        With *tagged* the name's tag means the image from now on; its repository with the digest does in any case. Nothing of it is
        shown before all of it is here.

        Raises NotInRegistry, PlatformMismatch, InvalidDocument, InvalidLayer, UnsupportedMediaType and the registry's errors.
        """
        name = place.access.reference
        tags = [name] if tagged and name.digest is None else []
        known = self._known(name, platform)
        remote = await run_in_worker(find_image, (), place, platform or Platform.of_host(), frozenset(known))
        if isinstance(remote, Digest):
            image = known[remote]
            was_here = not tags or self._is_named(name, image)
            if not was_here:
                await self._images.tag(image.image_id, tags)
            return Pulled(image, remote, was_here)
        manifest = remote.manifest
        config = _config(remote, platform, place)
        was_here = bool(tags) and self._is_named(name, config)
        pairs = {layer.digest: (layer, i) for layer, i in zip(manifest.layers, config.diff_ids, strict=True)}
        lease.add(*(digest for layer, diff_id in pairs.values() for digest in (layer.digest, diff_id)))
        knowing = RegistryPlace(place.access.knowing(remote.learned))
        await self._have(knowing, list(pairs.values()), tell)
        await self._check_stack(config)
        digest = name._replace(tag=None, digest=remote.digest)
        image = await self._images.add(config, manifest, tags=tags, digests=[digest])
        await self._blobs.seen(name, [(diff_id, layer) for layer, diff_id in pairs.values()])
        return Pulled(image, remote.digest, was_here)

    def _known(self, name: Reference, platform: Platform | None) -> dict[Digest, Image]:
        """The images that came from a repository, by their digests there; by an index's only what is for the platform."""
        wanted = platform or Platform.of_host()
        known: dict[Digest, Image] = {}
        for image in self._images:
            serves = image.config.platform.matches(wanted)
            for digest in self._images.digests(image.image_id):
                is_own = platform is None and digest.digest == image.manifest.descriptor.digest
                if digest.repository == name.repository and digest.digest is not None and (serves or is_own):
                    known[digest.digest] = image
        return known

    def _is_named(self, name: Reference, image: Image | ImageConfig) -> bool:
        with suppress(ImageNotFound, LaminaError):
            return self._images.find(str(name)).image_id == image.image_id
        return False

    # ---- layers

    async def _have(self, place: RegistryPlace, layers: Sequence[tuple[Descriptor, DiffID]], tell: Tell) -> None:
        """See that layers are stored, whoever fetches them; tells of each how far it is."""
        for layer, diff_id in layers:
            tell(LayerProgress(layer.digest, "exists" if self._has(layer, diff_id) else "waiting", 0, layer.size))
        missing = [pair for pair in layers if not self._has(*pair)]
        others = [pair for pair in missing if pair[0].digest in self._arriving]
        joined = [self._arriving[layer.digest] for layer, _ in others]
        own = [self._begin(place, group) for group in _batches([pair for pair in missing if pair not in others])]
        watching = asyncio.create_task(self._watch(missing, tell))
        try:
            await self._wait([*own, *{id(batch): batch for batch in joined}.values()], own)
            again = [pair for pair in others if not self._has(*pair)]
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
        for layer, diff_id in missing:
            if self._has(layer, diff_id):
                tell(LayerProgress(layer.digest, "complete", layer.size, layer.size))
        if again:  # whoever fetched them could not, or gave up
            await self._have(place, again, tell)

    async def _wait(self, batches: Sequence[_Batch], own: Sequence[_Batch]) -> None:
        """Until all batches are done; the first failure of one's own ends it, others' are theirs."""
        for batch in batches:
            batch.users += 1
        try:
            left = {batch.task for batch in batches}
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for batch in own:
                    if batch.task in done:
                        batch.task.result()
        finally:
            for batch in batches:
                batch.users -= 1
                if not batch.users:
                    batch.task.cancel()
            idle = [batch.task for batch in batches if not batch.users]
            if idle:
                await asyncio.wait(idle)

    def _begin(self, place: RegistryPlace, layers: Sequence[tuple[Descriptor, DiffID]]) -> _Batch:
        batch = _Batch(layers)
        batch.task = asyncio.create_task(self._fetch(place, batch))
        batch.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever waits is told
        for layer, _ in layers:
            self._arriving[layer.digest] = batch
        return batch

    async def _fetch(self, place: RegistryPlace, batch: _Batch) -> None:
        intake = self._intake
        incoming = [
            IncomingLayer(
                layer,
                diff_id,
                intake.content.temporary_path(),
                intake.trees.temporary_path(),
                intake.content.partial_path(layer.digest),
            )
            for layer, diff_id in batch.layers
        ]
        try:
            async with self._slots:
                batch.begun = True
                with intake.content.lease() as lease:
                    fetched = await run_in_worker(fetch_layers, (), place, incoming, intake.limits)
                    for layer, files in zip(fetched, incoming, strict=True):
                        await intake.repair(layer, lease, files.tar, files.tree, files.blob)
                        discard(files.blob)
        finally:
            for files in incoming:
                self._arriving.pop(files.descriptor.digest, None)
                files.tar.unlink(missing_ok=True)
                files.tree.unlink(missing_ok=True)
            intake.content.remove_old_partials()

    def _has(self, layer: Descriptor, diff_id: DiffID) -> bool:
        return self._intake.content.exists(layer.digest) and self._intake.content.exists(diff_id)

    async def _watch(self, layers: Iterable[tuple[Descriptor, DiffID]], tell: Tell) -> None:
        """Tell from time to time how far layers are."""
        last: dict[Digest, LayerProgress] = {}
        while True:
            for layer, diff_id in layers:
                progress = self._progress(layer, diff_id)
                if last.get(layer.digest) != progress:
                    last[layer.digest] = progress
                    tell(progress)
            await asyncio.sleep(_LOOK_S)

    def _progress(self, layer: Descriptor, diff_id: DiffID) -> LayerProgress:
        batch = self._arriving.get(layer.digest)
        if self._has(layer, diff_id):
            return LayerProgress(layer.digest, "complete", layer.size, layer.size)
        if batch is None or not batch.begun:
            return LayerProgress(layer.digest, "waiting", 0, layer.size)
        came, taken = progress_of(self._intake.content.partial_path(layer.digest))
        if came < layer.size:
            return LayerProgress(layer.digest, "downloading" if came else "waiting", came, layer.size)
        return LayerProgress(layer.digest, "extracting", taken, layer.size)

    async def _check_stack(self, config: ImageConfig) -> None:
        """Raises InvalidLayer if the layers do not fit on each other."""
        paths = await self._intake.trees.paths(list(config.diff_ids))
        await run_in_worker(check_stack, (), paths)


def check_stack(trees: Sequence[Path]) -> None:
    """Merge layers' trees to see whether they fit on each other. Blocking. Raises InvalidLayer."""
    merge([load(tree) for tree in trees])


def _batches(layers: Sequence[tuple[Descriptor, DiffID]]) -> list[list[tuple[Descriptor, DiffID]]]:
    """What one worker each is to fetch: the largest first, so that none is left for the end; small ones together."""
    batches: list[list[tuple[Descriptor, DiffID]]] = []
    room = 0
    for pair in sorted(layers, key=lambda pair: -pair[0].size):
        if not batches or pair[0].size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(pair)
        room -= pair[0].size
    return batches


def _config(remote: RemoteImage, platform: Platform | None, place: Place) -> ImageConfig:
    """An image's config, which fits its manifest and the platform."""
    manifest = remote.manifest
    if manifest.config.media_type not in _CONFIGS:
        raise UnsupportedMediaType(manifest.config.media_type)  # an artifact of another kind
    config = ImageConfig.parse(remote.config)
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidDocument("manifest", f"it has {len(manifest.layers)} layers and its config {len(config.diff_ids)}")
    if platform is not None and config.platform.distance(platform) is None:
        raise PlatformMismatch(str(place), platform, config.platform)
    return config


def find_image(place: RegistryPlace, platform: Platform, known: frozenset[Digest]) -> RemoteImage | Digest:
    """What a registry has for a platform, or the digest if it is *known*: that costs one HEAD, and none for what is named by it.

    Blocking. Raises as ``read_image``.
    """
    digest = place.access.reference.digest
    if digest is None:
        with suppress(RegistryRefused):  # there are registries without HEAD
            digest = place.repository.head_manifest(place.name).digest
    if digest is None:
        found = read_image(place, platform)
    elif digest in known:
        return digest
    else:  # by its digest, so that it is what HEAD told of, whatever becomes of the tag
        found = _chosen(place, *place.manifest_by(digest), platform)
    return RemoteImage(digest or found.digest, found.manifest, found.config, place.repository.learned)


def read_image(place: Place, platform: Platform) -> RemoteImage:
    """What a place has for a platform. Blocking.

    Raises NotInRegistry, InvalidDocument, UnsupportedMediaType (foreign layers) and the registry's errors.
    """
    return _chosen(place, *place.manifest(), platform)


def _chosen(place: Place, media_type: str, data: bytes, platform: Platform) -> RemoteImage:
    """The image that a manifest, or the best of an index for a platform, is."""
    digest = Digest.of(data)
    media_type, data = select(place, media_type, data, platform)
    document = parse_document(data, media_type)
    if isinstance(document, Index):
        raise InvalidDocument("index", "it has an index in it")
    for layer in document.layers:
        layer_compression(layer.media_type)
        if layer.size > _LARGEST_LAYER:
            raise InvalidDocument("manifest", f"a layer of {layer.size} bytes is too large")
    return RemoteImage(digest, document, place.read_blob(document.config.digest))
