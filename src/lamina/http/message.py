"""Requests and responses as handlers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qs

import msgspec

from lamina.errors import InvalidArgument
from lamina.http import documents
from lamina.http.body import Body
from lamina.http.channel import Channel
from lamina.http.raw import RawStream

T = TypeVar("T")
_JSON_LIMIT = 4 << 20
_FALSE = ("", "0", "no", "false", "none")


class InvalidRequest(InvalidArgument):
    """A request's parameter or body is malformed."""


@dataclass
class Request:
    """A request. ``path_params`` and ``api_version`` are the router's."""

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: Body
    channel: Channel
    take_over: Callable[[str, Mapping[str, str]], Awaitable[RawStream]]
    path_params: Mapping[str, str] = field(default_factory=dict)
    api_version: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self._query = parse_qs(self.raw_query, keep_blank_values=True)

    @property
    def disconnected(self) -> asyncio.Event:
        """Set when the client has gone."""
        return self.channel.disconnected

    def cancel_when_gone(self) -> AbstractContextManager[None]:
        """Cancel the task that runs this block if the client goes away meanwhile. Raises ClientGone if it has gone already."""
        return self.channel.cancel_when_gone()

    async def hijack(self, content_type: str, fields: Mapping[str, str] = MappingProxyType({})) -> RawStream:
        """Take the connection over: 101 or 200 is sent, then bytes are raw both ways. The handler then returns None.

        *fields* are more of the response's. The rest of the body is skipped. Raises ClientGone.
        """
        await self.body.skip()
        return await self.take_over(content_type, fields)

    def query(self, name: str, default: str = "") -> str:
        """A parameter's first value."""
        values = self._query.get(name)
        return values[0] if values else default

    def query_all(self, name: str) -> list[str]:
        """All values of a parameter."""
        return self._query.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A parameter that is true or false. As with docker, what is not a word for false is true."""
        values = self._query.get(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def integer(self, name: str) -> int | None:
        """A parameter that is a whole number; None if it is missing or empty. Raises InvalidRequest."""
        text = self.query(name)
        if not text:
            return None
        try:
            return documents.integer(text)
        except ValueError:
            raise InvalidRequest(f"invalid value {text!r} for {name}: expected a number") from None

    async def read(self, limit: int = _JSON_LIMIT) -> bytes:
        """The whole body. Raises InvalidRequest if it is longer than *limit*."""
        data = bytearray()
        async for chunk in self.body:
            data += chunk
            if len(data) > limit:
                raise InvalidRequest(f"request body is longer than {limit} bytes")
        return bytes(data)

    async def json(self, kind: type[T], *, limit: int = _JSON_LIMIT) -> T:
        """The body as JSON of a certain form; an empty body is an empty object. Raises InvalidRequest.

        As with docker a body must be declared as JSON: a web page can make a browser send anything else to a daemon on TCP.
        """
        data = await self.read(limit)
        declared = self.headers.get("Content-Type", "")
        if data and declared.partition(";")[0].strip().lower() != "application/json":
            raise InvalidRequest(f"unsupported Content-Type header ({declared}): must be 'application/json'")
        try:
            return documents.decode(data or b"{}", kind)
        except documents.InvalidDocument as error:
            raise InvalidRequest(f"invalid JSON: {error}") from None


@dataclass(frozen=True)
class Response:
    """A response whose whole body is known."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamingResponse:
    """A response whose body is made while it is sent; each item is sent at once. The iterator is closed in the end."""

    body: AsyncIterable[bytes]
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    is_endless: bool = False
    """Whether it ends when something happens, if ever: a server that closes does not wait for it."""


@dataclass(frozen=True)
class FileResponse:
    """A response whose body is a part of a file, which the kernel sends where it can. The file is closed in the end."""

    file: BinaryIO
    offset: int
    length: int
    content_type: str = "application/octet-stream"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(value: Any, status: int = 200) -> Response:
    """A response in JSON."""
    return Response(status, encode_json(value) + b"\n", "application/json")


def encode_json(value: Any) -> bytes:
    """JSON of anything that a route renders."""
    return msgspec.json.encode(value, enc_hook=_encode_text)


def _encode_text(value: object) -> object:
    if isinstance(value, str):
        return str(value)  # a Digest: msgspec does not take a subclass of str for one
    raise NotImplementedError(f"cannot encode {type(value)}")
