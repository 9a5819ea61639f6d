"""Events: what happened to what, told to everybody who listens, the recent ones again to who comes later.

They are written down for the next daemon a moment later and several at once, as nobody who makes something happen is to wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from lamina.linux.tasks import to_the_end

_KEPT = 4096
_QUEUE_ITEMS = 1024
_WRITE_DELAY_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One thing that happened. ``kind`` is container, image, network, volume, builder or daemon."""

    kind: str
    action: str
    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = field(default_factory=time.time_ns)


Write = Callable[[Sequence[Event]], None]
"""Writes events down, blocking; raises OSError if that is not possible, and they are lost to the next daemon then."""


class EventLog:
    """The last events, and the listeners for the next ones."""

    def __init__(self, past: Iterable[Event] = (), write: Write = lambda events: None) -> None:
        """*past* are those before this log; *write* gets what comes, some at a time, in a thread."""
        self._recent: deque[Event] = deque(past, maxlen=_KEPT)
        self._write = write
        self._unwritten: list[Event] = []
        self._writing: asyncio.Task[None] | None = None
        self._listeners: set[asyncio.Queue[Event]] = set()

    @property
    def listener_count(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def publish(self, event: Event) -> None:
        """Tell everybody. A listener that is too far behind loses the oldest it has not taken."""
        self._recent.append(event)
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)
        self._unwritten.append(event)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_later())

    async def close(self) -> None:
        """Write down what was not yet."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        self._write_now(self._take_unwritten())

    async def _write_later(self) -> None:
        await asyncio.sleep(_WRITE_DELAY_S)
        while self._unwritten:
            await to_the_end(asyncio.to_thread(self._write_now, self._take_unwritten()))

    def _take_unwritten(self) -> list[Event]:
        events, self._unwritten = self._unwritten, []
        return events

    def _write_now(self, events: Sequence[Event]) -> None:
        try:
            self._write(events)
        except OSError as error:
            _log.warning("%d events cannot be written down: %s", len(events), error)

    async def follow(
        self, wanted: Callable[[Event], bool], *, since_ns: int | None = None, until_ns: int | None = None
    ) -> AsyncIterator[Event]:
        """Past events from *since_ns* on, then new ones as they happen, until *until_ns*. With neither there are no past ones."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE_ITEMS)
        wants_past = since_ns is not None or until_ns is not None
        past = [e for e in self._recent if wants_past and e.time_ns >= (since_ns or 0)]
        self._listeners.add(queue)
        try:
            for event in past:
                if wanted(event) and (until_ns is None or event.time_ns <= until_ns):
                    yield event
            while True:
                left = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if left is not None and left <= 0:
                    return
                try:
                    event = await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
                if wanted(event):
                    yield event
        finally:
            self._listeners.discard(queue)
