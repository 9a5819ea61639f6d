"""What goes into a container's process and what comes out of it, for any number of attached clients.

A client may attach before the process exists (docker's command line does). Its subscription then waits; when the process is created
the console is connected, before it runs, so that nothing it says is lost. Output is given to every subscriber in order; one that
reads slowly slows the process down, as a pipe would, and one that has gone is forgotten. A process that has ended waits for nobody:
who has not taken the rest of its output after a while (as long as dockerd's) goes without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from lamina.container.detach import DetachKeys

_QUEUE_ITEMS = 64
_DRAIN_PATIENCE_S = 2.0


class Attachment(Protocol):
    """A connection to a process's standard streams (``lamina.runtime`` has the one that exists)."""

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """Pairs of stream (1 stdout, 2 stderr) and bytes, until the process has ended and all was read."""

    async def write(self, data: bytes) -> None:
        """Send to standard input."""

    async def close_stdin(self) -> None:
        """End standard input."""

    async def close(self) -> None:
        """Let go."""


class Subscription:
    """One client's share of the output: an iterator of (stream, bytes) that ends with the process."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_QUEUE_ITEMS)
        self._gone = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self._queue.get()) is not None:
            yield item

    async def deliver(self, item: tuple[int, bytes] | None) -> None:
        """Put one item, waiting while the client is behind; at once if it has gone."""
        if self._gone.is_set():
            return
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(item)
            return
        put = asyncio.ensure_future(self._queue.put(item))
        gone = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait((put, gone), return_when=asyncio.FIRST_COMPLETED)
        put.cancel()
        gone.cancel()

    @property
    def is_behind(self) -> bool:
        """Whether the client would have to be waited for."""
        return self._queue.full()

    def cut(self) -> None:
        """End it, although the client has not taken what it was given; that is lost to it."""
        self.close()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def close(self) -> None:
        """The client has gone."""
        self._gone.set()
        self._console.forget(self)


class Console:
    """The streams of one container over all its runs."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._attachment: Attachment | None = None
        self._reader: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._waits_for_nobody = False

    @property
    def is_connected(self) -> bool:
        """Whether a process's streams are held."""
        return self._attachment is not None

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody waits for output."""
        return bool(self._subscriptions)

    def subscribe(self) -> Subscription:
        """Take part in the output from now on."""
        subscription = Subscription(self)
        self._subscriptions.append(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Stop giving output to a subscription."""
        with suppress(ValueError):
            self._subscriptions.remove(subscription)

    def connect(self, attachment: Attachment) -> None:
        """Carry a process's streams until it ends."""
        self._attachment = attachment
        self._waits_for_nobody = False
        self._reader = asyncio.ensure_future(self._carry(attachment))
        self._connected.set()

    async def write(self, data: bytes) -> None:
        """Send to the process's standard input, waiting for a process if there is none yet; dropped if it has ended."""
        await self._connected.wait()
        if self._attachment is not None:
            with suppress(OSError):
                await self._attachment.write(data)

    async def close_stdin(self) -> None:
        """End the process's standard input, waiting for a process if there is none yet."""
        await self._connected.wait()
        if self._attachment is not None:
            with suppress(OSError):
                await self._attachment.close_stdin()

    def hasten(self) -> None:
        """The process has ended: from now on subscribers have a limited time to take the rest of its output."""
        if self._attachment is not None and self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(_DRAIN_PATIENCE_S, self._stop_waiting)

    async def finished(self) -> None:
        """Return when all output of the process that has ended was given to every subscriber, or to all who took it in time."""
        if self._reader is not None:
            await self._reader

    def end_subscriptions(self) -> None:
        """End every subscription: no process will come, as the container failed to start, has ended or is removed."""
        while self._subscriptions:
            asyncio.ensure_future(self._subscriptions.pop().deliver(None))  # noqa: RUF006 - ends by itself

    def _stop_waiting(self) -> None:
        self._waits_for_nobody = True
        self._cut_those_behind()

    def _cut_those_behind(self) -> None:
        for subscription in [s for s in self._subscriptions if s.is_behind]:
            subscription.cut()

    async def _carry(self, attachment: Attachment) -> None:
        try:
            async for item in attachment:
                if self._waits_for_nobody:
                    self._cut_those_behind()
                for subscription in list(self._subscriptions):
                    await subscription.deliver(item)
        finally:
            self._attachment = None
            self._connected.clear()
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self.end_subscriptions()
            await attachment.close()


async def pump_input(
    read: Callable[[], Awaitable[bytes]], console: Console, *, keys: DetachKeys | None, close_at_end: bool
) -> bool:
    """Carry a client's input to the process until it ends; True if the client typed the detach keys."""
    while data := await read():
        detached = False
        if keys is not None:
            data, detached = keys.feed(data)
        if data:
            await console.write(data)
        if detached:
            return True
    if close_at_end:
        await console.close_stdin()
    return False
