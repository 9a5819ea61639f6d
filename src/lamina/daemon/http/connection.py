"""One client's connection: requests are parsed as bytes arrive and answered one after another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import httptools

from lamina.daemon.http.message import Body, InvalidRequest, Request, Response, StreamingResponse, json_response

_log = logging.getLogger(__name__)
_MAXIMUM_HEAD = 256 << 10
_RAW_HIGH_WATER = 1 << 20

Handler = Callable[[Request], Awaitable[Response | StreamingResponse | None]]
"""Answers a request; None if it took the connection over."""


class ClientGone(Exception):
    """The client closed the connection before all was sent or received."""


class Connection(asyncio.Protocol):
    """The server's side of a connection."""

    def __init__(self, handler: Handler, headers: bytes, connections: set[Connection]) -> None:
        self._handler = handler
        self._common_headers = headers
        self._connections = connections
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: asyncio.Queue[Request] = asyncio.Queue()
        self._request: Request | None = None
        self._body: Body | None = None
        self._raw: RawStream | None = None
        self._url = b""
        self._head: dict[str, str] = {}
        self._head_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self._broken = False
        self.is_idle = True
        self.closing = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._task = asyncio.ensure_future(self._serve())

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        if self._raw is not None:
            self._raw.feed(data)
            return
        if self._broken:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._raw = RawStream(self, self._transport)
            rest = data[upgrade.args[0] :]
            if rest:
                self._raw.feed(rest)
        except httptools.HttpParserError as error:
            self._refuse(f"malformed request: {error}")

    def eof_received(self) -> bool:
        """asyncio: the client closed its writing half. True keeps ours."""
        if self._raw is not None:
            self._raw.feed_eof()
            return True
        if self._body is not None and not self._body.is_complete:
            self._body.end(ClientGone("the request was cut short"))
        if self._request is not None:
            self._request.disconnected.set()
        return self._request is not None or not self._waiting.empty()

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._lost = True
        self._connections.discard(self)
        self._writable.set()
        if self._body is not None:
            self._body.end(ClientGone("the connection was lost"))
        if self._request is not None:
            self._request.disconnected.set()
        if self._raw is not None:
            self._raw.feed_eof()
        elif self._task is not None and self._request is None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """asyncio: the client is behind."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: the client has caught up."""
        self._writable.set()

    # httptools' side

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        self._url = b""
        self._head = {}
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """httptools: a piece of the target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self._head[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """httptools: the head is complete."""
        if self._broken:
            return
        path, _, query = self._url.partition(b"?")
        body = Body(self._transport.pause_reading, self._resume_reading)
        if self._head.get("expect", "").lower() == "100-continue":
            body.on_first_read = lambda: self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body = body
        method = self._parser.get_method().decode("ascii")
        request = Request(
            method,
            path.decode("latin-1"),
            query.decode("latin-1"),
            self._head,
            body,
            self._take_over,
            keep_alive=self._parser.should_keep_alive(),
        )
        self._waiting.put_nowait(request)

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        """httptools: the request is complete."""
        if self._body is not None:
            self._body.end()

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MAXIMUM_HEAD and not self._broken:
            self._refuse("request head is too large")

    def _refuse(self, reason: str) -> None:
        """Answer what is no request, and close."""
        self._broken = True
        if self._body is not None:
            self._body.end(InvalidRequest(reason))
        if self._request is None and self._waiting.empty():
            self._send(json_response({"message": reason}, 400), keep_alive=False)
            self._transport.close()

    def _resume_reading(self) -> None:
        if not self._lost:
            self._transport.resume_reading()

    # answering

    async def _serve(self) -> None:
        while not self._lost:
            self.is_idle = self._waiting.empty()
            if self.is_idle and self.closing:
                break
            request = await self._waiting.get()
            self.is_idle = False
            self._request = request
            try:
                keep = await self._answer(request)
            except (ClientGone, ConnectionError):
                keep = False
            except Exception:
                _log.exception("%s %s", request.method, request.path)
                keep = False
            finally:
                self._request = None
            if not keep:
                break
        if self._raw is None or not self._raw.taken:
            self._transport.close()

    async def _answer(self, request: Request) -> bool:
        response = await self._handler(request)
        if response is None:
            return False
        keep = request.keep_alive and self._raw is None and not self._broken
        if isinstance(response, StreamingResponse):
            await self._send_stream(response, keep_alive=keep)
        else:
            self._send(response, keep_alive=keep, head_only=request.method == "HEAD")
            await self._drain()
        if not request.body.is_complete:
            # the rest of a body that the handler did not want would be taken for the next request
            return False
        return keep

    def _head_of(self, response: Response | StreamingResponse, extra: bytes, *, keep_alive: bool) -> bytes:
        phrase = HTTPStatus(response.status).phrase.encode()
        lines = [b"HTTP/1.1 %d %s\r\n" % (response.status, phrase), self._common_headers]
        if response.content_type:
            lines.append(b"Content-Type: %s\r\n" % response.content_type.encode())
        lines += [b"%s: %s\r\n" % (k.encode(), v.encode()) for k, v in response.headers.items()]
        lines.append(extra if keep_alive else extra + b"Connection: close\r\n")
        return b"".join(lines) + b"\r\n"

    def _send(self, response: Response, *, keep_alive: bool, head_only: bool = False) -> None:
        bodiless = response.status in (204, 304) or response.status < 200
        length = b"" if bodiless else b"Content-Length: %d\r\n" % len(response.body)
        head = self._head_of(response, length, keep_alive=keep_alive)
        self._transport.write(head if bodiless or head_only else head + response.body)

    async def _send_stream(self, response: StreamingResponse, *, keep_alive: bool) -> None:
        """Send pieces as they are made. If making them fails, the connection is cut, so that nobody takes a part for the whole."""
        self._transport.write(self._head_of(response, b"Transfer-Encoding: chunked\r\n", keep_alive=keep_alive))
        try:
            async for item in response.body:
                if item:
                    self._transport.write(b"%x\r\n" % len(item) + item + b"\r\n")
                    await self._drain()
                if self._lost:
                    raise ClientGone("the client closed the connection")
        except BaseException:
            self._transport.abort()
            raise
        finally:
            aclose = getattr(response.body, "aclose", None)
            if aclose is not None:
                with suppress(Exception):
                    await aclose()
        self._transport.write(b"0\r\n\r\n")
        await self._drain()

    async def _drain(self) -> None:
        await self._writable.wait()
        if self._lost:
            raise ClientGone("the client closed the connection")

    async def _take_over(self, content_type: str) -> RawStream:
        """Hand the connection to a handler: raw bytes both ways from here on."""
        request = self._request
        assert request is not None
        if self._raw is None:
            self._raw = RawStream(self, self._transport)
        self._raw.taken = True
        kind = content_type.encode()
        if request.headers.get("upgrade"):
            start = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" % kind
        else:
            start = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" % kind
        self._transport.write(start + self._common_headers + b"\r\n")
        return self._raw

    # the raw stream's side

    async def write_raw(self, data: bytes) -> None:
        """Send raw bytes, waiting while the client is behind. Raises ClientGone."""
        if self._lost:
            raise ClientGone("the client closed the connection")
        self._transport.write(data)
        await self._drain()

    @property
    def finished(self) -> asyncio.Task[None] | None:
        """The task that answers this connection's requests."""
        return self._task

    def cancel(self) -> None:
        """End what this connection is doing."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    def close_when_idle(self) -> None:
        """Close now if no request is being answered, else after the answer."""
        self.closing = True
        if self.is_idle:
            self._transport.close()


class RawStream:
    """A hijacked connection. The client's half close ends ``read``; writing goes on until ``close``."""

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._data = bytearray()
        self._eof = False
        self._arrival = asyncio.Event()
        self.taken = False

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._data += data
        self._arrival.set()
        if len(self._data) > _RAW_HIGH_WATER:
            self._transport.pause_reading()

    def feed_eof(self) -> None:
        """The client will send no more."""
        self._eof = True
        self._arrival.set()

    async def read(self) -> bytes:
        """The next bytes; empty at the client's end."""
        while not self._data:
            if self._eof:
                return b""
            self._arrival.clear()
            await self._arrival.wait()
        data = bytes(self._data)
        self._data.clear()
        if not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises ClientGone."""
        await self._connection.write_raw(data)

    def close(self) -> None:
        """Send what is left and close."""
        self._transport.close()
