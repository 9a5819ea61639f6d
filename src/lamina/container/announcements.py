"""What happens to containers, told to those who asked to hear of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lamina.container.record import Record

Listener = Callable[[str, Record, Mapping[str, str]], None]
"""(what happened, to which container, with what attributes)"""


class Announcements:
    """One place for all listeners, so that the containers' life need not know any of them."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Tell *listener* of all that happens from now on, behind those who came before it."""
        self._listeners.append(listener)

    def __call__(self, action: str, record: Record, attributes: Mapping[str, str]) -> None:
        for listener in self._listeners:
            listener(action, record, attributes)
