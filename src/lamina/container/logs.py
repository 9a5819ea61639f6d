"""Logs: what a container said, read from the file that conmon writes.

conmon's ``k8s-file`` driver writes a line a record::

    2026-11-23T10:00:00.123456789+00:00 stdout F text of the line
    2026-11-23T10:00:01.000000000+00:00 stdout P part of a longer line

``P`` marks a piece whose line goes on in the next record of the same stream. A piece is given out as it is, without a newline, so that
what comes out is byte for byte what went in.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.container.times import parse_rfc3339

_BLOCK = 64 << 10
STREAMS = {b"stdout": 1, b"stderr": 2}


@dataclass(frozen=True)
class LogQuery:
    """Which lines to give. Times are Unix nanoseconds; ``tail`` counts lines, None for all."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int | None = None
    until_ns: int | None = None
    tail: int | None = None
    follow: bool = False


@dataclass(frozen=True)
class LogLine:
    """A line, or a piece of one, with its newline if it ended there; ``stream`` is 1 for stdout and 2 for stderr."""

    stream: int
    time: str
    text: bytes


async def read_logs(path: Path, query: LogQuery, next_change: Callable[[], Awaitable[bool]]) -> AsyncIterator[LogLine]:
    """Yield the lines that match. With ``follow``, wait for more by *next_change*, which returns False when no more can come.

    A container that never ran has no file, and no lines.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115, ASYNC230 - closed by the with below; a local file
    except FileNotFoundError:
        return
    with file:
        if query.tail is not None:
            file.seek(_tail_offset(file.fileno(), query))
        rest = b""
        while True:
            more = not query.follow or await _is_last(file.fileno(), file.tell(), next_change)
            while block := file.read(_BLOCK):
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                for raw in lines:
                    line = parse_line(raw)
                    if line is None or not _matches(line, query):
                        continue
                    if query.until_ns is not None and parse_rfc3339(line.time) > query.until_ns:
                        return
                    yield line
            if more:
                return


async def _is_last(fd: int, offset: int, next_change: Callable[[], Awaitable[bool]]) -> bool:
    """Whether what the file holds now is all there will be; waits while there is nothing new."""
    if os.fstat(fd).st_size > offset:
        return False
    return not await next_change()


def parse_line(raw: bytes) -> LogLine | None:
    """Read one record; None for one that conmon was killed while writing."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in STREAMS:
        return None
    text = parts[3] + b"\n" if parts[2] == b"F" else parts[3]
    return LogLine(STREAMS[parts[1]], _in_utc(parts[0].decode("ascii", "replace")), text)


def _in_utc(text: str) -> str:
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def _matches(line: LogLine, query: LogQuery) -> bool:
    if not (query.stdout if line.stream == 1 else query.stderr):
        return False
    return query.since_ns is None or parse_rfc3339(line.time) >= query.since_ns


def _tail_offset(fd: int, query: LogQuery) -> int:
    """Where the last ``tail`` lines of the wanted streams begin: read backwards in blocks, never the whole file."""
    wanted = query.tail or 0
    end = os.fstat(fd).st_size
    if wanted <= 0:
        return end
    found = 0
    for offset, raw in _lines_backwards(fd, end):
        line = parse_line(raw)
        if line is None or not _matches(line, query):
            continue
        if line.text.endswith(b"\n"):
            found += 1
            if found > wanted:
                return offset + len(raw) + 1
        elif found == 0:
            found = 1  # an unfinished line at the end counts as one
    return 0


def _lines_backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines before *end*, the last one first, each with its offset and without its newline."""
    held = b""
    start = end
    while start > 0:
        size = min(_BLOCK, start)
        start -= size
        held = os.pread(fd, size, start) + held
        stop = len(held)
        while (newline := held.rfind(b"\n", 0, stop - 1)) >= 0:
            yield start + newline + 1, held[newline + 1 : stop].rstrip(b"\n")
            stop = newline + 1
        held = held[:stop]
    if held:
        yield 0, held.rstrip(b"\n")
