"""The terminal that this command runs in."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator

from lamina.client.client import Client


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
    tty.setraw(0, termios.TCSANOW)  # what was typed ahead is not thrown away
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


@contextlib.contextmanager
def following_size(client: Client, path: str) -> Iterator[Callable[[], None]]:
    """Tell a container or an exec session, by its path, when the terminal's size changes; yields a function that tells it now."""

    def tell(*_: object) -> None:
        height, width = terminal_size()
        if height:
            with contextlib.suppress(Exception):
                client.request("POST", f"{path}/resize", {"h": height, "w": width}).read()

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield tell
    finally:
        signal.signal(signal.SIGWINCH, before)
