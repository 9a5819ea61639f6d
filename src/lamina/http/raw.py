"""A connection that a handler has taken over (*hijacked*): raw bytes both ways behind the head of the response.

Engine API, "Attach to a container", "Hijacking". Clients that ask for an upgrade get 101, others, as in the protocol's first
version, 200; neither has HTTP's framing behind it.
"""

from __future__ import annotations

import asyncio

from lamina.http.channel import Channel


class RawStream:
    """Two byte streams. The client's half close ends ``read``; writing goes on until ``close``."""

    def __init__(self, channel: Channel) -> None:
        channel.expect_half_close()
        self._channel = channel

    @property
    def disconnected(self) -> asyncio.Event:
        """Set when the client has gone, and not when it has only finished writing."""
        return self._channel.disconnected

    async def read(self) -> bytes:
        """The next bytes; empty at the client's end of input."""
        return await self._channel.read()

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the client is behind. Raises ClientGone."""
        await self._channel.write(data)

    def write_eof(self) -> None:
        """Finish writing once all is sent; reading goes on."""
        self._channel.write_eof()

    async def finish(self) -> None:
        """Nothing: the end of the bytes is all there is to say."""

    def close(self) -> None:
        """Finish writing. The connection closes when its handler returns, after all was sent."""
        self._channel.write_eof()


def opening(upgrade: str | None) -> bytes:
    """The first lines of the response that begins a raw stream; *upgrade* is the protocol that the client asked for."""
    if upgrade is None:
        return b"HTTP/1.1 200 OK\r\n"
    return f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n".encode("latin-1")
