"""What a build tells while it runs: events, in the order in which they happen. How they look is for others to decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lamina.oci.digest import Digest, ImageID


@dataclass(frozen=True)
class Step:
    """One instruction of the build's *total*, numbered from 1 in the Dockerfile's order; *stage* is the stage's number.

    Global arguments belong to stage -1.
    """

    number: int
    total: int
    stage: int
    stage_name: str
    source: str


@dataclass(frozen=True)
class Planned:
    """The stages that will be carried out, in the Dockerfile's order."""

    stages: tuple[int, ...]


@dataclass(frozen=True)
class StepBegan:
    """A step is being carried out."""

    step: Step


@dataclass(frozen=True)
class CommandBegan:
    """A RUN's command runs in a container of this ID."""

    step: Step
    container_id: str


@dataclass(frozen=True)
class CommandOutput:
    """A RUN's command said something on stdout (1) or stderr (2)."""

    step: Step
    stream: int
    text: str


@dataclass(frozen=True)
class CommandEnded:
    """The container of a RUN's command is gone."""

    step: Step
    container_id: str


@dataclass(frozen=True)
class TriggersBegan:
    """The base image's ONBUILD instructions are being carried out."""

    step: Step
    count: int


@dataclass(frozen=True)
class StepEnded:
    """A step was carried out, or its outcome found in the cache; *image_id* is None while a stage from scratch has nothing."""

    step: Step
    image_id: ImageID | None
    cached: bool = False
    reason: str = ""


@dataclass(frozen=True)
class StageEnded:
    """All steps of a stage were carried out."""

    stage: int


@dataclass(frozen=True)
class Noted:
    """Something that is done beside the steps, such as writing the cache somewhere."""

    text: str


@dataclass(frozen=True)
class Pushed:
    """An image is in a registry now, under a name; *digest* and *size* (bytes) are its manifest's there."""

    name: str
    digest: Digest
    size: int


@dataclass(frozen=True)
class Warned:
    """Something that the user should know and that stops nothing."""

    text: str


Event = (
    Planned
    | StepBegan
    | CommandBegan
    | CommandOutput
    | CommandEnded
    | TriggersBegan
    | StepEnded
    | StageEnded
    | Noted
    | Pushed
    | Warned
)
Tell = Callable[[Event], Awaitable[None]]
"""Takes an event; waits while its reader is behind."""
