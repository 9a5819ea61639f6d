"""The body of a request: how its end is found, and how it is read without being held.

A body is counted (``Content-Length``) or chunked (RFC 9112, 7.1). Both framings take bytes as they came from the socket and say which
of them are the body's and which lie behind it; neither keeps more than an unfinished line.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Protocol

from lamina.http.channel import Channel, ClientGone
from lamina.http.head import MalformedRequest

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MAXIMUM_LINE_BYTES = 4096
_MAXIMUM_TRAILER_BYTES = 16 << 10
_SMALL_REST_BYTES = 64 << 10
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Framing(Protocol):
    """Finds the end of a body."""

    @property
    def is_finished(self) -> bool:
        """Whether the body has ended."""

    @property
    def is_nearly_finished(self) -> bool:
        """Whether so little is missing that reading it costs less than a new connection."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Divide bytes into what is the body's and what lies behind it. Raises MalformedRequest."""


class CountedFraming:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_finished(self) -> bool:
        """Whether the body has ended."""
        return self._left == 0

    @property
    def is_nearly_finished(self) -> bool:
        """Whether little is missing."""
        return self._left <= _SMALL_REST_BYTES

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Divide bytes into what is the body's and what lies behind it."""
        if len(data) <= self._left:
            self._left -= len(data)
            return data, b""
        end, self._left = self._left, 0
        return data[:end], data[end:]


class ChunkedFraming:
    """A body in chunks: a line with a chunk's size in hexadecimal, the chunk, an empty line; after the chunk of size 0 the trailer."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        self._is_behind_chunk = False
        self._is_in_trailer = False
        self._trailer_bytes = 0
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        """Whether the body has ended."""
        return self._is_finished

    @property
    def is_nearly_finished(self) -> bool:
        """Whether little is missing, which chunks do not tell."""
        return self._is_finished

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Divide bytes into what is the body's and what lies behind it. Raises MalformedRequest."""
        if self._line:
            data, self._line = self._line + data, b""
        view = memoryview(data)
        pieces: list[memoryview] = []
        position = 0
        while position < len(data) and not self._is_finished:
            if self._left:
                piece = view[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                continue
            end = data.find(b"\r\n", position, position + _MAXIMUM_LINE_BYTES)
            if end < 0:
                self._keep_line(data[position:])
                position = len(data)
            else:
                self._read_line(data[position:end])
                position = end + 2
        return b"".join(pieces), data[position:]

    def _keep_line(self, line: bytes) -> None:
        if len(line) >= _MAXIMUM_LINE_BYTES:
            raise MalformedRequest("a line of the chunked body is too long")
        if self._is_behind_chunk and line != b"\r":
            raise MalformedRequest("a chunk is longer than its size says")
        self._line = line

    def _read_line(self, line: bytes) -> None:
        if self._is_behind_chunk:
            if line:
                raise MalformedRequest("a chunk is longer than its size says")
            self._is_behind_chunk = False
        elif self._is_in_trailer:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAXIMUM_TRAILER_BYTES:
                raise MalformedRequest("the trailer of the chunked body is too long")
            self._is_finished = not line
        else:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise MalformedRequest("a chunk has no valid size")
            self._left = int(match.group(1), 16)
            self._is_behind_chunk = self._left > 0
            self._is_in_trailer = self._left == 0


class Body:
    """A request's body as it arrives; while nobody reads, the client is held back."""

    def __init__(self, channel: Channel, framing: Framing, *, expects_continue: bool = False) -> None:
        self._channel = channel
        self._framing = framing
        self._expects_continue = expects_continue and not framing.is_finished

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The rest of the body in pieces of any size.

        Raises MalformedRequest if the framing is broken, ClientGone if the client ended before the body did.
        """
        if self._expects_continue:
            self._expects_continue = False
            await self._channel.write(_CONTINUE)
        while not self._framing.is_finished:
            data = await self._channel.read()
            if not data:
                raise ClientGone("the client closed the connection within the request's body")
            piece = self._divide(data)
            if piece:
                yield piece

    async def skip(self) -> None:
        """Read the rest and drop it. Raises as reading does."""
        async for _ in self:
            pass

    def is_cheap_to_skip(self) -> bool:
        """Whether the connection can wait for the rest, to serve the next request; drops what has arrived of it."""
        if self._expects_continue:
            return False  # the client may send the body or not
        try:
            while not self._framing.is_finished and (data := self._channel.take()):
                self._divide(data)
        except MalformedRequest:
            return False
        return self._framing.is_nearly_finished

    def _divide(self, data: bytes) -> bytes:
        piece, rest = self._framing.feed(data)
        self._channel.unread(rest)
        return piece
