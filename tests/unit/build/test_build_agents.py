"""SSH agents for steps: the socket that a step is given, and what lies behind it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from lamina.build.run.agents import relayed


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()


async def test_what_is_said_to_the_steps_socket_the_agent_hears_and_answers(tmp_path: Path) -> None:
    place = tmp_path / ("deep" * 20) / "socket"  # longer than an address may be
    place.parent.mkdir()
    async with await asyncio.start_unix_server(_echo, tmp_path / "agent"):
        async with relayed(tmp_path / "agent", place, uid=os.getuid(), gid=os.getgid(), mode=0o640):
            assert stat.S_IMODE(place.stat().st_mode) == 0o640
            directory = os.open(place.parent, os.O_PATH)
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/socket")
            writer.write(b"x" * 200_000)
            writer.write_eof()
            assert await reader.read() == b"x" * 200_000
            writer.close()
            reader, idle = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/socket")
            idle.write(b"x")
            await reader.readexactly(1)
        assert await reader.read() == b"", "who is still connected is hung up on"
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/socket")
        os.close(directory)


async def test_an_agent_that_is_gone_hangs_up(tmp_path: Path) -> None:
    async with relayed(tmp_path / "agent", tmp_path / "s", uid=os.getuid(), gid=os.getgid(), mode=0o600):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        assert await reader.read() == b""
        writer.close()
