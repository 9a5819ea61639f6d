"""Asking others for names that no container has: one after the other, until one answers."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TypeVar, cast

import pytest

from lamina.resolver import forwarding
from lamina.resolver.forwarding import Forwarder, HostServers

T = TypeVar("T")

FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
QUESTION = b"\x12\x34" + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"\x07example\x03org\x00\x00\x01\x00\x01"
_LONG_S = 30.0

Reply = Callable[[bytes], list[bytes]]
"""What a server says to a question, none for silence."""


def _answered(question: bytes) -> list[bytes]:
    return [question[:2] + b"\x81\x80" + question[4:] + b" is here"]


def _silent(question: bytes) -> list[bytes]:
    return []


def _answer_to(question: bytes) -> bytes:
    return _answered(question)[0]


class Patience:
    """In place of ``asyncio.timeout``: how long was to be waited, and an end to the waiting as soon as the test says."""

    def __init__(self) -> None:
        self.asked: list[float | None] = []
        self._timeout = asyncio.timeout
        self._now: asyncio.Timeout | None = None

    def __call__(self, delay: float | None) -> asyncio.Timeout:
        self.asked.append(delay)
        self._now = self._timeout(_LONG_S)
        return self._now

    def end(self) -> None:
        assert self._now is not None
        self._now.reschedule(asyncio.get_running_loop().time())


class Upstream(asyncio.DatagramProtocol):
    """One server, by UDP and TCP. What it was asked is noted; when it stays silent, the asker's patience ends."""

    def __init__(self, reply: Reply, patience: Patience) -> None:
        self.asked: list[bytes] = []
        self._reply = reply
        self._patience = patience
        self._transport: asyncio.DatagramTransport | None = None

    def _said(self, question: bytes) -> list[bytes]:
        self.asked.append(question)
        replies = self._reply(question)
        if not replies:
            self._patience.end()
        return replies

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        assert self._transport is not None
        for answer in self._said(data):
            self._transport.sendto(answer, addr)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            for answer in self._said(await reader.readexactly(length)):
                whole = struct.pack("!H", len(answer)) + answer
                writer.write(whole[:5])
                await writer.drain()
                writer.write(whole[5:])
            await writer.drain()
            await reader.read()  # until the asker has gone
        writer.close()


class World:
    """The servers of a test, all at one port of the loopback's addresses, as DNS servers are at port 53."""

    def __init__(self, port: int, patience: Patience, stack: AsyncExitStack) -> None:
        self.port = port
        self.patience = patience
        self._stack = stack

    async def server(self, address: str, reply: Reply) -> Upstream:
        upstream = Upstream(reply, self.patience)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: upstream, local_addr=(address, self.port))
        self._stack.callback(transport.close)
        await self._stack.enter_async_context(
            await asyncio.start_server(upstream.converse, address, self.port, reuse_address=True)
        )
        return upstream


def _free_port() -> int:
    """A port that is free for UDP and TCP on all addresses used here."""
    for _ in range(100):
        with socket.socket() as one:
            one.bind((FIRST, 0))
            port: int = one.getsockname()[1]
        try:
            for address in (FIRST, SECOND, THIRD):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as one:
                        one.bind((address, port))
        except OSError:
            continue
        return port
    pytest.fail("there is no free port")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    patience = Patience()
    port = _free_port()
    monkeypatch.setattr(forwarding, "_PORT", port)
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "timeout", patience)
            yield World(port, patience, stack)


def _forwarder(tmp_path: Path, *servers: str) -> Forwarder:
    """One that asks these servers as the host's."""
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver {server}\n" for server in servers))
    return Forwarder(HostServers(path))


async def _ask(forwarder: Forwarder, *, by_tcp: bool = False, quick: bool = False) -> bytes | None:
    return await forwarder.ask(QUESTION, [], "", by_tcp=by_tcp, quick=quick)


BY = pytest.mark.parametrize("by_tcp", [pytest.param(False, id="udp"), pytest.param(True, id="tcp")])


@BY
async def test_the_answer_of_the_first_server_is_taken(world: World, tmp_path: Path, by_tcp: bool) -> None:
    first = await world.server(FIRST, _answered)
    second = await world.server(SECOND, _answered)
    assert await _ask(_forwarder(tmp_path, FIRST, SECOND), by_tcp=by_tcp) == _answer_to(QUESTION)
    assert (len(first.asked), len(second.asked)) == (1, 0)


