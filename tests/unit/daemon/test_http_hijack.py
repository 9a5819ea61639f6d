"""Hijacked connections: raw both ways, with half closes, in both of docker's forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lamina.http import ClientGone, Handler, Request, Server

_RAW = "application/vnd.docker.raw-stream"
_UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


@asynccontextmanager
async def peer_of(
    handler: Handler, host: str
) -> AsyncIterator[tuple[Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    server = Server(handler, {"Api-Version": "1.51"})
    scheme, _, rest = (await server.listen(host)).partition("://")
    if scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(rest)
    else:
        reader, writer = await asyncio.open_connection(*rest.rsplit(":", 1))
    try:
        yield server, reader, writer
    finally:
        writer.close()
        await server.close(0)


@pytest.fixture(params=["unix", "tcp"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"unix://{tmp_path}/s" if request.param == "unix" else "tcp://127.0.0.1:0"


def post(fields: str = "", body: str = "") -> bytes:
    return f"POST /x HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def collect(request: Request) -> None:
    """Read to the client's end, then say what came: the order that needs a half close."""
    body = await request.read()
    stream = await request.hijack(_RAW)
    got = b""
    while data := await stream.read():
        got += data
    await stream.write(body + b"|" + got)
    assert not stream.disconnected.is_set()
    stream.close()


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        (_UPGRADE, b"HTTP/1.1 101 UPGRADED\r\n"),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", b"HTTP/1.1 101 UPGRADED\r\n"),
        ("", b"HTTP/1.1 200 OK\r\n"),
    ],
)
async def test_after_the_client_s_half_close_it_still_gets_all_output(host: str, fields: str, start: bytes) -> None:
    async with peer_of(collect, host) as (_, reader, writer):
        writer.write(post(fields))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hi")
        writer.write_eof()
        assert await reader.read() == b"|hi"
    assert head.startswith(start)
    assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in head
    assert b"Api-Version: 1.51\r\n" in head
    assert b"Content-Length" not in head
    assert b"chunked" not in head
    if "h2c" in fields:
        assert b"Connection: Upgrade\r\nUpgrade: h2c\r\n" in head


@pytest.mark.parametrize("fields", [_UPGRADE, ""])
async def test_body_and_input_in_the_head_s_packet_are_told_apart_and_not_lost(host: str, fields: str) -> None:
    async with peer_of(collect, host) as (_, reader, writer):
        writer.write(post(fields, '{"Tty":false}') + b"GET / is input here\r\n\r\n")
        writer.write_eof()
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b'{"Tty":false}|GET / is input here\r\n\r\n'


async def test_both_directions_flow_at_once(host: str) -> None:
    async def echo(request: Request) -> None:
        stream = await request.hijack(_RAW)
        while data := await stream.read():
            await stream.write(data)
        stream.close()

    payload = bytes(range(256)) * 40_000
    async with peer_of(echo, host) as (_, reader, writer):
        writer.write(post(_UPGRADE))
        await reader.readuntil(b"\r\n\r\n")

        async def send() -> None:
            writer.write(payload)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        assert await reader.read() == payload
        await sending


async def test_the_server_may_finish_writing_and_read_on(host: str) -> None:
    got = asyncio.get_running_loop().create_future()

    async def finish(request: Request) -> None:
        stream = await request.hijack(_RAW)
        await stream.write(b"bye")
        stream.write_eof()
        got.set_result(await stream.read())
        stream.close()

    async with peer_of(finish, host) as (_, reader, writer):
        writer.write(post(_UPGRADE))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"bye"
        writer.write(b"thanks")
        assert await asyncio.wait_for(got, 5) == b"thanks"


async def test_a_client_that_is_gone_is_told_from_one_that_finished_writing(tmp_path: Path) -> None:
    half_closed, gone = asyncio.Event(), asyncio.Event()

    async def watch(request: Request) -> None:
        stream = await request.hijack(_RAW)
        assert await stream.read() == b""
        assert not stream.disconnected.is_set()
        half_closed.set()
        await stream.disconnected.wait()
        gone.set()

    async with peer_of(watch, f"unix://{tmp_path}/s") as (_, reader, writer):
        writer.write(post(_UPGRADE))
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await asyncio.wait_for(half_closed.wait(), 5)
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_writing_to_a_client_that_is_gone_fails(host: str, caplog: pytest.LogCaptureFixture) -> None:
    failure = asyncio.get_running_loop().create_future()

    async def talk(request: Request) -> None:
        stream = await request.hijack(_RAW)
        try:
            while True:
                await stream.write(bytes(65536))
                await asyncio.sleep(0)
        except ClientGone as error:
            failure.set_result(error)
            raise

    async with peer_of(talk, host) as (_, reader, writer):
        writer.write(post(_UPGRADE))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        assert isinstance(await asyncio.wait_for(failure, 5), ClientGone)
    assert not caplog.records


async def test_a_handler_that_fails_after_the_take_over_sends_no_response(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: Request) -> None:
        stream = await request.hijack(_RAW)
        await stream.write(b"raw")
        raise ValueError("broken inside")

    async with peer_of(fail, host) as (_, reader, writer):
        writer.write(post(_UPGRADE))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"raw"
    assert "broken inside" in caplog.text
