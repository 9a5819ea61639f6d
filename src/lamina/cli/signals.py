"""Signals of this command, passed on to a container."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from lamina.client.client import Client

_ENOUGH = 3
# what no program can catch, what is this process's own business (the terminal's, if it is in the background), and what tells a
# fault of its own
_OWN = frozenset(
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG}
    | {signal.SIGTTIN, signal.SIGTTOU}
    | {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
)


@contextlib.contextmanager
def proxied_signals(client: Client, container_id: str) -> Iterator[None]:
    """Pass every signal on to the container, for the length of the block.

    A container's first process may ignore what asks it to end: the third SIGINT or SIGTERM ends this command, as docker's.
    """
    asked = 0

    def send(number: int, _: object) -> None:
        nonlocal asked
        asked += number in (signal.SIGINT, signal.SIGTERM)
        if asked == _ENOUGH:
            os.write(2, b"\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
            os._exit(1)
        with contextlib.suppress(Exception):
            client.request("POST", f"/containers/{container_id}/kill", {"signal": number}).read()

    before = {number: signal.signal(number, send) for number in signal.valid_signals() - _OWN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