@BY
async def test_a_question_has_a_number_of_its_own_on_the_way(
    world: World, tmp_path: Path, by_tcp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda count: b"\xab\xcd\xef"[:count])
    first = await world.server(FIRST, _answered)
    answer = await _ask(_forwarder(tmp_path, FIRST), by_tcp=by_tcp)
    assert first.asked == [b"\xab\xcd" + QUESTION[2:]]
    assert answer is not None and answer[:2] == QUESTION[:2]


@BY
async def test_a_long_answer_is_taken_whole(world: World, tmp_path: Path, by_tcp: bool) -> None:
    rest = bytes(range(256)) * 200
    await world.server(FIRST, lambda question: [question[:2] + rest])
    assert await _ask(_forwarder(tmp_path, FIRST), by_tcp=by_tcp) == QUESTION[:2] + rest


async def test_a_long_question_is_asked_whole(world: World, tmp_path: Path) -> None:
    first = await world.server(FIRST, _answered)
    question = QUESTION + bytes(60000)
    await _forwarder(tmp_path, FIRST).ask(question, [], "", by_tcp=True, quick=False)
    assert [asked[2:] for asked in first.asked] == [question[2:]]


async def test_an_answer_with_another_number_is_not_taken(world: World, tmp_path: Path) -> None:
    def forged(question: bytes) -> list[bytes]:
        wrong = bytes([question[0] ^ 1]) + question[1:2]
        return [wrong + question[2:] + b" forged", question[:2], b"", _answer_to(question)]

    await world.server(FIRST, forged)
    assert await _ask(_forwarder(tmp_path, FIRST)) == _answer_to(QUESTION)


@BY
async def test_the_second_server_is_asked_when_the_first_is_silent(world: World, tmp_path: Path, by_tcp: bool) -> None:
    first = await world.server(FIRST, _silent)
    second = await world.server(SECOND, _answered)
    third = await world.server(THIRD, _answered)
    assert await _ask(_forwarder(tmp_path, FIRST, SECOND, THIRD), by_tcp=by_tcp) == _answer_to(QUESTION)
    assert [len(server.asked) for server in (first, second, third)] == [1, 1, 0]


@BY
async def test_the_second_server_is_asked_where_the_first_is_not_there(
    world: World, tmp_path: Path, by_tcp: bool
) -> None:
    second = await world.server(SECOND, _answered)
    assert await _ask(_forwarder(tmp_path, FIRST, SECOND), by_tcp=by_tcp) == _answer_to(QUESTION)
    assert len(second.asked) == 1


async def test_the_second_server_is_asked_when_the_first_breaks_off(world: World, tmp_path: Path) -> None:
    first = await world.server(FIRST, _answered)

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 + len(QUESTION))
        writer.write(struct.pack("!H", 1000) + b"half an answer")
        writer.close()

    async with await asyncio.start_server(break_off, SECOND, world.port):
        assert await _ask(_forwarder(tmp_path, SECOND, FIRST), by_tcp=True) == _answer_to(QUESTION)
    assert len(first.asked) == 1


@BY
async def test_none_is_told_when_nobody_answers(world: World, tmp_path: Path, by_tcp: bool) -> None:
    servers = [await world.server(address, _silent) for address in (FIRST, SECOND)]
    forwarder = _forwarder(tmp_path, FIRST, SECOND, THIRD)  # of which the last is not there
    assert await _ask(forwarder, by_tcp=by_tcp) is None
    assert [len(server.asked) for server in servers] == [1, 1]


async def test_none_is_told_where_there_is_nobody_to_ask(world: World, tmp_path: Path) -> None:
    assert await _ask(_forwarder(tmp_path)) is None
    assert await _ask(Forwarder(HostServers(tmp_path / "missing"))) is None


@BY
async def test_what_is_no_address_is_passed_over(world: World, tmp_path: Path, by_tcp: bool) -> None:
    await world.server(SECOND, _answered)
    forwarder = _forwarder(tmp_path, "fd00::no::address", SECOND)
    assert await _ask(forwarder, by_tcp=by_tcp) == _answer_to(QUESTION)


