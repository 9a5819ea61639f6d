"""The server over real sockets: order, limits, back-pressure, failures, leaving clients, shutdown."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lamina import errors
from lamina.http import Handler, Request, Response, Server, StreamingResponse, json_response
from lamina.http.server import AddressTaken, InvalidHost

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Reply = Callable[[Request], Awaitable[Response | StreamingResponse | None]]
_HEADERS = {"Api-Version": "1.51", "Docker-Experimental": "false", "Ostype": "linux", "Server": "Lamina/1 (linux)"}


@asynccontextmanager
async def serving(handler: Handler, host: str) -> AsyncIterator[str]:
    server = Server(handler, _HEADERS)
    try:
        yield await server.listen(host)
    finally:
        await server.close(0)


async def connect(host: str) -> Peer:
    scheme, _, rest = host.partition("://")
    if scheme == "unix":
        return await asyncio.open_unix_connection(rest, limit=1 << 20)
    address, _, port = rest.rpartition(":")
    return await asyncio.open_connection(address, int(port), limit=1 << 20)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One response with a counted body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), fields, await reader.readexactly(int(fields.get("content-length", "0")))


async def exchange(host: str, data: bytes, *, half_close: bool = False) -> bytes:
    """Everything that the server says until it closes."""
    reader, writer = await connect(host)
    writer.write(data)
    if half_close:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


def get(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode()


@pytest.fixture
def host(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/s"


@pytest.fixture(params=["unix", "tcp"])
def any_host(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"unix://{tmp_path}/s" if request.param == "unix" else "tcp://127.0.0.1:0"


async def echo(request: Request) -> Response:
    return json_response({"path": request.path, "body": (await request.read()).decode()})


async def test_every_response_carries_docker_s_fields(any_host: str) -> None:
    async with serving(echo, any_host) as host:
        reader, writer = await connect(host)
        writer.write(get("/a"))
        status, fields, body = await answer(reader)
        writer.close()
    assert (status, json.loads(body)) == (200, {"path": "/a", "body": ""})
    for name, value in _HEADERS.items():
        assert fields[name.lower()] == value.lower()
    assert fields["content-type"] == "application/json"
    assert "connection" not in fields


async def test_pipelined_requests_are_answered_in_order(any_host: str) -> None:
    async def slow_first(request: Request) -> Response:
        await asyncio.sleep(0.05 if request.path == "/0" else 0)
        return await echo(request)

    async with serving(slow_first, any_host) as host:
        reader, writer = await connect(host)
        for n in range(5):
            writer.write(f"POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{n}".encode())
        bodies = [json.loads((await answer(reader))[2]) for _ in range(5)]
        writer.close()
    assert bodies == [{"path": f"/{n}", "body": str(n)} for n in range(5)]


async def test_a_body_that_the_handler_did_not_want_is_no_next_request(host: str) -> None:
    async def careless(request: Request) -> Response:
        return Response(204)

    async with serving(careless, host):
        reader, writer = await connect(host)
        for body in (b"Content-Length: 6\r\n\r\nGET /x", b"Transfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + body)
            assert (await answer(reader))[0] == 204
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        assert (await answer(reader))[0] == 204
        writer.write(b"late" + get("/"))
        assert (await answer(reader))[0] == 204
        writer.close()


async def test_a_refusal_reaches_a_client_that_is_still_sending(any_host: str) -> None:
    async def refuse(request: Request) -> Response:
        raise errors.Forbidden("no")

    async with serving(refuse, any_host) as host:
        reader, writer = await connect(host)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 3_000_000)
        status, fields, body = await answer(reader)
        assert (status, fields["connection"], json.loads(body)["message"]) == (403, "close", "no")
        writer.transport.abort()


async def test_continue_is_sent_when_the_body_is_wanted_and_not_before(host: str) -> None:
    async def picky(request: Request) -> Response:
        return await echo(request) if request.path == "/wanted" else Response(200)

    expecting = "HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with serving(picky, host):
        reader, writer = await connect(host)
        writer.write(f"POST /wanted {expecting}".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert json.loads((await answer(reader))[2])["body"] == "hi"
        writer.write(f"POST /unwanted {expecting}".encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_200_megabytes_in_chunks_arrive_as_they_were_sent(host: str) -> None:
    piece = bytes(range(256)) * 128
    count = (200 << 20) // len(piece)
    expected = hashlib.sha256()

    async def digest(request: Request) -> Response:
        total = hashlib.sha256()
        async for data in request.body:
            total.update(data)
        return Response(200, total.hexdigest().encode())

    async with serving(digest, host):
        reader, writer = await connect(host)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(count):
            data = piece[: len(piece) - n % 7]
            expected.update(data)
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await answer(reader))[2].decode() == expected.hexdigest()
        writer.close()


async def test_a_client_waits_while_its_body_is_not_read(host: str) -> None:
    go_on = asyncio.Event()

    async def late(request: Request) -> Response:
        await go_on.wait()
        size = 0
        async for data in request.body:
            size += len(data)
        return Response(200, str(size).encode())

    size = 64 << 20
    async with serving(late, host):
        reader, writer = await connect(host)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(bytes(size))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        assert writer.transport.get_write_buffer_size() > size // 2
        go_on.set()
        assert (await answer(reader))[2] == str(size).encode()
        writer.close()


async def test_a_stream_waits_for_a_slow_reader(host: str) -> None:
    made = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield bytes(65536)

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(pieces())

    async with serving(stream, host):
        reader, writer = await connect(host)
        writer.write(get("/", "Connection: close\r\n"))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        assert made < 200
        assert len(await reader.read()) > 1000 * 65536
        assert made == 1000
        writer.close()


async def test_items_of_a_stream_are_sent_at_once_and_the_connection_stays(host: str) -> None:
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[bytes]:
        yield b"one"
        yield b""
        await go_on.wait()
        yield b"two"

    async def stream(request: Request) -> StreamingResponse | Response:
        return StreamingResponse(items()) if request.path == "/stream" else Response(200, b"next")

    async with serving(stream, host):
        reader, writer = await connect(host)
        writer.write(get("/stream") + get("/next"))
        assert b"Transfer-Encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(8) == b"3\r\none\r\n"
        go_on.set()
        assert await reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        assert (await answer(reader))[2] == b"next"
        writer.close()


async def test_a_stream_that_fails_is_cut_and_not_ended(host: str, caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"part"
        raise ValueError("broken inside")

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(items())

    async with serving(stream, host):
        with caplog.at_level(logging.ERROR):
            raw = await exchange(host, get("/"))
    assert raw.endswith(b"4\r\npart\r\n")
    assert "broken inside" in caplog.text


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(host: str) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(items())

    async with serving(stream, host):
        head, _, body = (await exchange(host, b"GET / HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"onetwo"


async def test_an_answer_to_head_has_the_length_and_no_body(host: str) -> None:
    begun = []

    async def items() -> AsyncIterator[bytes]:
        begun.append(True)
        yield b"x"

    async def both(request: Request) -> StreamingResponse | Response:
        return StreamingResponse(items()) if request.path == "/stream" else Response(200, b"OK")

    async with serving(both, host):
        raw = await exchange(
            host, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /stream HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
    first, second, nothing = raw.split(b"\r\n\r\n")
    assert b"Content-Length: 2" in first
    assert second.startswith(b"HTTP/1.1 200")
    assert (nothing, begun) == (b"", [])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotFound("No such container: x"), 404),
        (errors.Conflict("in use"), 409),
        (errors.NotModified("already"), 304),
        (KeyError("inside"), 500),
    ],
)
async def test_an_error_of_the_handler_is_told_and_the_connection_stays(
    host: str, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: Request) -> Response:
        raise error

    async with serving(fail, host):
        reader, writer = await connect(host)
        for _ in range(2):
            writer.write(get("/"))
            got, fields, body = await answer(reader)
            assert got == status
            if status == 304:
                assert "content-length" not in fields
            else:
                assert json.loads(body)["message"]
        writer.close()
    assert ("Traceback" in caplog.text) == (status == 500)


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 400_000, b"GET / HT"])
async def test_what_is_no_request_gets_400_in_json_and_the_end(host: str, raw: bytes) -> None:
    async with serving(echo, host):
        head, _, body = (await exchange(host, raw, half_close=True)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Connection: close" in head
    assert json.loads(body)["message"].startswith("malformed request: ")


async def test_broken_chunks_get_400_and_the_end(host: str) -> None:
    async with serving(echo, host):
        raw = await exchange(host, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert raw.startswith(b"HTTP/1.1 400 ")


async def test_a_body_over_the_limit_is_refused(host: str) -> None:
    async def small(request: Request) -> Response:
        return Response(200, await request.read(limit=10))

    async with serving(small, host):
        raw = await exchange(host, b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 11\r\n\r\n" + b"x" * 11)
    assert b"400" in raw.split(b"\r\n")[0]
    assert b"longer than 10 bytes" in raw


async def test_a_line_break_in_a_field_is_not_sent(host: str, caplog: pytest.LogCaptureFixture) -> None:
    async def inject(request: Request) -> Response:
        return Response(200, headers={"X": "a\r\nSet-Cookie: b"})

    async with serving(inject, host):
        assert b"Set-Cookie" not in await exchange(host, get("/"))


class Wanted(msgspec.Struct):
    name: str = "none"
    count: int = 0


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b'{"name":"a"}', {"name": "a", "count": 0}),
        ("application/json; charset=utf-8", b'{"count":2}', {"name": "none", "count": 2}),
        ("", b"", {"name": "none", "count": 0}),
        ("application/json", b'{"count":"x"}', "invalid JSON: "),
        ("application/json", b'{"count"', "invalid JSON: "),
        ("application/json", b"\xff", "invalid JSON: "),
        ("text/plain", b"{}", "unsupported Content-Type header (text/plain): must be 'application/json'"),
    ],
)
async def test_json_bodies(host: str, content_type: str, body: bytes, expected: Any) -> None:
    async def read(request: Request) -> Response:
        return json_response(await request.json(Wanted))

    request = f"POST / HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with serving(read, host):
        reader, writer = await connect(host)
        writer.write(request + body)
        status, _, answered = await answer(reader)
        writer.close()
    if isinstance(expected, str):
        assert status == 400
        assert json.loads(answered)["message"].startswith(expected)
    else:
        assert json.loads(answered) == expected


async def test_query_parameters_are_read_as_docker_reads_them(host: str) -> None:
    seen: dict[str, Any] = {}

    async def read(request: Request) -> Response:
        seen.update({name: request.flag(name) for name in ("a", "b", "c", "d", "e", "missing")})
        seen.update(t=request.query_all("t"), n=request.integer("n"), empty=request.integer("m"), q=request.query("q"))
        request.integer("q")
        return Response(204)

    async with serving(read, host):
        reader, writer = await connect(host)
        writer.write(get("/?a=1&b=True&c=0&d=false&e&t=x%2Fy&t=z+1&n=-3&m=&q=ten"))
        status, _, body = await answer(reader)
        writer.close()
    assert seen == {
        "a": True,
        "b": True,
        "c": False,
        "d": False,
        "e": False,
        "missing": False,
        "t": ["x/y", "z 1"],
        "n": -3,
        "empty": None,
        "q": "ten",
    }
    assert status == 400
    assert "invalid value 'ten' for q" in json.loads(body)["message"]


async def test_a_stream_ends_when_its_client_has_gone(any_host: str) -> None:
    ended = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(forever())

    async with serving(stream, any_host) as host:
        reader, writer = await connect(host)
        writer.write(get("/"))
        await reader.readuntil(b"first")
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_only_a_handler_that_asks_for_it_is_cancelled_when_its_client_goes(any_host: str) -> None:
    outcome: dict[str, str] = {}
    done = asyncio.Event()

    async def wait(request: Request) -> Response:
        try:
            if request.path == "/asks":
                with request.cancel_when_gone():
                    await asyncio.sleep(30)
            else:
                await request.disconnected.wait()
                await asyncio.sleep(0.05)
            outcome[request.path] = "finished"
        except asyncio.CancelledError:
            outcome[request.path] = "cancelled"
            raise
        finally:
            if len(outcome) == 2:
                done.set()
        return Response(204)

    async with serving(wait, any_host) as host:
        for path in ("/asks", "/stays"):
            _, writer = await connect(host)
            writer.write(get(path))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
        await asyncio.wait_for(done.wait(), 5)
    assert outcome == {"/asks": "cancelled", "/stays": "finished"}


async def test_a_client_that_only_finished_writing_still_gets_its_answer(host: str) -> None:
    async def wait(request: Request) -> Response:
        with request.cancel_when_gone():
            await asyncio.sleep(0.1)
        return Response(200, b"patient")

    async with serving(wait, host):
        assert (await exchange(host, get("/"), half_close=True)).endswith(b"patient")


async def test_a_reset_connection_is_a_client_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    gone = asyncio.Event()

    async def wait(request: Request) -> Response:
        await request.disconnected.wait()
        gone.set()
        return Response(200, bytes(1 << 20))

    async with serving(wait, "tcp://127.0.0.1:0") as host:
        _, writer = await connect(host)
        writer.write(get("/"))
        await writer.drain()
        await asyncio.sleep(0.05)
        client = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await asyncio.wait_for(gone.wait(), 5)
    assert not caplog.records


async def test_closing_lets_requests_finish_and_ends_idle_connections(host: str) -> None:
    begun = asyncio.Event()

    async def wait(request: Request) -> Response:
        begun.set()
        await asyncio.sleep(0.1)
        return Response(200, b"done")

    server = Server(wait, {})
    await server.listen(host)
    idle, idle_writer = await connect(host)
    reader, writer = await connect(host)
    writer.write(get("/"))
    await begun.wait()
    closing = asyncio.ensure_future(server.close(10))
    assert await idle.read() == b""
    _, fields, body = await answer(reader)
    assert (fields["connection"], body) == ("close", b"done")
    for each in (writer, idle_writer):
        each.close()
    await closing
    assert not Path(host.removeprefix("unix://")).exists()


@pytest.mark.parametrize("kind", ["stream", "hijacked"])
async def test_closing_does_not_wait_for_what_only_ends_when_something_happens(host: str, kind: str) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"item"
        await asyncio.Event().wait()

    async def handle(request: Request) -> StreamingResponse | None:
        if kind == "stream":
            return StreamingResponse(items(), is_endless=True)
        raw = await request.hijack("text/plain")
        await raw.write(b"item")
        await asyncio.Event().wait()
        return None

    server = Server(handle, {})
    await server.listen(host)
    reader, writer = await connect(host)
    writer.write(get("/"))
    await reader.readuntil(b"item")
    await asyncio.wait_for(server.close(3600), 10)
    writer.close()


async def test_closing_cancels_what_outlasts_the_timeout(host: str) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return Response(204)

    server = Server(wait, {})
    await server.listen(host)
    reader, writer = await connect(host)
    writer.write(get("/"))
    await begun.wait()
    await server.close(0.01)
    assert cancelled.is_set()
    assert await reader.read() == b""
    writer.close()


async def test_a_socket_that_somebody_answers_on_is_not_taken_and_a_dead_one_is(host: str) -> None:
    path = Path(host.removeprefix("unix://"))
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with serving(echo, host):
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(AddressTaken, match="another daemon answers there"):
            await Server(echo, {}).listen(host)


@pytest.mark.parametrize("text", ["", "tcp://", "unix://", "tcp://a:b", "http://x:1", "tcp://[::1"])
async def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidHost):
        await Server(echo, {}).listen(text)
