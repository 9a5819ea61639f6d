"""Requests to the daemon: one connection each, on httptools' parser.

Start-up counts here, so that nothing is imported that a short command does not need.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import httptools

from lamina.api.errors import error_from
from lamina.api.versions import CURRENT
from lamina.client.address import DaemonUnreachable, InvalidHost, connect
from lamina.errors import LaminaError, Unavailable

if TYPE_CHECKING:
    from lamina.client.tls import TlsSettings

_READ_BYTES = 256 << 10

Query = Mapping[str, object]


class ConnectionCut(Unavailable):
    """The daemon closed the connection in the middle of an answer."""

    def __init__(self) -> None:
        super().__init__("the daemon closed the connection before its answer was complete")


class NotHTTP(Unavailable):
    """What answers at the daemon's address speaks something else."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"the daemon's answer is not HTTP: {reason}")


_OWN = (DaemonUnreachable, InvalidHost, ConnectionCut, NotHTTP)


def told(error: LaminaError) -> str:
    """An error as docker's clients tell it: what the daemon said is marked as such, what befell the client is not."""
    return error.message if isinstance(error, _OWN) else f"Error response from daemon: {error.message}"


class Response:
    """An answer, read as it arrives. One to HEAD has no body, whatever length its head tells."""

    def __init__(self, connection: socket.socket, *, has_body: bool = True) -> None:
        self._connection = connection
        self._has_body = has_body
        self._parser: Any = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._complete = False
        self._upgraded = False
        self._head_done = False
        self.headers: dict[str, str] = {}
        self.rest = b""
        while not self._head_done:
            self._receive()
        self.status: int = self._parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """httptools: the head is complete."""
        self._head_done = True
        self._complete = self._complete or not self._has_body

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        """httptools: the answer is complete."""
        self._complete = True

    def __iter__(self) -> Iterator[bytes]:
        """The body in pieces as they come."""
        while True:
            chunks, self._chunks = self._chunks, []
            yield from chunks
            if self._complete:
                return
            if not self._chunks:
                self._receive()

    def lines(self) -> Iterator[bytes]:
        """The body's lines as they come."""
        rest = b""
        for chunk in self:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line for line in lines if line.strip())
        if rest.strip():
            yield rest

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self)

    def close(self) -> None:
        """Give up what is left of the body."""
        self._connection.close()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.read() or b"null")

    def _receive(self) -> None:
        """Take the next bytes; the connection is closed with the last ones."""
        try:
            data = self._connection.recv(_READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._connection.close()
            raise ConnectionCut
        try:
            self._parser.feed_data(data)
            if self._complete:
                self._connection.close()
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self._complete = self._upgraded = True
        except httptools.HttpParserError as error:
            self._connection.close()
            raise NotHTTP(error) from error


class Client:
    """Talks to one daemon."""

    def __init__(self, host: str | None, tls: TlsSettings | None = None) -> None:
        self.host = host
        self._tls = tls

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: object = None,
        chunks: Iterable[bytes] | None = None,
        content_type: str = "application/x-tar",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request, with a JSON *body* or a stream of *chunks*, and return the answer's head and body to come.

        Raises the error that the daemon tells, or DaemonUnreachable.
        """
        connection = connect(self.host, self._tls)
        data = b"" if body is None else json.dumps(body).encode()
        kind = "application/json" if chunks is None else content_type
        head = f"Host: lamina\r\nUser-Agent: lamina\r\nContent-Type: {kind}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        framing = f"Content-Length: {len(data)}\r\n" if chunks is None else "Transfer-Encoding: chunked\r\n"
        connection.sendall(f"{method} {_target(path, query)} HTTP/1.1\r\n{head}{framing}\r\n".encode() + data)
        if chunks is not None:
            _send_chunks(connection, chunks)
        return _checked(Response(connection, has_body=method != "HEAD"))

    def hijack(self, path: str, query: Query | None = None, *, body: object = None) -> tuple[socket.socket, bytes]:
        """Ask for a raw connection, with a JSON *body*; returns it with the bytes that came along with the head. Raises as ``request``."""
        connection = connect(self.host, self._tls)
        data = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if data else ""
        head = f"POST {_target(path, query)} HTTP/1.1\r\nHost: lamina\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{kind}"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection, _checked(Response(connection)).rest


def quoted(name: str) -> str:
    """A name as a part of a path."""
    from urllib.parse import quote

    return quote(name, safe="/:@")


def filters_json(pairs: Iterable[str]) -> str:
    """Filters, each ``name=value``, as the API's parameter; empty for none."""
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        values.setdefault(name.strip().lower(), []).append(value.strip())
    return json.dumps(values) if values else ""


def _target(path: str, query: Query | None) -> str:
    given = {k: v for k, v in (query or {}).items() if v is not None and v != "" and v is not False}
    if not given:
        return f"/v{CURRENT}{path}"
    from urllib.parse import urlencode

    encoded = {k: "1" if v is True else v for k, v in given.items()}
    return f"/v{CURRENT}{path}?{urlencode(encoded, doseq=True)}"


def _send_chunks(connection: socket.socket, chunks: Iterable[bytes]) -> None:
    try:
        for chunk in chunks:
            if chunk:
                connection.sendall(b"%x\r\n" % len(chunk))
                connection.sendall(chunk)
                connection.sendall(b"\r\n")
        connection.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass  # the daemon refused early; its answer says why


def _checked(response: Response) -> Response:
    if response.status < 300 or response.status == 101:
        return response
    raw = response.read()
    try:
        body = json.loads(raw) if raw else {}
    except ValueError:
        body = {"message": raw.decode(errors="replace")}
    raise error_from(response.status, body)