@BY
@pytest.mark.parametrize("own", [pytest.param(False, id="the host's"), pytest.param(True, id="a container's")])
@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param("1..2", id="an empty label"),
        pytest.param("1" * 70, id="70 characters"),
        pytest.param("127.0.0.1\0", id="a zero byte"),
        pytest.param("::1\0", id="a zero byte in IPv6"),
    ],
)
async def test_what_cannot_be_an_address_is_passed_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: str, own: bool, by_tcp: bool
) -> None:
    monkeypatch.setattr(forwarding, "in_network_namespace", lambda place, function: function())
    first = await world.server(FIRST, _answered)
    second = await world.server(SECOND, _answered)
    if own:
        forwarder, servers = _forwarder(tmp_path, FIRST), [nonsense, SECOND]
    else:
        forwarder, servers = _forwarder(tmp_path, nonsense, SECOND), []
    for _ in range(2):
        answer = await forwarder.ask(QUESTION, servers, str(tmp_path / "pin"), by_tcp=by_tcp, quick=False)
        assert answer == _answer_to(QUESTION)
    assert (len(first.asked), len(second.asked)) == (0, 2)


@pytest.mark.parametrize("length", [0, 1, 2, 11])
async def test_an_answer_shorter_than_a_header_is_none(world: World, tmp_path: Path, length: int) -> None:
    first = await world.server(FIRST, lambda question: [_answer_to(question)[:length]])
    second = await world.server(SECOND, _answered)
    assert await _ask(_forwarder(tmp_path, FIRST, SECOND), by_tcp=True) == _answer_to(QUESTION)
    assert await _ask(_forwarder(tmp_path, FIRST), by_tcp=True) is None
    assert [len(server.asked) for server in (first, second)] == [2, 1]


async def test_an_answer_of_a_header_alone_is_one(world: World, tmp_path: Path) -> None:
    await world.server(FIRST, lambda question: [_answer_to(question)[:12]])
    for by_tcp in (False, True):
        assert await _ask(_forwarder(tmp_path, FIRST), by_tcp=by_tcp) == _answer_to(QUESTION)[:12]


async def test_one_that_was_silent_is_waited_for_only_shortly_the_next_time(world: World, tmp_path: Path) -> None:
    replies = [_silent, _silent, _answered]
    await world.server(FIRST, lambda question: replies.pop(0)(question))
    await world.server(SECOND, _answered)
    forwarder = _forwarder(tmp_path, FIRST, SECOND)
    patience, short = forwarding._PATIENCE_S, forwarding._SHORT_PATIENCE_S
    assert short < patience
    await _ask(forwarder)
    assert world.patience.asked == [patience, patience]
    await _ask(forwarder)
    assert world.patience.asked[2:] == [short, patience]
    await _ask(forwarder)  # which it answers
    assert world.patience.asked[4:] == [short]


async def test_one_that_answers_again_is_waited_for_as_before(world: World, tmp_path: Path) -> None:
    replies = [_silent, _answered, _answered]
    await world.server(FIRST, lambda question: replies.pop(0)(question))
    forwarder = _forwarder(tmp_path, FIRST)
    for _ in range(3):
        await _ask(forwarder)
    patience, short = forwarding._PATIENCE_S, forwarding._SHORT_PATIENCE_S
    assert world.patience.asked == [patience, short, patience]


