"""One client's bytes: what arrives is held until it is asked for, what is sent waits for a slow client.

The secret here is asyncio's transport: its flow control in both directions, and the difference between a client that has finished
writing and one that has gone. Both look the same to a reader, so the kernel is asked: a socket whose two halves are closed reports
a hang-up, one whose peer still reads does not. TCP cannot tell them apart before something is sent; there the end of input counts
as the client's leaving, as with docker, unless a half close is part of the protocol (:meth:`Channel.expect_half_close`).
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

_READ_HIGH_WATER = 1 << 20
_READ_LOW_WATER = 256 << 10
_WRITE_HIGH_WATER = 256 << 10
_LINGER_S = 1.0
_LARGE_FILE_BYTES = 4 << 20


class ClientGone(ConnectionError):
    """The client closed the connection before all was sent or received."""


class Channel(asyncio.Protocol):
    """A connection as a pair of byte streams, each of which ends on its own."""

    def __init__(self, on_open: Callable[[Channel], None]) -> None:
        self._on_open = on_open
        self._transport = cast(asyncio.Transport, None)
        self._received: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_paused = False
        self._at_eof = False
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._half_close_expected = False
        self._hang_up: select.epoll | None = None
        self._dependents: set[asyncio.Task[Any]] = set()
        self.disconnected = asyncio.Event()

    @property
    def peer(self) -> str:
        """The client's address, without its port; empty for one on a unix socket."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    # reading

    async def read(self) -> bytes:
        """The next bytes as they came from the socket; empty when the client has finished writing."""
        while not self._received:
            if self._at_eof:
                return b""
            self._arrival.clear()
            await self._arrival.wait()
        return self.take()

    def take(self) -> bytes:
        """The next bytes that are here already, empty if there are none."""
        if not self._received:
            return b""
        data = self._received.popleft()
        self._held_bytes -= len(data)
        if self._is_paused and self._held_bytes <= _READ_LOW_WATER:
            self._is_paused = False
            if not self._at_eof and not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    def unread(self, data: bytes) -> None:
        """Put back what belongs to the next reader."""
        if data:
            self._received.appendleft(data)
            self._held_bytes += len(data)

    # writing

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the client is not far behind. Raises ClientGone."""
        if self._lost.is_set() or self._transport.is_closing():
            raise ClientGone("the client closed the connection")
        self._send(data)
        await self._writable.wait()
        if self._lost.is_set():
            raise ClientGone("the client closed the connection")

    async def send_file(self, file: BinaryIO, offset: int, length: int) -> None:
        """Send a part of a file, without its bytes coming through this process (sendfile(2)). Raises ClientGone."""
        if self._lost.is_set() or self._transport.is_closing():
            raise ClientGone("the client closed the connection")
        if length > _LARGE_FILE_BYTES:  # the kernel has more to send each time before this process is asked again
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGE_FILE_BYTES)
        try:
            sent = await asyncio.get_running_loop().sendfile(self._transport, file, offset, length)
        except (ConnectionError, RuntimeError) as error:
            raise ClientGone("the client closed the connection") from error
        if sent < length:  # the rest of what was told would be the next answer
            raise ClientGone("the file ended early")
        if self._is_paused and not self._transport.is_closing():
            self._transport.pause_reading()  # sendfile let it go on

    def write_eof(self) -> None:
        """Finish writing once all is sent; reading goes on."""
        if not self._lost.is_set() and not self._transport.is_closing():
            with suppress(OSError):
                self._finish()

    # ending

    async def close(self) -> None:
        """Send what is left, finish writing and close; returns when the connection is gone.

        Bytes that the client still sends are read and dropped for a moment, since the kernel answers unread bytes with a reset, which
        can overtake the last of what was sent.
        """
        self.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while await self.read():
                    pass
        self._transport.close()
        await self._lost.wait()

    def abort(self) -> None:
        """Cut the connection; what was not sent is dropped."""
        self._transport.abort()

    @contextmanager
    def cancel_when_gone(self) -> Iterator[None]:
        """Cancel the task that runs this block if the client goes away meanwhile. Raises ClientGone if it has gone already."""
        if self.disconnected.is_set():
            raise ClientGone("the client closed the connection")
        task = asyncio.current_task()
        assert task is not None
        self._dependents.add(task)
        try:
            yield
        finally:
            self._dependents.discard(task)

    def expect_half_close(self) -> None:
        """From here on the end of the client's input does not mean that it has gone."""
        self._half_close_expected = True
        if self._hang_up is not None:
            # input has ended, and the kernel does not report more than that
            self.disconnected.clear()

    # what lies between this and the socket

    def _send(self, data: bytes) -> None:
        self._transport.write(data)

    def _finish(self) -> None:
        self._transport.write_eof()

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        client = transport.get_extra_info("socket")
        if client is not None and client.family != socket.AF_UNIX:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a client that vanished is gone some day
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client connected."""
        self._use(cast(asyncio.Transport, transport))
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        self._received.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _READ_HIGH_WATER and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._arrival.set()

    def eof_received(self) -> bool:
        """asyncio: the client finished writing. True keeps our half open."""
        self._at_eof = True
        self._arrival.set()
        self._watch_for_hang_up()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._at_eof = True
        self._lost.set()
        self._stop_watching()
        self._arrival.set()
        self._writable.set()
        self._tell_gone()

    def pause_writing(self) -> None:
        """asyncio: the client is behind."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: the client has caught up."""
        self._writable.set()

    def _watch_for_hang_up(self) -> None:
        if self._hang_up is not None:
            return
        # asyncio polls a socket no more after its end of input; an epoll of our own that asks for nothing still reports hang-ups
        client = self._transport.get_extra_info("socket")
        self._hang_up = select.epoll()
        self._hang_up.register(client.fileno(), 0)
        asyncio.get_running_loop().add_reader(self._hang_up.fileno(), self._hung_up)
        if client.family != socket.AF_UNIX and not self._half_close_expected:
            self._tell_gone()

    def _hung_up(self) -> None:
        self._stop_watching()
        self._tell_gone()

    def _stop_watching(self) -> None:
        if self._hang_up is not None:
            asyncio.get_running_loop().remove_reader(self._hang_up.fileno())
            self._hang_up.close()
            self._hang_up = None

    def _tell_gone(self) -> None:
        self.disconnected.set()
        for task in self._dependents:
            task.cancel()
