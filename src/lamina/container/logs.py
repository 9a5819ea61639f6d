"""Logs: what a container said, read from the files that conmon writes.

A log may have gigabytes. It is read and parsed a block at a time, in threads, and from near where the wanted lines begin: the end of
the file for the last lines, and by bisection for those since a time, since records are in the order of their times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from lamina.container.log_files import LogReader
from lamina.container.log_lines import LineJoiner, LogLine, parse_record
from lamina.container.times import InvalidTime, parse_rfc3339

_BLOCK = 256 << 10


@dataclass(frozen=True)
class LogQuery:
    """Which lines to give. Times are Unix nanoseconds; ``tail`` counts lines, None for all."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int | None = None
    until_ns: int | None = None
    tail: int | None = None
    follow: bool = False


async def read_logs(
    log: LogReader, query: LogQuery, next_change: Callable[[], Awaitable[bool]]
) -> AsyncIterator[LogLine]:
    """Yield the lines that match. With ``follow``, wait for more by *next_change*, which returns False when no more can come."""
    offset, joiner = await asyncio.to_thread(_start, log, query)
    seen = -1
    while True:
        is_last = not query.follow or await _is_last(log, seen, next_change)
        seen = log.size
        while True:
            lines, size, is_over = await asyncio.to_thread(_read_lines, log, offset, query, joiner)
            for line in lines:
                yield line
            if is_over:
                return
            if not size:
                break
            offset += size
        for line in joiner.flush():
            if _matches(line, query):
                yield line
        if is_last:
            return


def _read_lines(log: LogReader, offset: int, query: LogQuery, joiner: LineJoiner) -> tuple[list[LogLine], int, bool]:
    """The lines that match and end in the block at *offset*, how many bytes this has, and whether no more can match."""
    block = _whole_lines(log, offset)
    matching: list[LogLine] = []
    for line in _join(block, joiner):
        if not _matches(line, query):
            continue
        if query.until_ns is not None and _time_ns(line) > query.until_ns:
            return matching, len(block), True
        matching.append(line)
    return matching, len(block), False


def _join(block: bytes, joiner: LineJoiner) -> Iterator[LogLine]:
    for raw in block.split(b"\n")[:-1]:
        piece = parse_record(raw)
        if piece is not None:
            yield from joiner.add(piece)


def _whole_lines(log: LogReader, offset: int) -> bytes:
    """Bytes from *offset* up to a newline, as many as a block holds, or one line if that is longer; none if there is no newline."""
    block = log.read(_BLOCK, offset)
    while b"\n" not in block:
        more = log.read(_BLOCK, offset + len(block))
        if not more:
            return b""
        block += more
    return block[: block.rfind(b"\n") + 1]


def _start(log: LogReader, query: LogQuery) -> tuple[int, LineJoiner]:
    """Where to begin, with the pieces before it of lines that end behind it; a piece that lies a block before it is not looked for."""
    offset = _start_offset(log, query)
    joiner = LineJoiner()
    before = log.read(min(_BLOCK, offset), max(0, offset - _BLOCK))
    for _ in _join(before if offset <= _BLOCK else before[before.find(b"\n") + 1 :], joiner):
        pass
    return offset, joiner


def _start_offset(log: LogReader, query: LogQuery) -> int:
    """Where to begin, so that no line that matches lies before it, and with ``tail`` exactly where it is to begin."""
    if query.tail is not None:
        return _tail_offset(log, query)
    return 0 if query.since_ns is None else _since_offset(log, query.since_ns)


def _since_offset(log: LogReader, since_ns: int) -> int:
    """The beginning of some line at or shortly before the first that is not older than *since_ns*."""
    low, high = 0, log.size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        begin = middle + len(_line_at(log, middle))
        line = parse_record(_line_at(log, begin).rstrip(b"\n"))
        if line is None or _time_ns(line) >= since_ns:
            high = middle
        else:
            low = begin
    return low


def _line_at(log: LogReader, offset: int) -> bytes:
    """Bytes from *offset* to the end of the line that it lies in."""
    block = _whole_lines(log, offset)
    return block[: block.find(b"\n") + 1]


async def _is_last(log: LogReader, seen: int, next_change: Callable[[], Awaitable[bool]]) -> bool:
    """Whether the *seen* first bytes are all that the file will hold; waits while there are no more."""
    if log.size > seen:
        return False
    return not await next_change()


def _time_ns(line: LogLine) -> int:
    """When a line was written; one whose time is damaged, as a full disk may leave it, counts as the oldest."""
    try:
        return parse_rfc3339(line.time)
    except InvalidTime:
        return 0


def _matches(line: LogLine, query: LogQuery) -> bool:
    if not (query.stdout if line.stream == 1 else query.stderr):
        return False
    return query.since_ns is None or _time_ns(line) >= query.since_ns


def _tail_offset(log: LogReader, query: LogQuery) -> int:
    """Where the last ``tail`` lines of the wanted streams begin: read backwards in blocks, never the whole file."""
    wanted = query.tail or 0
    end = log.size
    if wanted <= 0:
        return end
    found = 0
    for offset, raw in _lines_backwards(log, end):
        line = parse_record(raw)
        if line is None or not _matches(line, query):
            continue
        if line.text.endswith(b"\n"):
            found += 1
            if found > wanted:
                return offset + len(raw) + 1
        elif found == 0:
            found = 1  # an unfinished line at the end counts as one
    return 0


def _lines_backwards(log: LogReader, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines before *end*, the last one first, each with its offset and without its newline."""
    held = b""
    start = end
    while start > 0:
        size = min(_BLOCK, start)
        start -= size
        held = log.read(size, start) + held
        stop = len(held)
        while (newline := held.rfind(b"\n", 0, stop - 1)) >= 0:
            yield start + newline + 1, held[newline + 1 : stop].rstrip(b"\n")
            stop = newline + 1
        held = held[:stop]
    if held:
        yield 0, held.rstrip(b"\n")
