"""Asking others for names that no container has: the host's resolvers, or those that a container was told of."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lamina.linux.namespaces import in_network_namespace

_RESOLV = Path("/etc/resolv.conf")
_PORT = 53
_PATIENCE_S = 2.0
_SHORT_PATIENCE_S = 0.4
"""For a server that has just been silent, and for names without a domain, which hardly anybody has."""
_SILENCE_S = 15.0
_MOST_SERVERS = 3
_LARGEST = 65535
_HEADER_BYTES = 12


class HostServers:
    """The servers in the host's /etc/resolv.conf, read again when it changes."""

    def __init__(self, path: Path = _RESOLV) -> None:
        self._path = path
        self._stamp = 0
        self._servers: list[str] = []

    def current(self) -> list[str]:
        """Their addresses in order."""
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp != self._stamp:
                words = (line.split() for line in self._path.read_text(errors="replace").splitlines())
                self._servers = [w[1] for w in words if len(w) > 1 and w[0] == "nameserver"][:_MOST_SERVERS]
                self._stamp = stamp
        except OSError:
            return self._servers
        return self._servers


class Forwarder:
    """Relays questions as they are and answers as they come, with a question number of its own that nobody can guess."""

    def __init__(self, host: HostServers | None = None) -> None:
        self._host = host or HostServers()
        self._silent: dict[str, float] = {}

    async def ask(
        self, question: bytes, servers: Sequence[str], pin: str, *, by_tcp: bool, quick: bool
    ) -> bytes | None:
        """The first answer that comes, None if none does. *servers*, if there are any, are asked from the namespace of *pin*."""
        for server in servers or self._host.current():
            place = Path(pin) if servers else None
            has_been_silent = time.monotonic() < self._silent.get(server, 0)
            patience_s = _SHORT_PATIENCE_S if quick or has_been_silent else _PATIENCE_S
            number = secrets.token_bytes(2)
            try:
                async with asyncio.timeout(patience_s):
                    ask = _by_tcp if by_tcp else _by_udp
                    answer = await ask(number + question[2:], server, place)
            except (TimeoutError, OSError, ValueError):  # ValueError: a server's address that is none
                self._silent[server] = time.monotonic() + _SILENCE_S
                continue
            self._silent.pop(server, None)
            return question[:2] + answer[2:]
        return None


async def _by_udp(question: bytes, server: str, place: Path | None) -> bytes:
    loop = asyncio.get_running_loop()
    with await _open(server, socket.SOCK_DGRAM, place) as one:
        await loop.sock_connect(one, (server, _PORT))
        await loop.sock_sendall(one, question)
        while True:
            answer = await loop.sock_recv(one, _LARGEST)
            if len(answer) >= _HEADER_BYTES and answer[:2] == question[:2]:
                return answer


async def _by_tcp(question: bytes, server: str, place: Path | None) -> bytes:
    loop = asyncio.get_running_loop()
    with await _open(server, socket.SOCK_STREAM, place) as one:
        await loop.sock_connect(one, (server, _PORT))
        await loop.sock_sendall(one, struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", await _exactly(one, 2))
        answer = await _exactly(one, length)
        if length < _HEADER_BYTES:
            raise ConnectionResetError
        return answer


async def _exactly(one: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await asyncio.get_running_loop().sock_recv(one, count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


async def _open(server: str, kind: int, place: Path | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET

    def make() -> socket.socket:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)

    if place is None:
        return make()
    inside: Callable[[], socket.socket] = make
    return await asyncio.to_thread(in_network_namespace, place, inside)
