"""A build's events as the classic builder's texts (docker's builder before BuildKit), which clients show as they are.

Stages run side by side and the texts have one order, the Dockerfile's: what a stage tells before its turn is kept for then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from lamina.build import progress

_QUEUED_TEXTS = 16
_KEPT_CHARACTERS = 2 << 20
_CLIPPED = "[output clipped, log limit 2MiB reached]\n"


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
        case progress.StepEnded(_, image_id, cached):
            identity = f" ---> {image_id.hex[:12]}\n" if image_id is not None else " --->\n"
            return f" ---> Using cache\n{identity}" if cached else identity
        case progress.Warned(text):
            return text
    return ""


class Transcript:
    """The texts between a build and its client. A client that is behind makes the stage whose turn it is wait.

    With *quiet* the texts are withheld, the last of them for the case that the build fails.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.withheld: deque[str] = deque(maxlen=1024)
        self._texts: asyncio.Queue[str] = asyncio.Queue(_QUEUED_TEXTS)
        self._ended = asyncio.Event()
        self._order: deque[int] = deque()
        self._kept: dict[int, _Kept] = {}

    async def tell(self, event: progress.Event) -> None:
        """Take an event from the build."""
        if isinstance(event, progress.Planned):
            self._order.extend(event.stages)
        elif isinstance(event, progress.StageEnded):
            await self._end_turn(event.stage)
        else:
            stage = self._order[0] if isinstance(event, progress.Warned) and self._order else _stage_of(event)
            await self._take(stage, classic_text(event))

    async def flush(self) -> None:
        """Give out what stages told whose turn did not come: the build has failed."""
        while self._order:
            await self._give_out(self._order.popleft())

    def end(self) -> None:
        """No text will come, or nobody will read it."""
        self._ended.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            while True:
                text = asyncio.ensure_future(self._texts.get())
                await asyncio.wait((text, ended), return_when=asyncio.FIRST_COMPLETED)
                if not text.done():
                    text.cancel()
                    break
                yield text.result()
            while not self._texts.empty():
                yield self._texts.get_nowait()
        finally:
            ended.cancel()

    async def _take(self, stage: int, text: str) -> None:
        if not self._order or self._order[0] == stage:
            await self._put(text)
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
            await self._put(kept.texts.popleft())

    async def _put(self, text: str) -> None:
        if self.quiet:
            self.withheld.append(text)
        elif text:
            await self._texts.put(text)


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
