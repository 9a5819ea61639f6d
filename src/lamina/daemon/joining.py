"""A client joined to a process's streams: what ``attach`` and ``exec`` have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from lamina.api import frames
from lamina.container.detach import DetachKeys
from lamina.container.streams import Console, Subscription, pump_input
from lamina.http import Request
from lamina.http.message import InvalidRequest

_RAW = "application/vnd.docker.raw-stream"
_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_MULTIPLEXED_SINCE = (1, 42)


@dataclass(frozen=True)
class Joint:
    """How they are joined: which streams are *shown* (1 stdout, 2 stderr), whether they are *plain* (a terminal's) or in frames.

    *takes_input* says whether the process reads what the client sends, *closes_input* whether the client's end is its end, too.
    """

    shown: Collection[int]
    plain: bool
    takes_input: bool
    closes_input: bool
    keys: DetachKeys | None = None

    def encode(self, stream: int, data: bytes) -> bytes:
        """Output as the client reads it."""
        return data if self.plain else frames.encode(stream, data)


class Stream(Protocol):
    """A client's connection that was taken over: a raw one, or messages."""

    async def read(self) -> bytes:
        """The next bytes; empty at the client's end of input."""

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises ClientGone."""

    async def finish(self) -> None:
        """Tell the client that nothing more comes, where the protocol has words for that."""

    def close(self) -> None:
        """Finish writing."""


async def carry(raw: Stream, console: Console, subscription: Subscription, joint: Joint) -> bool:
    """Carry both directions until the process has ended, or the client detached or went away; True if it detached."""
    output = asyncio.ensure_future(_carry_output(raw, subscription, joint))
    if joint.takes_input:
        reading = pump_input(raw.read, console, keys=joint.keys, close_at_end=joint.closes_input)
        source = asyncio.ensure_future(reading)
    else:
        source = asyncio.ensure_future(_until_end(raw))
    try:
        await asyncio.wait((output, source), return_when=asyncio.FIRST_COMPLETED)
        if source.done() and not source.result():
            # the client's end of input is no wish to leave: it still reads
            await output
        if output.done():
            output.result()
        return source.done() and source.result()
    finally:
        for task in (output, source):
            task.cancel()


def stream_type(request: Request, *, plain: bool) -> str:
    """What a stream of output is called; clients before API 1.42 know one name for both."""
    return _RAW if plain or request.api_version < _MULTIPLEXED_SINCE else _MULTIPLEXED


def detach_keys(text: str) -> DetachKeys:
    """The keys that a client wants to leave by, by default docker's. Raises InvalidRequest."""
    try:
        return DetachKeys(text or None)
    except ValueError as error:
        raise InvalidRequest(f"Invalid detach keys ({text}) provided: {error}") from None


async def _carry_output(raw: Stream, subscription: Subscription, joint: Joint) -> None:
    async for stream, data in subscription:
        if stream in joint.shown:
            await raw.write(joint.encode(stream, data))


async def _until_end(raw: Stream) -> bool:
    while await raw.read():
        pass
    return False
