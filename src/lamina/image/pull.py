"""Pull: an image comes from a registry, each layer that is not here yet, verified before anything is shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lamina.content.store import Lease
from lamina.image.errors import PlatformMismatch
from lamina.image.intake import LayerIntake
from lamina.image.store import Image, ImageStore
from lamina.layer.merge import merge
from lamina.layer.tree import load
from lamina.linux.worker import run_in_worker
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import Descriptor, InvalidDocument
from lamina.oci.digest import DiffID, Digest
from lamina.oci.manifest import Index, Manifest, parse_document
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.registry.errors import NotInRegistry
from lamina.registry.layers import fetch_layer
from lamina.registry.places import Place

_AT_ONCE = 3
"""How many layers are fetched side by side, as with docker."""


@dataclass(frozen=True)
class RemoteImage:
    """What a place has: the digest of what its name means, which may be an index, and of that one image's manifest and config."""

    digest: Digest
    manifest: Manifest
    config: bytes


async def pull(
    place: Place,
    platform: Platform | None,
    images: ImageStore,
    intake: LayerIntake,
    lease: Lease,
    *,
    name: Reference,
    tagged: bool = True,
) -> Image:
    """Store the image that a place has for a platform (None: this host's, or the only one), under *name*.

    With *tagged* the name's tag means the image from now on; its repository with the digest does in any case. Nothing of it is shown
    before all of it is here.

    Raises NotInRegistry, PlatformMismatch, InvalidDocument, InvalidLayer and the registry's errors.
    """
    remote = await run_in_worker(read_image, (), place, platform or Platform.of_host())
    config, manifest = ImageConfig.parse(remote.config), remote.manifest
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidDocument("manifest", f"it has {len(manifest.layers)} layers and its config {len(config.diff_ids)}")
    if platform is not None and config.platform.distance(platform) is None:
        raise PlatformMismatch(str(place), platform, config.platform)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def have(layer: Descriptor, diff_id: DiffID) -> None:
        lease.add(layer.digest, diff_id)
        if not (intake.content.exists(layer.digest) and intake.content.exists(diff_id)):
            async with slots:
                await _fetch(place, layer, diff_id, intake, lease)

    pairs = {(layer.digest, diff_id): layer for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)}
    try:
        async with asyncio.TaskGroup() as tasks:
            for (_, diff_id), layer in pairs.items():
                tasks.create_task(have(layer, diff_id))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    await _check_stack(config, intake)
    tags = [name] if tagged and name.digest is None else []
    return await images.add(config, manifest, tags=tags, digests=[name._replace(tag=None, digest=remote.digest)])


def read_image(place: Place, platform: Platform) -> RemoteImage:
    """What a place has for a platform. Blocking. Raises NotInRegistry, InvalidDocument and the registry's errors."""
    media_type, data = place.manifest()
    digest = Digest.of(data)
    document = parse_document(data, media_type)
    if isinstance(document, Index):
        found = document.for_platform(platform)
        if not found:
            raise NotInRegistry(f"no matching manifest for {platform} in the manifest list entries of {place}")
        media_type, data = place.manifest_by(found[0].digest)
        document = parse_document(data, media_type or found[0].media_type)
    if isinstance(document, Index):
        raise InvalidDocument("index", "it has an index in it")
    return RemoteImage(digest, document, place.read_blob(document.config.digest))


async def _fetch(place: Place, layer: Descriptor, diff_id: DiffID, intake: LayerIntake, lease: Lease) -> None:
    tar, tree, blob = intake.content.temporary_path(), intake.trees.temporary_path(), intake.content.temporary_path()
    try:
        fetched = await run_in_worker(fetch_layer, (), place, layer, diff_id, tar, tree, intake.limits, blob)
        await intake.repair(fetched, lease, tar, tree, blob)
    finally:
        for path in (tar, tree, blob):
            path.unlink(missing_ok=True)


async def _check_stack(config: ImageConfig, intake: LayerIntake) -> None:
    """Raises InvalidLayer if the layers do not fit on each other."""
    paths = await intake.trees.paths(list(config.diff_ids))
    await asyncio.to_thread(lambda: merge([load(path) for path in paths]))
