"""Signals by name and number, as docker's ``--signal`` and STOPSIGNAL take them (signal(7))."""

from __future__ import annotations

import signal

from lamina.errors import InvalidArgument


class InvalidSignal(InvalidArgument):
    """A text names no signal."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Invalid signal: {text}")
        self.text = text


def signal_number(text: str) -> int:
    """``SIGTERM``, ``TERM``, ``15`` or ``RTMIN+3``. Raises InvalidSignal."""
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdigit():
        return _checked(text, int(name) if len(name) < 4 else 0)
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    try:
        number = int(signal.Signals[f"SIG{base}"])
    except KeyError:
        raise InvalidSignal(text) from None
    if not sign:
        return number
    if base not in ("RTMIN", "RTMAX") or not (offset.isascii() and offset.isdigit() and len(offset) < 3):
        raise InvalidSignal(text)
    return _checked(text, number + (int(offset) if sign == "+" else -int(offset)))


def _checked(text: str, number: int) -> int:
    if not 0 < number <= signal.SIGRTMAX:
        raise InvalidSignal(text)
    return number
