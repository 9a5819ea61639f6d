"""Lines of a log, put together from the records that conmon writes: one for each piece that it read from the process.

conmon's ``k8s-file`` driver writes a line a record::

    2026-11-23T10:00:00.123456789+00:00 stdout F text of the line
    2026-11-23T10:00:01.000000000+00:00 stdout P part of a longer line

``P`` marks a piece whose line goes on in the next record of the same stream. What comes out is byte for byte what went in, but in whole
lines, as docker's log has them: each has the time at which it ended, and no other stream comes in between. A line is cut where docker
cuts it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

STREAMS = {b"stdout": 1, b"stderr": 2}
_LONGEST = 16 << 10
"""Bytes of a line that docker holds back for its end (daemon/logger/copier.go, defaultBufSize)."""


@dataclass(frozen=True)
class LogLine:
    """A line, with its newline if it has ended; ``stream`` is 1 for stdout and 2 for stderr."""

    stream: int
    time: str
    text: bytes
    goes_on: bool = False
    """Whether its beginning was given out before, by ``LineJoiner.flush``."""


def parse_record(raw: bytes) -> LogLine | None:
    """Read one record; None for one that conmon was killed while writing."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in STREAMS:
        return None
    text = parts[3] + b"\n" if parts[2] == b"F" else parts[3]
    return LogLine(STREAMS[parts[1]], _in_utc(parts[0].decode("ascii", "replace")), text)


class LineJoiner:
    """Takes the pieces of all streams in their order, and gives out lines in the order of their ends."""

    def __init__(self) -> None:
        self._unfinished: dict[int, LogLine] = {}
        self._begun: set[int] = set()

    def add(self, piece: LogLine) -> list[LogLine]:
        """The lines that end with a piece: one, none, or several if it is long."""
        before = self._unfinished.pop(piece.stream, None)
        line = piece if before is None else replace(piece, text=before.text + piece.text)
        if piece.stream in self._begun:
            line = replace(line, goes_on=True)
        ended = []
        while len(line.text) > _LONGEST:
            ended.append(replace(line, text=line.text[:_LONGEST]))
            line = replace(line, text=line.text[_LONGEST:], goes_on=False)
        if line.text.endswith(b"\n"):
            self._begun.discard(line.stream)
            return [*ended, line]
        if line.text:
            self._unfinished[line.stream] = line
        return ended

    def flush(self) -> list[LogLine]:
        """What there is of lines that have not ended."""
        lines = list(self._unfinished.values())
        self._unfinished.clear()
        self._begun.update(line.stream for line in lines)
        return lines


def _in_utc(text: str) -> str:
    return text[:-6] + "Z" if text.endswith("+00:00") else text
