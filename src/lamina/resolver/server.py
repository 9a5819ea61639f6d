"""The process: it is told of sandboxes by the daemon, listens in each, and goes on when the daemon has gone."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from lamina.resolver import answers
from lamina.resolver.forwarding import Forwarder
from lamina.resolver.listeners import Listener
from lamina.resolver.messages import Reply, Request, Sandbox, version
from lamina.resolver.zone import Zone

_LINE_BYTES = 64 << 20


class Server:
    """The sandboxes, and what is answered in each."""

    def __init__(self) -> None:
        self._zone = Zone()
        self._listeners: dict[str, Listener] = {}
        self._forwarder = Forwarder()
        self._lock = asyncio.Lock()
        self._version = version()
        self.exiting = asyncio.Event()

    async def serve(self, listening: socket.socket, path: Path) -> None:
        """Take what the daemon tells by a socket, which *path* is the place of, until it is told to exit."""
        server = await asyncio.start_unix_server(self._converse, sock=listening, limit=_LINE_BYTES)
        async with server:
            await self.exiting.wait()
        path.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                try:
                    async with self._lock:
                        await self._do(msgspec.json.decode(line, type=Request))
                    reply = Reply(version=self._version)
                except (OSError, msgspec.MsgspecError) as error:
                    reply = Reply(error=str(error) or type(error).__name__, version=self._version)
                writer.write(msgspec.json.encode(reply) + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, request: Request) -> None:
        match request.verb:
            case "put":
                for sandbox in request.sandboxes:
                    await self._put(sandbox)
            case "drop":
                self._drop(request.pin)
            case "sync":
                known = {sandbox.pin for sandbox in request.sandboxes}
                for pin in self._zone.pins():
                    if pin not in known:
                        self._drop(pin)
                for sandbox in request.sandboxes:
                    with suppress(OSError):  # it has gone meanwhile, which is told next
                        await self._put(sandbox)
            case "exit":
                self.exiting.set()

    async def _put(self, sandbox: Sandbox) -> None:
        self._zone.put(sandbox)
        if sandbox.pin not in self._listeners:
            try:
                self._listeners[sandbox.pin] = await Listener.open(
                    Path(sandbox.pin), lambda question, by_tcp: self._answer(sandbox.pin, question, by_tcp)
                )
            except BaseException:
                self._zone.drop(sandbox.pin)
                raise

    def _drop(self, pin: str) -> None:
        self._zone.drop(pin)
        listener = self._listeners.pop(pin, None)
        if listener is not None:
            listener.close()

    async def _answer(self, pin: str, data: bytes, by_tcp: bool) -> bytes | None:
        question = answers.read(data)
        asker = self._zone.get(pin)
        if question is None or asker is None:
            return None
        known = answers.from_zone(question, asker, self._zone)
        if known is not None:
            return answers.to_wire(known, most=65535 if by_tcp else answers.room(question))
        if not asker.forwards:
            return answers.failure(question, exists=False)
        quick = not question.has_dots
        found = await self._forwarder.ask(data, asker.servers, pin, by_tcp=by_tcp, quick=quick)
        return found if found is not None else answers.failure(question, exists=question.has_dots)


def main(path: Path) -> None:
    """Leave whoever started this, as soon as the socket at *path* can be connected to, and serve."""
    until_listening, listens = os.pipe()
    if os.fork():
        os.close(listens)
        os.read(until_listening, 1)
        os._exit(0)
    os.setsid()
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen()
    os.close(listens)
    asyncio.run(Server().serve(listening, path))
