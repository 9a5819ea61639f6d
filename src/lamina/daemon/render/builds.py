"""A build's events as the classic builder's texts (docker's builder before BuildKit), which clients show as they are.

Stages run side by side and the texts have one order, the Dockerfile's: what a stage tells before its turn is kept for then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from lamina.build import progress
from lamina.build.cache.kept import CacheItem
from lamina.container.times import rfc3339
from lamina.oci.digest import ImageID

_QUEUED_LINES = 16
_WITHHELD_TEXTS = 1024
_KEPT_CHARACTERS = 2 << 20
_CLIPPED = "[output clipped, log limit 2MiB reached]\n"


Fields = dict[str, Any]


def classic_text(event: progress.Event) -> str:
    """What a client reads of an event; empty for one that the classic builder does not tell."""
    match event:
        case progress.StepBegan(step):
            return f"Step {step.number}/{step.total} : {step.source}\n"
        case progress.CommandBegan(_, container_id):
            return f" ---> Running in {container_id[:12]}\n"
        case progress.CommandOutput(_, stream, text):
            return text if stream == 1 else f"\x1b[91m{text}\x1b[0m"
        case progress.CommandEnded(_, container_id):
            return f" ---> Removed intermediate container {container_id[:12]}\n"
        case progress.TriggersBegan(_, count):
            return f"# Executing {count} build trigger{'s' if count > 1 else ''}\n"
        case progress.StepEnded(_, image_id, cached, reason):
            identity = f" ---> {image_id.hex[:12]}\n" if image_id is not None else " --->\n"
            why = f" ---> {reason}\n" if reason and not cached else ""
            return f" ---> Using cache\n{identity}" if cached else why + identity
        case progress.Pushed(name, digest, size):
            return f"{name}: digest: {digest} size: {size}\n"
        case progress.Noted(text) | progress.Warned(text):
            return text
    return ""


def cache_item(item: CacheItem) -> Fields:
    """The API's ``BuildCache``."""
    return {
        "ID": item.id,
        "Parents": list(item.parents) or None,
        "Type": item.kind,
        "Description": item.description,
        "InUse": item.in_use,
        "Shared": item.shared,
        "Size": item.size_bytes,
        "CreatedAt": rfc3339(item.created_ns),
        "LastUsedAt": rfc3339(item.used_ns),
        "UsageCount": item.uses,
    }


class _Lines:
    """JSON objects between a build and its client; a client that is behind makes ``put`` wait."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[Fields] = asyncio.Queue(_QUEUED_LINES)
        self._ended = asyncio.Event()

    async def put(self, fields: Fields) -> None:
        await self._lines.put(fields)

    def end(self) -> None:
        """Nothing more will come, or nobody will read it."""
        self._ended.set()

    async def __aiter__(self) -> AsyncIterator[Fields]:
        ended = asyncio.ensure_future(self._ended.wait())
        line: asyncio.Future[Fields] | None = None
        try:
            while True:
                line = asyncio.ensure_future(self._lines.get())
                await asyncio.wait((line, ended), return_when=asyncio.FIRST_COMPLETED)
                if not line.done():
                    line.cancel()
                    break
                yield line.result()
            while not self._lines.empty():
                yield self._lines.get_nowait()
        finally:
            ended.cancel()
            if line is not None:
                line.cancel()


class EventStream(_Lines):
    """Every event as a JSON object, as it happens; ``event`` is its kind."""

    async def tell(self, event: progress.Event) -> None:
        """Take an event from the build."""
        fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
        step = fields.get("step")
        if step is not None:
            fields["step"] = {name: getattr(step, name) for name in step.__dataclass_fields__}
        await self.put({"event": type(event).__name__, **fields})

    async def flush(self) -> None:
        """Nothing is held back here."""

    def withheld(self) -> list[Fields]:
        """Nor withheld."""
        return []

    def conclusion(self, images: Sequence[ImageID], names: Sequence[str]) -> list[Fields]:
        """What tells that the build is done."""
        return [{"event": "Built", "images": list(images), "names": list(names)}]


class Transcript(_Lines):
    """The classic texts.

    With *quiet* they are withheld, the last of them for the case that the build fails.
    """

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet
        self._withheld: deque[str] = deque(maxlen=_WITHHELD_TEXTS)
        self._order: deque[int] = deque()
        self._kept: dict[int, _Kept] = {}

    async def tell(self, event: progress.Event) -> None:
        """Take an event from the build."""
        if isinstance(event, progress.Planned):
            self._order.extend(event.stages)
        elif isinstance(event, progress.StageEnded):
            await self._end_turn(event.stage)
        elif isinstance(event, progress.Pushed):
            await self._tell_text(classic_text(event))
            if not self._quiet:
                await self.put({"aux": {"Tag": event.name, "Digest": event.digest, "Size": event.size}})
        else:
            stage = (
                self._order[0]
                if isinstance(event, progress.Noted | progress.Warned) and self._order
                else _stage_of(event)
            )
            await self._take(stage, classic_text(event))

    async def flush(self) -> None:
        """Give out what stages told whose turn did not come: the build has failed."""
        while self._order:
            await self._give_out(self._order.popleft())

    def withheld(self) -> list[Fields]:
        """What a quiet build that failed has to tell."""
        return [{"stream": text} for text in self._withheld]

    def conclusion(self, images: Sequence[ImageID], names: Sequence[str]) -> list[Fields]:
        """What tells that the build is done."""
        if self._quiet:
            return [{"stream": f"{images[-1]}\n"}]
        texts = [f"Successfully built {images[-1].hex[:12]}\n", *(f"Successfully tagged {name}\n" for name in names)]
        return [{"aux": {"ID": str(images[-1])}}, *({"stream": text} for text in texts)]

    async def _take(self, stage: int, text: str) -> None:
        if not self._order or self._order[0] == stage:
            await self._tell_text(text)
        else:
            self._kept.setdefault(stage, _Kept()).add(text)

    async def _end_turn(self, stage: int) -> None:
        self._kept.setdefault(stage, _Kept()).ended = True
        while self._order and self._order[0] in self._kept:
            await self._give_out(self._order[0])
            if not self._kept[self._order[0]].ended:
                return
            del self._kept[self._order.popleft()]

    async def _give_out(self, stage: int) -> None:
        kept = self._kept.get(stage)
        while kept is not None and kept.texts:
            await self._tell_text(kept.texts.popleft())

    async def _tell_text(self, text: str) -> None:
        if self._quiet:
            self._withheld.append(text)
        elif text:
            await self.put({"stream": text})


class _Kept:
    """What a stage told before its turn: bounded, as waiting for its turn could stop the stage whose turn it is."""

    def __init__(self) -> None:
        self.texts: deque[str] = deque()
        self.ended = False
        self._left = _KEPT_CHARACTERS

    def add(self, text: str) -> None:
        if self._left > 0:
            self.texts.append(text if len(text) <= self._left else _CLIPPED)
            self._left -= len(text)


def _stage_of(event: progress.Event) -> int:
    step = getattr(event, "step", None)
    return step.stage if step is not None else -1
