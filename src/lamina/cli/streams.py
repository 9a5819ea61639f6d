"""A terminal, or pipes, joined to a container's streams."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from lamina.api.frames import Decoder
from lamina.client.client import Client

_READ_BYTES = 64 << 10


def terminal_size() -> tuple[int, int]:
    """(height, width) of the terminal on standard output; zeros without one."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return size.lines, size.columns


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Hand keys through as they are typed, for the length of the block."""
    saved = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


@contextlib.contextmanager
def following_size(client: Client, container_id: str) -> Iterator[Callable[[], None]]:
    """Tell the container when the terminal's size changes; yields a function that tells it now."""

    def tell(*_: object) -> None:
        height, width = terminal_size()
        if height:
            with contextlib.suppress(Exception):
                client.request("POST", f"/containers/{container_id}/resize", {"h": height, "w": width}).read()

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield tell
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def proxied_signals(client: Client, container_id: str) -> Iterator[None]:
    """Pass the signals that would end this command on to the container."""

    def send(number: int, _: object) -> None:
        with contextlib.suppress(Exception):
            client.request("POST", f"/containers/{container_id}/kill", {"signal": number}).read()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, send) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def carry(connection: socket.socket, rest: bytes, *, terminal: bool, stdin: bool) -> None:
    """Carry a hijacked connection until the daemon ends it; the end of our input ends our half only."""
    decoder = None if terminal else Decoder()
    _show(rest, decoder)
    sources = [connection.fileno(), *([0] if stdin else [])]
    while True:
        try:
            ready, _, _ = select.select(sources, [], [])
        except InterruptedError:
            continue
        if connection.fileno() in ready:
            data = connection.recv(_READ_BYTES)
            if not data:
                return
            _show(data, decoder)
        if 0 in ready:
            typed = os.read(0, _READ_BYTES)
            if typed:
                connection.sendall(typed)
            else:
                sources.remove(0)
                connection.shutdown(socket.SHUT_WR)


def show_frames(data: bytes, decoder: Decoder | None) -> None:
    """Write what a stream brought to standard output and standard error."""
    _show(data, decoder)


def _show(data: bytes, decoder: Decoder | None) -> None:
    pieces = [(1, data)] if decoder is None else decoder.feed(data)
    for stream, piece in pieces:
        target = sys.stderr if stream == 2 else sys.stdout
        target.buffer.write(piece)
        target.buffer.flush()
