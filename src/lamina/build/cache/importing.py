"""``--cache-from``: outcomes of steps that another builder, or another image, has.

What steps there are is read when the build begins; a step's layer is fetched when the step is found. A cache that cannot be read is told of
and left out, as it costs only time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lamina.build import progress
from lamina.build.cache.document import CacheDocument, CachedStep, inline_steps
from lamina.build.cache.outcomes import Outcome
from lamina.build.cache.places import CacheSource
from lamina.build.request import BuildRequest
from lamina.content.store import Lease
from lamina.errors import LaminaError
from lamina.image.exchange import Exchange
from lamina.image.intake import LayerIntake
from lamina.image.pull import read_image
from lamina.image.store import Image, ImageStore
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffID
from lamina.oci.platform import Platform
from lamina.registry.incoming import fetch_layer
from lamina.registry.places import Place


class ImportedCaches:
    """The caches of one build's ``--cache-from``."""

    def __init__(
        self,
        request: BuildRequest,
        images: ImageStore,
        intake: LayerIntake,
        exchange: Exchange,
        lease: Lease,
        tell: progress.Tell,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._images = images
        self._intake = intake
        self._lease = lease
        self._tell = tell
        self._caches: Sequence[tuple[CacheDocument, Place | None]] = ()
        self.images: list[Image] = []
        """Those of the sources that are stored here and tell nothing of their steps but their history."""

    async def open(self) -> None:
        """Read what steps there are."""
        found = await asyncio.gather(*map(self._read, self._request.cache_from))
        self._caches = [cache for cache in found if cache is not None]

    async def find(self, key: str) -> Outcome | None:
        """What a step made, its layer stored; None if no cache has it, or none that has it can give it."""
        for document, place in self._caches:
            step = document.steps.get(key)
            if step is not None and await self._has_layer(step, document, place):
                return Outcome(DiffID(step.layer) if step.layer is not None else None, step.created)
        return None

    async def _read(self, source: CacheSource) -> tuple[CacheDocument, Place | None] | None:
        stored = self._stored(source)
        if stored is not None:
            return stored, None
        place = source.open(self._exchange, self._request.credentials, self._request.proxies)
        await self._tell(progress.Noted(f"importing cache manifest from {source}\n"))
        try:
            return await run_in_worker(read_cache, (), place), place
        except LaminaError as error:
            await self._tell(progress.Warned(f"[Warning] no cache from {source}: {error.message}\n"))
            return None

    def _stored(self, source: CacheSource) -> CacheDocument | None:
        """The inline cache of an image that is stored here."""
        if source.reference is None:
            return None
        try:
            image = self._images.find(str(source.reference))
            steps = inline_steps(image.config)
        except LaminaError:
            return None
        self._lease.add(*image.blobs)
        if not steps:
            self.images.append(image)
        return CacheDocument({step.key: step for step in steps}, {})

    async def _has_layer(self, step: CachedStep, document: CacheDocument, place: Place | None) -> bool:
        """Whether a step's layer is stored now, fetched if it was not."""
        if step.layer is None:
            return True
        diff_id = DiffID(step.layer)
        self._lease.add(diff_id)
        if self._intake.content.exists(diff_id):
            return True
        descriptor = document.layers.get(diff_id)
        if descriptor is None or place is None:
            return False
        try:
            await self._fetch(place, descriptor, diff_id)
        except LaminaError as error:
            await self._tell(progress.Warned(f"[Warning] a cached layer cannot be had: {error.message}\n"))
            return False
        return True

    async def _fetch(self, place: Place, descriptor: Descriptor, diff_id: DiffID) -> None:
        intake = self._intake
        tar, tree = intake.content.temporary_path(), intake.trees.temporary_path()
        try:
            layer = await run_in_worker(fetch_layer, (), place, descriptor, diff_id, tar, tree, intake.limits)
            intake.adopt(layer, self._lease, tar, tree)
        finally:
            tar.unlink(missing_ok=True)
            tree.unlink(missing_ok=True)


def read_cache(place: Place) -> CacheDocument:
    """What a place has. Blocking. Raises NotInRegistry, InvalidDocument and the registry's errors."""
    remote = read_image(place, Platform.of_host())
    return CacheDocument.parse(remote.manifest, remote.config)
