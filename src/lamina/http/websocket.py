"""A hijacked connection whose bytes travel in WebSocket messages (RFC 6455), for clients in browsers and for docker-py.

The frames are wsproto's; the opening, which is three fields of a response, is here (section 4.2.2).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import deque
from contextlib import suppress

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping
from wsproto.utilities import LocalProtocolError

from lamina.http.channel import ClientGone
from lamina.http.message import InvalidRequest, Request
from lamina.http.raw import RawStream

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def accept_websocket(request: Request) -> WebSocketStream:
    """Take a connection over as a WebSocket. Raises InvalidRequest if the client asks for none, or ClientGone."""
    key = request.headers.get("Sec-WebSocket-Key", "")
    if not key or request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidRequest("this endpoint speaks WebSocket: Upgrade: websocket and Sec-WebSocket-Key are missing")
    # what RFC 6455 asks for: the client sees that it speaks to a server that knows the protocol, which is no secret
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    raw = await request.hijack("", {"Sec-WebSocket-Accept": base64.b64encode(digest).decode("ascii")})
    return WebSocketStream(raw)


class WebSocketStream:
    """Two byte streams, as a RawStream is; where one message ends and the next begins means nothing."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self._connection = Connection(ConnectionType.SERVER)
        self._events: deque[Event] = deque()

    @property
    def disconnected(self) -> asyncio.Event:
        """Set when the client has gone."""
        return self._raw.disconnected

    async def read(self) -> bytes:
        """The bytes of the next message; empty when the client has closed its side."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Message) and event.data:
                    return event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                if isinstance(event, Ping):
                    await self._raw.write(self._connection.send(event.response()))
                if isinstance(event, CloseConnection):
                    with suppress(LocalProtocolError):
                        await self._raw.write(self._connection.send(event.response()))
                    return b""
            data = await self._raw.read()
            if not data:
                return b""
            self._connection.receive_data(data)
            self._events.extend(self._connection.events())

    async def write(self, data: bytes) -> None:
        """Send bytes as one message, waiting while the client is behind. Raises ClientGone."""
        try:
            frame = self._connection.send(BytesMessage(data=data))
        except LocalProtocolError:
            raise ClientGone("the client closed the connection") from None
        await self._raw.write(frame)

    async def finish(self) -> None:
        """Tell the client that nothing more comes."""
        with suppress(LocalProtocolError, ClientGone):
            await self._raw.write(self._connection.send(CloseConnection(code=1000)))

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
