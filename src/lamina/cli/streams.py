"""A terminal, or pipes, joined to a container's streams."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

from lamina.api.frames import Decoder
from lamina.container.detach import DetachKeys

_READ_BYTES = 64 << 10


def carry(connection: socket.socket, rest: bytes, *, terminal: bool, stdin: bool, keys: DetachKeys | None) -> bool:
    """Carry a hijacked connection until the daemon ends it; True if the user typed the detach keys before.

    Neither direction waits for the other: a container that says more than it was asked is heard while it is still being told.
    *rest* is what came along with the answer's head.
    """
    decoder = None if terminal else Decoder()
    show(rest, decoder)
    connection.setblocking(False)
    typed = _Input(connection, keys, is_open=stdin)
    while True:
        sources: list[socket.socket | int] = [connection, 0] if typed.wants_more else [connection]
        readable, writable, _ = select.select(sources, [connection] if typed.pending else [], [])
        if connection in readable:
            data = _received(connection)
            if data == b"":
                return False
            show(data or b"", decoder)
        if writable:
            typed.send()
        if 0 in readable and typed.read():
            connection.close()
            return True


def show(data: bytes, decoder: Decoder | None) -> None:
    """Write what a stream brought to standard output and standard error."""
    pieces = [(1, data)] if decoder is None else decoder.feed(data)
    for stream, piece in pieces:
        target = sys.stderr if stream == 2 else sys.stdout
        target.buffer.write(piece)
        target.buffer.flush()


class _Input:
    """Standard input on its way to a connection: a piece is sent whole before the next is read; its end ends our half only."""

    def __init__(self, connection: socket.socket, keys: DetachKeys | None, *, is_open: bool) -> None:
        self._connection = connection
        self._keys = keys
        self._is_open = is_open
        self.pending = b""

    @property
    def wants_more(self) -> bool:
        """Whether standard input should be read."""
        return self._is_open and not self.pending

    def read(self) -> bool:
        """Take what was typed; True if it ends with the detach keys, and what was typed before them has been sent."""
        try:
            data = os.read(0, _READ_BYTES)
        except OSError:  # the terminal hung up
            data = b""
        if not data:
            self._is_open = False
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            return False
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        if detached:
            self._connection.setblocking(True)
            with contextlib.suppress(OSError):
                self._connection.sendall(data)
            return True
        self.pending = data
        self.send()
        return False

    def send(self) -> None:
        """Send what the connection takes now."""
        try:
            self.pending = self.pending[self._connection.send(self.pending) :] if self.pending else b""
        except BlockingIOError:
            pass
        except OSError:  # the process has ended, and so will the connection
            self._is_open, self.pending = False, b""


def _received(connection: socket.socket) -> bytes | None:
    """The next bytes, none at the end; None if there are none yet."""
    try:
        return connection.recv(_READ_BYTES)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""
