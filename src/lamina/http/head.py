"""The head of a request: method, target and fields, as llhttp reads them.

The parser is shown heads only. It cannot say where in its input a message ended, and a connection that is taken over must not lose
the bytes behind a request; ``body`` therefore reads bodies, and this module finds the end of the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httptools

from lamina.errors import InvalidArgument
from lamina.http.channel import Channel

MAXIMUM_HEAD_BYTES = 256 << 10
MAXIMUM_TARGET_BYTES = 128 << 10
_END = b"\r\n\r\n"


class MalformedRequest(InvalidArgument):
    """What a client sent is no HTTP request, or one that is too large."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed request: {reason}")
        self.reason = reason


class Headers(Mapping[str, str]):
    """Header fields by name in any case; a field sent several times is one value with commas (RFC 9110, 5.2)."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self._fields = {name.lower(): value for name, value in (fields or {}).items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What precedes a body. ``path`` and ``query`` are percent-encoded; ``length`` is None for a chunked body.

    ``upgrade`` is the protocol that the client wants to change to, if it does.
    """

    method: str
    path: str
    query: str
    headers: Headers
    length: int | None
    is_http_1_0: bool
    keep_alive: bool
    upgrade: str | None


async def read_head(channel: Channel) -> RequestHead | None:
    """The head of the next request, or None if the client finished before one began.

    What follows the head stays in the channel. Raises MalformedRequest.
    """
    parser = HeadParser()
    while data := await channel.read():
        rest = parser.feed(data)
        if parser.head is not None:
            channel.unread(rest)
            return parser.head
    if parser.has_begun:
        raise MalformedRequest("the connection ended within the head")
    return None


class HeadParser:
    """Takes bytes in any pieces until ``head`` is there."""

    def __init__(self) -> None:
        self.head: RequestHead | None = None
        self.has_begun = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._seen_bytes = 0
        self._tail = b""
        self._target = b""
        self._fields: dict[str, str] = {}
        self._is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Read as far as the head reaches and return what follows it. Raises MalformedRequest."""
        while data and not self._is_complete:
            window = self._tail + data
            end = window.find(_END)
            own = len(data) if end < 0 else end + len(_END) - len(self._tail)
            self._tail = window[-(len(_END) - 1) :] if end < 0 else b""
            self._parse(data[:own])
            data = data[own:]
        if self._is_complete:
            self.head = self._result()
        return data

    def _parse(self, data: bytes) -> None:
        self._seen_bytes += len(data)
        if self._seen_bytes > MAXIMUM_HEAD_BYTES:
            raise MalformedRequest(f"the head is longer than {MAXIMUM_HEAD_BYTES} bytes")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # should_upgrade says so too
        except httptools.HttpParserError as error:
            raise MalformedRequest(str(error)) from None

    def _result(self) -> RequestHead:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise MalformedRequest(f"HTTP/{version} is not supported")
        if len(self._target) > MAXIMUM_TARGET_BYTES:
            raise MalformedRequest(f"the target is longer than {MAXIMUM_TARGET_BYTES} bytes")
        encoding = self._fields.get("transfer-encoding")
        if encoding is not None and encoding.lower() != "chunked":
            raise MalformedRequest(f"transfer encoding {encoding!r} is not supported")
        path, query = _split_target(self._target)
        return RequestHead(
            method=self._parser.get_method().decode("ascii"),
            path=path,
            query=query,
            headers=Headers(self._fields),
            length=None if encoding else int(self._fields.get("content-length", "0")),
            is_http_1_0=version == "1.0",
            keep_alive=version == "1.1" and "close" not in self._connection_options(),
            upgrade=self._fields.get("upgrade") if self._parser.should_upgrade() else None,
        )

    def _connection_options(self) -> set[str]:
        return {option.strip().lower() for option in self._fields.get("connection", "").split(",")}

    # httptools' side

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        self.has_begun = True

    def on_url(self, url: bytes) -> None:
        """httptools: a piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one field."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._fields[key] = f"{self._fields[key]}, {text}" if key in self._fields else text

    def on_headers_complete(self) -> None:
        """httptools: the head is complete."""
        self._is_complete = True


def _split_target(target: bytes) -> tuple[str, str]:
    if not target.startswith(b"/"):
        try:
            url = httptools.parse_url(target)  # the form of the target that proxies are sent: http://host/path
        except httptools.HttpParserInvalidURLError:
            raise MalformedRequest("the target is no path") from None
        target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path.decode("latin-1"), query.decode("latin-1")
