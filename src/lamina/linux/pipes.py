"""Pipes between the event loop and a process or thread that reads and writes descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_BUFFER_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32
"""socket(7); a number of its own since Python has no name for it."""


async def feed(chunks: AsyncIterable[bytes], consume: Callable[[int], Awaitable[T]]) -> T:
    """Run *consume* with the reading end of a pipe into which *chunks* are written, and return its result.

    If the source of the chunks fails, the consumer is cancelled and the source's error raised; a consumer that stops reading early
    decides the outcome alone.
    """
    read_fd, write_fd = _pipe()
    os.set_blocking(write_fd, False)
    consumer = asyncio.ensure_future(consume(read_fd))
    try:
        try:
            await _write_all(chunks, write_fd, consumer)
        except BaseException:
            consumer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await consumer
            raise
        finally:
            os.close(write_fd)
        return await consumer
    finally:
        os.close(read_fd)


async def drain(produce: Callable[[int], Awaitable[object]]) -> AsyncIterator[bytes]:
    """Yield what *produce* writes into a pipe whose writing end it is given; its error is raised after the last byte."""
    read_fd, write_fd = _pipe()
    os.set_blocking(read_fd, False)

    async def run() -> None:
        try:
            await produce(write_fd)
        finally:
            os.close(write_fd)

    producer = asyncio.ensure_future(run())
    try:
        while chunk := await read_available(read_fd):
            yield chunk
        await producer
    finally:
        producer.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await producer
        os.close(read_fd)


def _pipe() -> tuple[int, int]:
    """A reading and a writing descriptor.

    A socket pair and not a pipe: a full pipe is writable again as soon as one page is free, so that a fast writer and a fast
    reader wake each other for every few kilobytes; a socket waits until three quarters of its buffer are.
    """
    reading, writing = socket.socketpair()
    with suppress(OSError):  # a limit on buffers costs speed only
        writing.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
    return reading.detach(), writing.detach()


async def _write_all(chunks: AsyncIterable[bytes], fd: int, consumer: asyncio.Future[T]) -> None:
    async for chunk in chunks:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await writable(fd, until=consumer)
            except BrokenPipeError:
                return
            if consumer.done():
                return


async def writable(fd: int, *, until: asyncio.Future[T] | None = None) -> None:
    """Wait until a non-blocking descriptor takes bytes, or *until* is done.

    Who holds both ends of a pipe needs the latter: it would not break by itself when its reader has ended.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake(*_: object) -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, wake)
    if until is not None:
        until.add_done_callback(wake)
    try:
        await ready
    finally:
        loop.remove_writer(fd)
        if until is not None:
            until.remove_done_callback(wake)


async def read_available(fd: int) -> bytes:
    """What a non-blocking descriptor has to give, waiting for something; empty at its end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(fd, _READ_BYTES)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, lambda ready=ready: ready.done() or ready.set_result(None))  # type: ignore[misc]
            try:
                await ready
            finally:
                loop.remove_reader(fd)
