"""What carrying out a build's steps needs, and what all of them share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from lamina.build import progress
from lamina.build.bases import Bases
from lamina.build.cache.explain import BuildMemory
from lamina.build.cache.importing import ImportedCaches
from lamina.build.cache.outcomes import BuildCache, Outcome
from lamina.build.context.named import NamedContexts
from lamina.build.remote.fetching import Fetcher
from lamina.build.request import BuildRequest
from lamina.build.run.running import StepRunner
from lamina.content.store import Lease
from lamina.image.exchange import Exchange
from lamina.image.intake import LayerIntake
from lamina.image.mutate import timestamp
from lamina.image.store import Hold, Image, ImageStore


@dataclass(frozen=True)
class Workshop:
    """The services, and what belongs to the whole build. ``slots`` bounds the steps that run at once, ``directory`` is gone with it."""

    images: ImageStore
    intake: LayerIntake
    exchange: Exchange
    runner: StepRunner
    cache: BuildCache
    lease: Lease
    hold: Hold
    directory: Path
    fetcher: Fetcher
    contexts: NamedContexts
    request: BuildRequest
    tell: progress.Tell
    slots: asyncio.Semaphore
    imported: ImportedCaches
    bases: Bases
    fresh: dict[str, Outcome] = field(default_factory=dict)
    memory: BuildMemory = field(default_factory=BuildMemory)

    def keep(self, image: Image) -> None:
        """Keep an image and its blobs from being removed for the length of the build. Raises ImageNotFound."""
        self.hold.add(image.image_id)
        self.lease.add(*image.blobs)

    @property
    def epoch(self) -> str:
        """SOURCE_DATE_EPOCH as a part of cache keys; empty if there is none."""
        epoch_s = self.request.source_date_epoch_s
        return "" if epoch_s is None else str(epoch_s)

    @property
    def clamp_ns(self) -> int | None:
        """The latest time that a file of the image may have (SOURCE_DATE_EPOCH)."""
        epoch_s = self.request.source_date_epoch_s
        return None if epoch_s is None else epoch_s * 1_000_000_000

    def now(self) -> str:
        """The time that an image made now bears."""
        return timestamp(epoch_s=self.request.source_date_epoch_s)
