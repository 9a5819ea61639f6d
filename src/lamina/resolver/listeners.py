"""The sockets by which a container reaches the resolver, inside the container's network namespace.

They have ports of their own, and rules in the namespace lead what is sent to port 53 there, so that a container can serve port 53
itself. Where these rules cannot be, the sockets have port 53.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from lamina.linux.namespaces import in_network_namespace
from lamina.resolver.messages import ADDRESS

_PORT = 53
_BACKLOG = 128
_IDLE_S = 10.0
_LARGEST = 65535
_MOST_CONNECTIONS = 64
_MOST_QUESTIONS = 512
"""Of one container at a time, so that it cannot take all descriptors from the others."""
_PAUSE_S = 0.1
_RULES = """
add table ip lamina
delete table ip lamina
table ip lamina {{
    chain output {{
        type nat hook output priority -100; policy accept;
        ip daddr {address} udp dport 53 dnat to {address}:{udp}
        ip daddr {address} tcp dport 53 dnat to {address}:{tcp}
    }}
}}
"""

Answer = Callable[[bytes, bool], Awaitable[bytes | None]]
"""(question, whether it came by TCP): the answer, None for none."""


class Listener:
    """One container's sockets."""

    def __init__(self, udp: socket.socket, tcp: socket.socket, answer: Answer) -> None:
        self._udp, self._tcp = udp, tcp
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._closed = False
        loop = asyncio.get_running_loop()
        loop.add_reader(udp, self._datagram)
        loop.add_reader(tcp, self._connection)

    @classmethod
    async def open(cls, pin: Path, answer: Answer) -> Listener:
        """Listen inside the namespace that is pinned at *pin*. Raises OSError."""
        udp, tcp = await asyncio.to_thread(in_network_namespace, pin, _open)
        return cls(udp, tcp, answer)

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        loop = asyncio.get_running_loop()
        for one in (self._udp, self._tcp):
            loop.remove_reader(one)
            one.close()
        for task in self._tasks:
            task.cancel()

    def _datagram(self) -> None:
        for _ in range(64):
            if len(self._tasks) >= _MOST_QUESTIONS:
                self._pause(self._udp, self._datagram)
                return
            try:
                question, asker = self._udp.recvfrom(_LARGEST)
            except OSError:
                return
            self._in_background(self._reply(question, asker))

    async def _reply(self, question: bytes, asker: tuple[str, int]) -> None:
        answer = await self._answer(question, False)
        if answer is not None:
            with suppress(OSError):
                self._udp.sendto(answer, asker)

    def _connection(self) -> None:
        try:
            one, _ = self._tcp.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left
            self._pause(self._tcp, self._connection)
            return
        if self._connections >= _MOST_CONNECTIONS:
            one.close()
            return
        one.setblocking(False)
        self._in_background(self._converse(one))

    async def _converse(self, one: socket.socket) -> None:
        """Answer the questions of one connection, in order (RFC 7766)."""
        self._connections += 1
        try:
            await self._answer_all(one)
        finally:
            self._connections -= 1

    async def _answer_all(self, one: socket.socket) -> None:
        with one:
            reader, writer = await asyncio.open_connection(sock=one)
            try:
                while True:
                    async with asyncio.timeout(_IDLE_S):
                        (length,) = struct.unpack("!H", await reader.readexactly(2))
                        question = await reader.readexactly(length)
                    answer = await self._answer(question, True)
                    if answer is None:
                        return
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                return
            finally:
                writer.close()

    def _pause(self, one: socket.socket, ready: Callable[[], None]) -> None:
        """Ask nothing of a socket for a moment."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(one)
        loop.call_later(_PAUSE_S, lambda: self._closed or loop.add_reader(one, ready))

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _open() -> tuple[socket.socket, socket.socket]:
    """In the namespace: the sockets, and the rules that lead to them."""
    try:
        return _open_at(0)
    except (OSError, subprocess.SubprocessError):
        return _open_at(_PORT)


def _open_at(port: int) -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((ADDRESS, port))
        tcp.bind((ADDRESS, port))
        tcp.listen(_BACKLOG)
        if port == 0:
            rules = _RULES.format(address=ADDRESS, udp=udp.getsockname()[1], tcp=tcp.getsockname()[1])
            subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True, capture_output=True)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
