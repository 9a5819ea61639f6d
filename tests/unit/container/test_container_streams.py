"""A console gives its output to all who take part, and waits for them only while the process runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lamina.container.streams import Console, Subscription


class Source:
    """A process's streams of a certain number of packets."""

    def __init__(self, packets: int) -> None:
        self._packets = packets

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        for number in range(self._packets):
            yield 1, b"%d" % number

    async def write(self, data: bytes) -> None:
        pass

    async def close_stdin(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def _all(subscription: Subscription) -> int:
    return len([item async for item in subscription])


async def test_who_does_not_read_holds_nobody_up_once_the_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.container.streams._DRAIN_PATIENCE_S", 0.01)
    console = Console()
    idle = console.subscribe()
    console.connect(Source(1000))
    console.hasten()
    await asyncio.wait_for(console.finished(), 10)
    assert await asyncio.wait_for(_all(idle), 10) == 0


async def test_who_reads_gets_all_of_it_also_after_the_end() -> None:
    console = Console()
    reading = [asyncio.ensure_future(_all(console.subscribe())) for _ in range(3)]
    console.connect(Source(1000))
    console.hasten()
    await console.finished()
    assert await asyncio.gather(*reading) == [1000] * 3


async def test_who_comes_at_the_end_is_told_it() -> None:
    console = Console()
    console.connect(Source(0))
    await console.finished()
    late = console.subscribe()
    console.end_subscriptions()
    assert await asyncio.wait_for(_all(late), 10) == 0
    assert not console.has_subscribers
