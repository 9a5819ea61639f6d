"""Listening sockets and the connections that they bring."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
import ssl
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from lamina.errors import InvalidArgument, Unavailable
from lamina.http.channel import Channel
from lamina.http.connection import Connection, Handler
from lamina.http.sending import encode_fields
from lamina.http.tls import TlsChannel

_log = logging.getLogger(__name__)
_BACKLOG = 1024
_GROUP = "docker"
"""Who may use a unix socket beside root, where there is such a group: as with docker, its members are root in all but name."""


class InvalidHost(InvalidArgument):
    """An address to listen on is malformed."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid host {text!r}: expected unix:///path or tcp://address:port")


class UnknownGroup(InvalidArgument):
    """The group that is to use the socket does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"group {name} not found")
        self.name = name


class AddressTaken(Unavailable):
    """Another process listens on the address."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"cannot listen on {host}: {reason}")


class Server:
    """Serves one handler on any number of addresses. *headers* are part of every response."""

    def __init__(
        self,
        handler: Handler,
        headers: Mapping[str, str],
        *,
        tls: ssl.SSLContext | None = None,
        group: str | None = None,
    ) -> None:
        """*tls* is how what comes by TCP is encrypted; *group* may use unix sockets, by default ``docker`` where there is one."""
        self._handler = handler
        self._tls = tls
        self._group = group
        self._common = encode_fields(headers)
        self._servers: list[asyncio.Server] = []
        self._paths: list[tuple[Path, int]] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}

    async def listen(self, host: str, *, shared: bool = False) -> str:
        """Listen on ``unix:///path`` or ``tcp://address:port``; port 0 takes a free one. Returns the address in this form.

        Several processes may have a *shared* port, among which the kernel divides connections.

        Raises InvalidHost or AddressTaken.
        """
        try:
            parts = urlsplit(host)
            port = parts.port
        except ValueError:
            raise InvalidHost(host) from None
        try:
            if parts.scheme == "unix" and parts.path:
                return await self._listen_unix(host, Path(parts.netloc + parts.path))
            if parts.scheme == "tcp" and port is not None:
                return await self._listen_tcp(parts.hostname or "127.0.0.1", port, shared=shared)
        except OSError as error:
            raise AddressTaken(host, error.strerror or str(error)) from error
        raise InvalidHost(host)

    async def close(self, timeout_s: float) -> None:
        """Accept no more, let requests under way finish for up to *timeout_s*, then end them; returns when all are gone.

        Connections without a request, or with one that waits for something to happen, are ended at once.
        """
        for server in self._servers:
            server.close()
        for task, connection in self._connections.items():
            connection.is_ending = True
            if not connection.is_worth_waiting_for:
                task.cancel()
        tasks = list(self._connections)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for path, inode in self._paths:
            # another daemon may have made its own socket there meanwhile
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()

    def _new_channel(self) -> Channel:
        return Channel(self._serve)

    def _new_tcp_channel(self) -> Channel:
        return Channel(self._serve) if self._tls is None else TlsChannel(self._serve, self._tls)

    def _group_id(self) -> int:
        """Raises InvalidHost for a group that was asked for and does not exist; -1 leaves the socket to root."""
        try:
            return (
                int(self._group)
                if self._group and self._group.isdigit()
                else grp.getgrnam(self._group or _GROUP).gr_gid
            )
        except KeyError:
            if self._group:
                raise UnknownGroup(self._group) from None
            return -1

    def _serve(self, channel: Channel) -> None:
        connection = Connection(channel, self._handler, self._common)
        task = asyncio.ensure_future(connection.serve())
        self._connections[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and task.exception() is not None:
            _log.error("a connection failed", exc_info=task.exception())

    async def _listen_unix(self, host: str, path: Path) -> str:
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
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        os.chown(path, -1, self._group_id())
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._new_channel, sock=listener, backlog=_BACKLOG))
        self._paths.append((path, path.stat().st_ino))
        return f"unix://{path}"

    async def _listen_tcp(self, address: str, port: int, *, shared: bool) -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self._new_tcp_channel, address, port, backlog=_BACKLOG, reuse_port=shared or None
        )
        self._servers.append(server)
        shown = f"[{address}]" if ":" in address else address
        return f"tcp://{shown}:{server.sockets[0].getsockname()[1]}"


def _is_answering(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
