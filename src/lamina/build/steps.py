"""What all steps of a stage have in common: an outcome, found or made, becomes the next image.

Every step's image is recorded, as the classic builder does: it is what ``history`` shows as the next one's parent. What a step makes is
found in the cache by what it depends on (``cache``); the image around it is made anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lamina.build.cache.document import CachedStep
from lamina.build.cache.explain import StepInputs
from lamina.build.cache.history import Accepts, find_in_history
from lamina.build.cache.outcomes import Outcome
from lamina.build.stage_state import StageState
from lamina.build.workshop import Workshop
from lamina.image.mutate import append, plain_manifest
from lamina.image.store import Image
from lamina.layer.ingest import IngestedLayer
from lamina.oci.config import History, ImageConfig
from lamina.oci.digest import DiffID

Produce = Callable[[Path, Path], Awaitable[IngestedLayer | None]]
"""Carries out a step: writes its layer's tar and tree to these paths; None if it changed no file."""


class Steps:
    """The steps of stage number *stage*, one after another. ``reason`` is why the last one was carried out, or was not."""

    def __init__(self, workshop: Workshop, state: StageState, *, stage: int, use_cache: bool) -> None:
        self._workshop = workshop
        self._state = state
        self._stage = stage
        self._use_cache = use_cache
        self._done = 0
        self.reason = ""
        self.taken: list[CachedStep] = []
        """The steps so far, those of a stage below this one first."""

    async def take(
        self,
        inputs: StepInputs,
        created_by: str,
        produce: Produce | None = None,
        *,
        accepts: Accepts | None = None,
        run: Mapping[str, Any] | None = None,
        author: str | None = None,
    ) -> bool:
        """Find a step's outcome or make it, and go on from there; returns whether it was found.

        *accepts* knows what an image's history may give for the step; without it nothing.
        """
        outcome, cached = await self.outcome(inputs.key, created_by, produce, accepts)
        place = f"{self._stage}/{self._done}"
        self._done += 1
        self.reason = self._workshop.memory.explain(place, inputs, cached=cached, use_cache=self._use_cache)
        self.taken.append(CachedStep(inputs.key, outcome.created, outcome.layer))
        entry = History(
            created=outcome.created, created_by=created_by, empty_layer=outcome.layer is None, author=author
        )
        state = self._state
        run = state.run if run is None else run
        state.go_on(await self.recorded(append(state.config, entry, layer=outcome.layer, run=run, author=author)))
        return cached

    async def outcome(
        self, key: str, created_by: str, produce: Produce | None, accepts: Accepts | None = None
    ) -> tuple[Outcome, bool]:
        """A step's outcome, and whether it was found."""
        workshop = self._workshop
        async with workshop.cache.computing(key):
            outcome = await self._find(key, created_by, accepts)
            cached = outcome is not None
            if outcome is None:
                layer = None
                if produce is not None:
                    async with workshop.slots, self._scratch_layer() as (tar, tree):
                        made = await produce(tar, tree)
                        if made is not None:
                            workshop.intake.adopt(made, workshop.lease, tar, tree)
                            layer = DiffID(made.diff_id)
                outcome = Outcome(layer, workshop.now())
                workshop.fresh[key] = outcome
                await workshop.cache.put(key, outcome, created_by)
        return outcome, cached

    async def recorded(self, made: ImageConfig) -> Image:
        """The image of a config, made from the stage so far."""
        workshop = self._workshop
        if made.image_id in workshop.images:
            image = workshop.images.get(made.image_id)
        else:
            sizes = [workshop.intake.content.size(d) for d in made.diff_ids]
            image = await workshop.images.add(made, plain_manifest(made, sizes), parent=self._state.image_id)
        workshop.keep(image)
        return image

    async def _find(self, key: str, created_by: str, accepts: Accepts | None) -> Outcome | None:
        outcome = self._workshop.fresh.get(key)
        if outcome is None and self._use_cache:
            outcome = await self._workshop.cache.find(key) or await self._find_imported(key, created_by, accepts)
        if outcome is not None and outcome.layer is not None:
            self._workshop.lease.add(outcome.layer)
        return outcome

    async def _find_imported(self, key: str, created_by: str, accepts: Accepts | None) -> Outcome | None:
        """What another builder made; from here on it is in the cache of this one."""
        imported = self._workshop.imported
        outcome = await imported.find(key)
        # times are not in a history's words: a layer from there would not be clamped
        if outcome is None and accepts is not None and not self._workshop.epoch:
            outcome = await find_in_history(imported.images, self._state.config, created_by, accepts)
        if outcome is not None:
            await self._workshop.cache.put(key, outcome, created_by)
        return outcome

    @asynccontextmanager
    async def _scratch_layer(self) -> AsyncIterator[tuple[Path, Path]]:
        """Names for a layer's tar and tree on their way; nothing under them is left."""
        intake = self._workshop.intake
        tar, tree = intake.content.temporary_path(), intake.trees.temporary_path()
        try:
            yield tar, tree
        finally:
            tar.unlink(missing_ok=True)
            tree.unlink(missing_ok=True)
