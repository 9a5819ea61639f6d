"""Events: what happened to what, told to everybody who listens, the recent ones again to who comes later."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

_KEPT = 4096
_QUEUE_ITEMS = 1024


@dataclass(frozen=True)
class Event:
    """One thing that happened. ``kind`` is container, image, network, volume, builder or daemon."""

    kind: str
    action: str
    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = field(default_factory=time.time_ns)


class EventLog:
    """The last events, and the listeners for the next ones."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=_KEPT)
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

    async def follow(
        self, wanted: Callable[[Event], bool], *, since_ns: int | None = None, until_ns: int | None = None
    ) -> AsyncIterator[Event]:
        """Past events from *since_ns* on, then new ones as they happen, until *until_ns*."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE_ITEMS)
        past = [e for e in self._recent if since_ns is not None and e.time_ns >= since_ns]
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
