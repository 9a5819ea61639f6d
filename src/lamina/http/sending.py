"""Responses on the wire (RFC 9112): status line, fields, and a body that is counted, chunked or ended by closing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from lamina.http.channel import Channel
from lamina.http.message import FileResponse, Response, StreamingResponse

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = (204, 304)


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """Writes the response to one request. ``common`` are the fields of every response, encoded."""

    channel: Channel
    common: bytes
    head_only: bool = False
    can_chunk: bool = True

    async def send(self, response: Response, *, keep_alive: bool) -> None:
        """Send a response whose body is known. Raises ClientGone."""
        if response.status in _BODILESS:
            await self.channel.write(self._head(response, b"", keep_alive=keep_alive))
            return
        head = self._head(response, b"Content-Length: %d\r\n" % len(response.body), keep_alive=keep_alive)
        await self.channel.write(head if self.head_only else head + response.body)

    async def send_file(self, response: FileResponse, *, keep_alive: bool) -> None:
        """Send a part of a file. Raises ClientGone."""
        with response.file as file:
            framing = b"Content-Length: %d\r\n" % response.length
            await self.channel.write(self._head(response, framing, keep_alive=keep_alive))
            if not self.head_only and response.length:
                await self.channel.send_file(file, response.offset, response.length)

    async def send_stream(self, response: StreamingResponse, *, keep_alive: bool) -> None:
        """Send pieces as they are made; cancelled when the client goes. Raises ClientGone, or what making them raises.

        After a failure the caller must cut the connection, so that nobody takes a part for the whole.
        """
        framing = b"Transfer-Encoding: chunked\r\n" if self.can_chunk else b""
        try:
            with self.channel.cancel_when_gone():
                await self.channel.write(self._head(response, framing, keep_alive=keep_alive))
                if not self.head_only:
                    await self._send_items(response)
        finally:
            close = getattr(response.body, "aclose", None)
            if close is not None:
                await close()

    async def _send_items(self, response: StreamingResponse) -> None:
        async for item in response.body:
            if item:  # an empty chunk would end the body
                await self.channel.write(b"%x\r\n%b\r\n" % (len(item), item) if self.can_chunk else item)
        if self.can_chunk:
            await self.channel.write(b"0\r\n\r\n")

    def _head(
        self, response: Response | StreamingResponse | FileResponse, framing: bytes, *, keep_alive: bool
    ) -> bytes:
        content_type = {"Content-Type": response.content_type} if response.content_type else {}
        return b"".join(
            (
                f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, '')}\r\n".encode("ascii"),
                self.common,
                encode_fields(content_type | dict(response.headers)),
                time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime()).encode("ascii"),
                framing,
                b"" if keep_alive else b"Connection: close\r\n",
                b"\r\n",
            )
        )


def encode_fields(fields: Mapping[str, str]) -> bytes:
    """Header fields as they are sent. Raises ValueError for one that would end its line."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header field contains a line break")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
