"""This command's streams joined to a container's, from the attachment to the exit code: what ``run``, ``start -a`` and ``attach`` share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

from lamina.cli.streams import carry
from lamina.client.client import Client
from lamina.container.detach import DetachKeys


class Joining(NamedTuple):
    """How to join: *streams* are some of stdin, stdout and stderr; *condition* is what the exit code is waited for by."""

    container_id: str
    streams: tuple[str, ...]
    terminal: bool
    detach_keys: str | None
    passes_signals: bool
    condition: str


def join(client: Client, joining: Joining, begin: Callable[[], object] | None = None) -> int | None:
    """Carry the container's streams until it ends; returns its exit code, None if the user detached.

    *begin* starts the container once the streams are joined, so that nothing it says is lost. Raises what *begin* raises.
    """
    path = f"/containers/{joining.container_id}"
    query = {"stream": True, "detachKeys": joining.detach_keys, **dict.fromkeys(joining.streams, True)}
    connection, rest = client.hijack(f"{path}/attach", query)
    waiting = client.request("POST", f"{path}/wait", {"condition": joining.condition})
    stdin = "stdin" in joining.streams
    keys = DetachKeys(joining.detach_keys) if joining.terminal and stdin else None
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        if begin is not None:
            begin()
        _prepare(stack, client, joining, typed=keys is not None)
        if carry(connection, rest, terminal=joining.terminal, stdin=stdin, keys=keys):
            return None
        return int(waiting.json()["StatusCode"])


def _prepare(stack: contextlib.ExitStack, client: Client, joining: Joining, *, typed: bool) -> None:
    """Make the terminal the container's, or the signals, until the stack unwinds."""
    if joining.terminal:
        from lamina.cli.terminal import following_size, raw_terminal

        stack.enter_context(following_size(client, f"/containers/{joining.container_id}"))()
        if typed and os.isatty(0):
            stack.enter_context(raw_terminal())
    elif joining.passes_signals:
        from lamina.cli.signals import proxied_signals

        stack.enter_context(proxied_signals(client, joining.container_id))
