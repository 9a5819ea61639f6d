"""``--cache-to``: the steps of a build, with what they made, for builds elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lamina.build import progress
from lamina.build.cache.document import CACHE_CONFIG, CacheDocument, CachedStep
from lamina.build.cache.importing import read_cache
from lamina.build.cache.places import CacheTarget
from lamina.build.workshop import Workshop
from lamina.errors import LaminaError
from lamina.image.mutate import plain_manifest
from lamina.image.store import Image
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffID
from lamina.oci.manifest import Manifest
from lamina.registry.outgoing import OutgoingLayer, put_layer
from lamina.registry.places import Place


async def export_cache(
    target: CacheTarget, steps: Sequence[CachedStep], result: Sequence[CachedStep], workshop: Workshop
) -> None:
    """Write a cache that is not inline: all *steps*, or of mode min those of the *result*.

    Raises the registry's errors, unless the target ignores them; they are told then.
    """
    chosen = list({step.key: step for step in (steps if target.mode == "max" else result)}.values())
    diff_ids = list(dict.fromkeys(DiffID(step.layer) for step in chosen if step.layer is not None))
    content, request = workshop.intake.content, workshop.request
    layers = [OutgoingLayer(diff_id, content.path(diff_id)) for diff_id in diff_ids]
    place = target.open(workshop.exchange, request.credentials, request.proxies)
    await workshop.tell(progress.Noted(f"exporting cache to {target}\n"))
    try:
        await run_in_worker(write_cache, (), target, place, chosen, layers, workshop.directory)
    except LaminaError as error:
        if not target.ignores_errors:
            raise
        await workshop.tell(progress.Warned(f"[Warning] the cache was not exported: {error.message}\n"))


async def with_inline_cache(image: Image, result: Iterable[CachedStep], workshop: Workshop) -> Image:
    """The image again, with the steps that made it in its config."""
    layers = {None, *image.config.diff_ids}
    config = image.config.with_inline_cache([step for step in result if step.layer in layers])
    sizes = [workshop.intake.content.size(diff_id) for diff_id in config.diff_ids]
    made = await workshop.images.add(config, plain_manifest(config, sizes), parent=image.parent)
    workshop.keep(made)
    return made


def write_cache(
    target: CacheTarget, place: Place, steps: Sequence[CachedStep], layers: Sequence[OutgoingLayer], scratch: Path
) -> None:
    """Write a cache at a place, each layer that the cache there has not got. Blocking. Raises the registry's errors."""
    there: Mapping[DiffID, Descriptor] = {}
    if not target.forces:
        with suppress(LaminaError):
            there = read_cache(place).layers
    known = [replace(layer, known=there.get(layer.diff_id)) for layer in layers]
    blobs = [put_layer(place, layer, scratch, target.form, target.level) for layer in known]
    config = CacheDocument.config(steps, [layer.diff_id for layer in layers])
    pointer = Descriptor(CACHE_CONFIG, place.put_data(config), len(config))
    place.put_manifest(Manifest.build(pointer, tuple(blobs)))
