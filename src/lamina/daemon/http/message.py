"""Requests and responses as handlers see them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from lamina.errors import InvalidArgument

if TYPE_CHECKING:
    from lamina.daemon.http.connection import RawStream

T = TypeVar("T")
_HIGH_WATER = 2 << 20
_LOW_WATER = 512 << 10
_JSON_LIMIT = 4 << 20
_TRUE = ("1", "true", "t", "yes", "y", "on")


class InvalidRequest(InvalidArgument):
    """A request's parameter or body is malformed."""


class Body:
    """A request's body as it arrives; the sender is held back while nobody reads."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None
        self._arrival = asyncio.Event()
        self._pause = pause
        self._resume = resume
        self._paused = False
        self.on_first_read: Callable[[], None] | None = None

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._chunks.append(data)
        self._size += len(data)
        self._arrival.set()
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()

    def end(self, failure: Exception | None = None) -> None:
        """Nothing more will arrive."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._arrival.set()

    @property
    def is_complete(self) -> bool:
        """Whether all has arrived."""
        return self._ended and self._failure is None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.on_first_read is not None:
            self.on_first_read()
            self.on_first_read = None
        while True:
            while not self._chunks:
                if self._ended:
                    if self._failure is not None:
                        raise self._failure
                    return
                self._arrival.clear()
                await self._arrival.wait()
            # one larger piece is cheaper to pass on than many small ones
            data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            if self._paused and self._size <= _LOW_WATER:
                self._paused = False
                self._resume()
            yield data


@dataclass
class Request:
    """A request. ``path_params`` and ``api_version`` are the router's; ``disconnected`` is set when the client has gone."""

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: Body
    hijack: Callable[[str], Awaitable[RawStream]]
    keep_alive: bool = True
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    path_params: Mapping[str, str] = field(default_factory=dict)
    api_version: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self._query = parse_qs(self.raw_query, keep_blank_values=True)

    def query(self, name: str, default: str = "") -> str:
        """A parameter's first value."""
        values = self._query.get(name)
        return values[0] if values else default

    def query_all(self, name: str) -> list[str]:
        """All values of a parameter."""
        return self._query.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A parameter that is true or false; docker's clients write 1, true, 0, false and nothing."""
        values = self._query.get(name)
        return values[0].strip().lower() in _TRUE if values else default

    def integer(self, name: str) -> int | None:
        """A parameter that is a whole number; None if it is missing or empty. Raises InvalidRequest."""
        text = self.query(name)
        if not text:
            return None
        try:
            return int(text)
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

    async def json(self, kind: type[T]) -> T:
        """The body as JSON of a certain form; an empty body is an empty object. Raises InvalidRequest."""
        data = await self.read()
        try:
            return msgspec.json.decode(data or b"{}", type=kind)
        except msgspec.DecodeError as error:
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
    """A response whose body is made while it is sent; each item is sent at once."""

    body: AsyncIterator[bytes]
    content_type: str = "application/json"
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
