"""A stage so far: its image, what the next image's JSON starts from, and its files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.build import config
from lamina.build.context.source import FileSource, TarContents
from lamina.image.intake import LayerIntake
from lamina.image.store import Image
from lamina.layer.merge import apply_layer
from lamina.layer.tree import MergedTree, load
from lamina.oci.config import ImageConfig
from lamina.oci.digest import ImageID
from lamina.oci.platform import Platform


@dataclass
class StageState:
    """A stage so far: its image (None for scratch), what the next image's JSON starts from, the ARGs in scope."""

    config: ImageConfig
    image_id: ImageID | None
    run: dict[str, Any]
    args: dict[str, str] = field(default_factory=dict)
    base_layers: int = 0
    base_id: ImageID | None = None
    has_own_command: bool = False

    @classmethod
    def over(cls, image: Image | None, platform: Platform | None = None) -> StageState:
        """The state of a stage at its beginning: over an image, or from scratch, which is of the *platform*, by default the host's."""
        if image is None:
            return cls(ImageConfig.empty(platform), None, config.with_default_path({}))
        run = config.with_default_path(image.config.run_document)
        return cls(image.config, image.image_id, run, base_layers=len(image.config.diff_ids), base_id=image.image_id)

    @property
    def variables(self) -> dict[str, str]:
        """What ``$NAME`` means here: ENV wins over ARG."""
        return {**self.args, **config.environment(self.run)}

    @property
    def root_name(self) -> str:
        """Names the files of the stage so far."""
        return str(self.config.chain_id)

    def go_on(self, image: Image) -> None:
        """Stand on the image that a step made."""
        self.config = image.config
        self.image_id = image.image_id
        self.run = dict(image.config.run_document)


class StageFiles:
    """The files of a stage so far, as a tree that grows with its layers."""

    def __init__(self, state: StageState, intake: LayerIntake) -> None:
        self._state = state
        self._intake = intake
        self._tree = MergedTree()
        self._layers = 0

    async def tree(self) -> MergedTree:
        """What the stage's root shows, brought up to its last layer."""
        paths = await self._intake.trees.paths(list(self._state.config.diff_ids[self._layers :]))
        await asyncio.to_thread(self._apply, paths)
        return self._tree

    async def source(self, place: str = "") -> FileSource:
        """The files, to be copied from; *place* names them in messages."""
        diff_ids = self._state.config.diff_ids
        contents = TarContents(tuple(self._intake.content.path(diff_id) for diff_id in diff_ids))
        return FileSource(await self.tree(), contents, place=place, diff_ids=diff_ids)

    def _apply(self, trees: Sequence[Path]) -> None:
        for path in trees:
            apply_layer(self._tree, load(path), self._layers)
            self._layers += 1