async def test_silence_is_forgotten_in_time(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_SILENCE_S", 0.0)
    await world.server(FIRST, _silent)
    forwarder = _forwarder(tmp_path, FIRST)
    for _ in range(2):
        await _ask(forwarder)
    assert world.patience.asked == [forwarding._PATIENCE_S] * 2


async def test_for_a_name_that_hardly_anybody_has_the_wait_is_short(world: World, tmp_path: Path) -> None:
    await world.server(FIRST, _answered)
    assert await _ask(_forwarder(tmp_path, FIRST), quick=True) == _answer_to(QUESTION)
    assert world.patience.asked == [forwarding._SHORT_PATIENCE_S]


@BY
async def test_a_containers_own_servers_are_asked_instead_from_where_it_is(
    world: World, tmp_path: Path, by_tcp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Path] = []

    def inside(place: Path, function: Callable[[], T]) -> T:
        entered.append(place)
        return function()

    monkeypatch.setattr(forwarding, "in_network_namespace", inside)
    hosts = await world.server(FIRST, _answered)
    own = await world.server(SECOND, _answered)
    forwarder = _forwarder(tmp_path, FIRST)
    pin = tmp_path / "pin"
    answer = await forwarder.ask(QUESTION, [SECOND], str(pin), by_tcp=by_tcp, quick=False)
    assert answer == _answer_to(QUESTION)
    assert (len(hosts.asked), len(own.asked)) == (0, 1)
    assert entered == [pin]
    await _ask(forwarder, by_tcp=by_tcp)
    assert len(hosts.asked) == 1
    assert entered == [pin]


async def test_from_where_nobody_is_any_more_nobody_is_asked(world: World, tmp_path: Path) -> None:
    own = await world.server(SECOND, _answered)
    forwarder = _forwarder(tmp_path, FIRST)
    assert await forwarder.ask(QUESTION, [SECOND], str(tmp_path / "gone"), by_tcp=False, quick=False) is None
    assert own.asked == []


async def test_questions_at_the_same_time_get_their_own_answers(world: World, tmp_path: Path) -> None:
    await world.server(FIRST, _answered)
    forwarder = _forwarder(tmp_path, FIRST)
    questions = [struct.pack("!H", number) + QUESTION[2:] + bytes([number]) for number in range(50)]
    found = await asyncio.gather(*(forwarder.ask(q, [], "", by_tcp=False, quick=False) for q in questions))
    assert found == [_answer_to(question) for question in questions]


def _write(path: Path, text: str, stamp: int) -> None:
    """A file as it was changed at a certain time."""
    path.write_text(text)
    os.utime(path, ns=(stamp, stamp))


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 192.0.2.1\nnameserver fd00::53\n", ["192.0.2.1", "fd00::53"]),
        ("# nameserver 192.0.2.9\nsearch lan\n\tnameserver\t192.0.2.1 # mine\noptions rotate", ["192.0.2.1"]),
        ("nameserver\nnameservers 192.0.2.1\n;nameserver 192.0.2.2\n", []),
        ("".join(f"nameserver 192.0.2.{i}\n" for i in range(1, 6)), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("", []),
    ],
)
def test_the_hosts_servers_are_the_first_three_of_its_file(tmp_path: Path, text: str, servers: list[str]) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert HostServers(path).current() == servers


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    _write(path, "nameserver 192.0.2.1\n", 1_000_000_001)
    host = HostServers(path)
    assert host.current() == ["192.0.2.1"]
    _write(path, "nameserver 192.0.2.2\n", 1_000_000_002)
    assert host.current() == ["192.0.2.2"]
    _write(path, "nameserver 192.0.2.3\n", 1_000_000_000)  # one of before, put back
    assert host.current() == ["192.0.2.3"]


def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    _write(path, "nameserver 192.0.2.1\n", 1_000_000_001)
    host = HostServers(path)
    assert host.current() == ["192.0.2.1"]
    _write(tmp_path / "new", "nameserver 192.0.2.2\n", 1_000_000_002)
    (tmp_path / "new").replace(path)
    assert host.current() == ["192.0.2.2"]


def test_while_the_file_is_not_there_the_servers_are_those_of_before(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    host = HostServers(path)
    assert host.current() == []
    _write(path, "nameserver 192.0.2.1\n", 1_000_000_001)
    assert host.current() == ["192.0.2.1"]
    path.unlink()
    assert host.current() == ["192.0.2.1"]


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"# caf\xe9\nnameserver 192.0.2.1\n")
    assert HostServers(path).current() == ["192.0.2.1"]


async def test_a_change_of_the_hosts_servers_is_followed(world: World, tmp_path: Path) -> None:
    first = await world.server(FIRST, _answered)
    second = await world.server(SECOND, _answered)
    path = tmp_path / "resolv.conf"
    _write(path, f"nameserver {FIRST}\n", 1_000_000_001)
    forwarder = Forwarder(HostServers(path))
    await _ask(forwarder)
    _write(path, f"nameserver {SECOND}\n", 1_000_000_002)
    await _ask(forwarder)
    assert (len(first.asked), len(second.asked)) == (1, 1)
