"""SSH agents for steps: a socket of the step's own, with the owner and mode that its mount asks for, relayed to the agent's.

The agent's own socket is its user's alone, and changing it would change it for everybody.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_READ_BYTES = 1 << 16


@asynccontextmanager
async def relayed(agent: Path, place: Path, *, uid: int, gid: int, mode: int) -> AsyncIterator[None]:
    """A socket at *place*, in a directory that is nobody else's, that leads to an agent's for the length of the block."""
    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(_relay(agent, reader, writer))
        relays.add(relay)
        relay.add_done_callback(relays.discard)
        relay.add_done_callback(lambda _: writer.close())  # also of one that is cancelled before it begins

    server = await asyncio.start_unix_server(accept, sock=_bound(place, uid, gid, mode))
    try:
        yield
    finally:
        server.close()
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


def _bound(place: Path, uid: int, gid: int, mode: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    try:
        directory = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bound.bind(f"/proc/self/fd/{directory}/{place.name}")  # an address has room for 107 bytes
        finally:
            os.close(directory)
        os.chown(place, uid, gid)
        place.chmod(mode)
    except BaseException:
        bound.close()
        raise
    return bound


async def _relay(agent: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both ways, until both sides have said all. Who connects while the agent is gone is hung up on."""
    with suppress(OSError):
        agent_reader, agent_writer = await asyncio.open_unix_connection(agent)
        try:
            await asyncio.gather(_copy(reader, agent_writer), _copy(agent_reader, writer))
        finally:
            agent_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
