"""Listening sockets and the connections that they bring."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from lamina.daemon.http.connection import Connection, Handler
from lamina.errors import InvalidArgument, Unavailable

_log = logging.getLogger(__name__)
_BACKLOG = 1024


class InvalidHost(InvalidArgument):
    """An address to listen on is malformed."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid host {text!r}: expected unix:///path or tcp://address:port")


class AddressTaken(Unavailable):
    """Another process listens on the address."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"cannot listen on {host}: {reason}")


class Server:
    """Serves one handler on any number of addresses."""

    def __init__(self, handler: Handler, headers: Mapping[str, str]) -> None:
        self._handler = handler
        self._headers = b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items())
        self._servers: list[asyncio.Server] = []
        self._paths: list[tuple[Path, int]] = []
        self._connections: set[Connection] = set()

    async def listen(self, host: str) -> None:
        """Listen on ``unix:///path`` or ``tcp://address:port``. Raises InvalidHost or AddressTaken."""
        parts = urlsplit(host)
        try:
            if parts.scheme == "unix":
                await self._listen_unix(host, Path(parts.netloc + parts.path))
            elif parts.scheme == "tcp" and parts.port is not None:
                await self._listen_tcp(parts.hostname or "127.0.0.1", parts.port)
            else:
                raise InvalidHost(host)
        except OSError as error:
            raise AddressTaken(host, error.strerror or str(error)) from error

    async def close(self, timeout_s: float) -> None:
        """Accept no more, let requests under way finish for up to *timeout_s*, then end them."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        pending = [c.finished for c in self._connections if c.finished is not None]
        if pending:
            await asyncio.wait(pending, timeout=timeout_s)
        for connection in list(self._connections):
            connection.cancel()
        for path, inode in self._paths:
            # another daemon may have made its own socket there meanwhile
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()

    def _new_connection(self) -> Connection:
        return Connection(self._handler, self._headers, self._connections)

    async def _listen_unix(self, host: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_answering(path):
            raise AddressTaken(host, "another daemon answers there")
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._new_connection, sock=listener, backlog=_BACKLOG))
        self._paths.append((path, path.stat().st_ino))

    async def _listen_tcp(self, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(self._new_connection, address, port, backlog=_BACKLOG))
        if address not in ("127.0.0.1", "::1", "localhost"):
            _log.warning("listening on %s without TLS: whoever reaches it is root here", address)


def _is_answering(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
