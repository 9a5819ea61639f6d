"""Pull: an image comes from a registry, each layer that is not here yet, verified before anything is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lamina.content.store import Lease
from lamina.image.errors import PlatformMismatch
from lamina.image.intake import LayerIntake
from lamina.image.store import Image, ImageStore
from lamina.layer.merge import merge
from lamina.layer.tree import load
from lamina.linux.worker import run_in_worker
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import DOCKER_LIST, OCI_INDEX, Descriptor, InvalidDocument
from lamina.oci.digest import DiffID
from lamina.oci.manifest import Index, Manifest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.registry.errors import NotInRegistry
from lamina.registry.layers import fetch_layer
from lamina.registry.places import Place

_AT_ONCE = 3
"""How many layers are fetched side by side, as with docker."""


async def pull(
    place: Place,
    platform: Platform,
    images: ImageStore,
    intake: LayerIntake,
    lease: Lease,
    *,
    tags: Sequence[Reference] = (),
) -> Image:
    """Store the image that a place has for a platform, with its *tags*. Nothing of it is shown before all of it is here.

    Raises NotInRegistry, PlatformMismatch, InvalidDocument, InvalidLayer and the registry's errors.
    """
    manifest, data = await run_in_worker(read_image, (), place, platform)
    config = ImageConfig.parse(data)
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidDocument("manifest", f"it has {len(manifest.layers)} layers and its config {len(config.diff_ids)}")
    if not config.platform.matches(platform):
        raise PlatformMismatch(str(place), platform, config.platform)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def have(layer: Descriptor, diff_id: DiffID) -> None:
        lease.add(layer.digest, diff_id)
        if not (intake.content.exists(layer.digest) and intake.content.exists(diff_id)):
            async with slots:
                await _fetch(place, layer, diff_id, intake, lease)

    try:
        async with asyncio.TaskGroup() as tasks:
            for pair in dict.fromkeys(zip(manifest.layers, config.diff_ids, strict=True)):
                tasks.create_task(have(*pair))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    await _check_stack(config, intake)
    return await images.add(config, manifest, tags=tags)


def read_image(place: Place, platform: Platform) -> tuple[Manifest, bytes]:
    """A place's manifest for a platform, and the config's bytes. Blocking. Raises NotInRegistry and the registry's errors."""
    media_type, data = place.manifest()
    if media_type in (OCI_INDEX, DOCKER_LIST):
        found = choose(Index.parse(data, media_type).manifests, platform)
        if found is None:
            raise NotInRegistry(f"no matching manifest for {platform} in the manifest list entries of {place}")
        media_type, data = place.manifest_by(found.digest)
    manifest = Manifest.parse(data, media_type or None)
    return manifest, place.read_blob(manifest.config.digest)


def choose(entries: Sequence[Descriptor], platform: Platform) -> Descriptor | None:
    """The entry of an index that is for a platform."""
    for entry in entries:
        fields = entry.platform or {}
        offered = Platform(str(fields.get("os")), str(fields.get("architecture")), fields.get("variant"))
        if offered.matches(platform):
            return entry
    return None


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
