"""The last events on disk, so that a daemon tells of what happened before it was started.

Two files of JSON lines: one that is appended to, and the one before it, which goes when the first is full. Nothing is synced: a power
failure may take the last events, and half a line is passed over. Every line begins with its newline, so that it does not become part
of such a half.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lamina.engine.events import Event

_FULL_BYTES = 2 << 20
_MODE = 0o600
_encoder = msgspec.json.Encoder(enc_hook=str)  # digests
_decoder = msgspec.json.Decoder(Event)


class EventJournal:
    """The files of one state root. All methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")

    def read(self) -> Iterator[Event]:
        """All events that are there, the oldest first."""
        for path in (self._older, self._path):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError:
                continue
            for line in lines:
                try:
                    yield _decoder.decode(line)
                except msgspec.DecodeError:
                    continue

    def append(self, events: Sequence[Event]) -> None:
        """Add events. Raises OSError."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        with open(fd, "ab") as file:
            file.write(b"".join(b"\n" + _encoder.encode(event) for event in events))
            is_full = file.tell() > _FULL_BYTES
        if is_full:
            self._path.rename(self._older)
