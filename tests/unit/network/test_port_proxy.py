"""The process that holds a container's published ports, and relays what comes in, for as long as the container runs."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lamina.network import port_proxy

_HOST = "127.0.0.1"
_PATIENCE_S = 30.0
_CHUNK = 1 << 16
_MANY = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))
"""A few MB of which no part is like another."""


def _socket(kind: int, address: str = _HOST) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    one.settimeout(_PATIENCE_S)
    one.bind((address, 0))
    return one


def _needs_ipv6() -> None:
    try:
        _socket(socket.SOCK_STREAM, "::1").close()
    except OSError:
        pytest.skip("this host has no IPv6 on its loopback")


def _read_all(one: socket.socket) -> bytes:
    parts = []
    while part := one.recv(_CHUNK):
        parts.append(part)
    return b"".join(parts)


def _has_ended(pidfd: int) -> bool:
    """Whether a process ends; it is waited for."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(_PATIENCE_S * 1000))


def _place(one: socket.socket) -> tuple[str, int]:
    address, port = one.getsockname()[:2]
    return address, port


def _leave_descriptors(pid: int, count: int) -> None:
    """Let a process have so many descriptors more than it has."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    free = [number for number in range(len(used) + count + 1) if number not in used]
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[count], most))


def _busy_s(pid: int) -> float:
    """The CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_calm(pid: int) -> bool:
    """Whether a process hardly does anything over a second."""
    before, begin = _busy_s(pid), time.monotonic()
    time.sleep(1)
    return _busy_s(pid) - before < 0.5 * (time.monotonic() - begin)


@dataclass
class Stage:
    """Sockets and processes of one test, closed and ended with it."""

    base: Path
    stack: ExitStack
    threads: ThreadPoolExecutor
    container: subprocess.Popen[bytes]
    ports: list[tuple[socket.socket, str, tuple[str, int]]] = field(default_factory=list)
    pidfd: int = -1

    @property
    def pid_path(self) -> Path:
        return self.base / "ports.pid"

    def open(self, kind: int, address: str = _HOST) -> socket.socket:
        return self.stack.enter_context(_socket(kind, address))

    def port(self, protocol: str, target: tuple[str, int], address: str = _HOST) -> tuple[str, int]:
        """A port that the proxy is to hold, and where it is."""
        one = self.open(socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM, address)
        if protocol == "tcp":
            one.listen()
        self.ports.append((one, protocol, target))
        return _place(one)

    def tcp_server(self, serve: Callable[[socket.socket], bytes], address: str = _HOST) -> tuple[int, Future[bytes]]:
        """A server in the container that serves one client: its port, and what it got."""
        listening = self.open(socket.SOCK_STREAM, address)
        listening.listen()

        def run() -> bytes:
            one, _ = listening.accept()
            one.settimeout(_PATIENCE_S)
            with one:
                return serve(one)

        return _place(listening)[1], self.threads.submit(run)

    def connect(self, place: tuple[str, int]) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(place, timeout=_PATIENCE_S))

    def lead_to(self, fourth: str, sixth: str) -> None:
        """Tell where the container is."""
        self.pid_path.with_name("ports.pid.addresses").write_text(f"{fourth} {sixth}")

    def start(self, container: int | None = None) -> int:
        """Hand the ports over to the program, as the daemon does, and return its pid."""
        self.lead_to(
            *((next((to[0] for _, _, to in self.ports if (":" in to[0]) is six), "-")) for six in (False, True))
        )
        arguments = [
            f"{one.fileno()}:{protocol}:{6 if ':' in to[0] else 4}:{to[1]}" for one, protocol, to in self.ports
        ]
        log = self.base / "errors"
        with log.open("wb") as errors:
            first = subprocess.run(
                [
                    *(sys.executable, "-I", "-S", port_proxy.__file__),
                    *(str(self.pid_path), str(container or self.container.pid), *arguments, "ports of a test"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[one.fileno() for one, _, _ in self.ports],
                timeout=_PATIENCE_S,
                check=False,
            )
        assert first.returncode == 0, log.read_text()
        for one, _, _ in self.ports:
            one.close()
        pid = int(self.pid_path.read_text())
        with suppress(ProcessLookupError):
            self.pidfd = os.pidfd_open(pid)
            self.stack.callback(os.close, self.pidfd)
            self.stack.callback(self._end)
        return pid

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        assert _has_ended(self.pidfd)

    def end_container(self) -> None:
        self.container.kill()
        self.container.wait()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    container = subprocess.Popen(["sleep", "infinity"])
    try:
        with ThreadPoolExecutor() as threads, ExitStack() as stack:
            yield Stage(tmp_path, stack, threads, container)
    finally:
        container.kill()
        container.wait()


def _echo(one: socket.socket) -> bytes:
    while part := one.recv(_CHUNK):
        one.sendall(part)
    return b""


def test_who_starts_it_has_it_at_once_and_knows_its_pid(stage: Stage) -> None:
    stage.port("tcp", (_HOST, 9))
    pid = stage.start()
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert os.fsencode(stage.pid_path) in command
    assert b"ports of a test" in command
    assert [path.name for path in stage.base.iterdir() if path.name.startswith("ports.pid")] == [
        "ports.pid",
        "ports.pid.addresses",
    ]


def test_it_outlives_whoever_started_it(stage: Stage) -> None:
    port, done = stage.tcp_server(_read_all)
    near = stage.port("tcp", (_HOST, port))
    pid = stage.start()
    assert os.getsid(pid) != os.getsid(0)
    with stage.connect(near) as client:
        client.sendall(b"still there")
    assert done.result(_PATIENCE_S) == b"still there"


def test_one_side_may_end_and_hear_the_other_to_its_end(stage: Stage) -> None:
    def answer_at_the_end(one: socket.socket) -> bytes:
        question = _read_all(one)
        one.sendall(_MANY)
        return question

    port, asked = stage.tcp_server(answer_at_the_end)
    near = stage.port("tcp", (_HOST, port))
    stage.start()
    client = stage.connect(near)
    client.sendall(_MANY[::-1])
    client.shutdown(socket.SHUT_WR)
    assert _read_all(client) == _MANY
    assert asked.result(_PATIENCE_S) == _MANY[::-1]


def test_the_server_may_end_first_and_hear_the_client_to_its_end(stage: Stage) -> None:
    def greet(one: socket.socket) -> bytes:
        one.sendall(b"220 ready\r\n")
        one.shutdown(socket.SHUT_WR)
        return _read_all(one)

    port, heard = stage.tcp_server(greet)
    near = stage.port("tcp", (_HOST, port))
    stage.start()
    client = stage.connect(near)
    assert _read_all(client) == b"220 ready\r\n"
    client.sendall(_MANY)
    client.shutdown(socket.SHUT_WR)
    assert heard.result(_PATIENCE_S) == _MANY
    assert client.recv(1) == b""


def test_both_sides_may_talk_at_once(stage: Stage) -> None:
    port, _ = stage.tcp_server(_echo)
    near = stage.port("tcp", (_HOST, port))
    stage.start()
    client = stage.connect(near)

    def talk() -> None:
        client.sendall(_MANY)
        client.shutdown(socket.SHUT_WR)

    talking = stage.threads.submit(talk)
    assert _read_all(client) == _MANY
    talking.result(_PATIENCE_S)


def test_who_does_not_read_holds_up_nobody_else(stage: Stage) -> None:
    stubborn = stage.open(socket.SOCK_STREAM)
    stubborn.listen()  # the kernel takes the connection, and nobody reads
    port, _ = stage.tcp_server(_echo)
    places = [stage.port("tcp", to) for to in (_place(stubborn), (_HOST, port))]
    stage.start()
    held_up = stage.connect(places[0])
    held_up.setblocking(False)
    writable = select.poll()
    writable.register(held_up, select.POLLOUT)
    while writable.poll(100):  # until all buffers on the way are full
        with suppress(BlockingIOError):
            held_up.send(_MANY)
    client = stage.connect(places[1])
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"


def test_several_clients_have_connections_of_their_own(stage: Stage) -> None:
    listening = stage.open(socket.SOCK_STREAM)
    listening.listen()
    near = stage.port("tcp", _place(listening))
    stage.start()
    pairs = []
    for number in range(5):
        client = stage.connect(near)
        server, _ = listening.accept()
        server.settimeout(_PATIENCE_S)
        stage.stack.callback(server.close)
        pairs.append((client, server, f"client {number}".encode()))
    for client, _, text in pairs:
        client.sendall(text)
    for client, server, text in reversed(pairs):
        assert server.recv(100) == text
        server.sendall(text.upper())
        assert client.recv(100) == text.upper()


@pytest.mark.parametrize("question", [b"", b"hello"])
def test_a_container_that_refuses_closes_the_clients_connection_and_nobody_elses(stage: Stage, question: bytes) -> None:
    closed = stage.open(socket.SOCK_STREAM)  # bound, so that nobody else listens there
    port, _ = stage.tcp_server(_echo)
    refusing, serving = stage.port("tcp", _place(closed)), stage.port("tcp", (_HOST, port))
    stage.start()
    refused = stage.connect(refusing)
    with suppress(ConnectionResetError, BrokenPipeError):
        if question:
            refused.sendall(question)
        assert refused.recv(1) == b""
    client = stage.connect(serving)
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"


def test_a_connection_that_the_container_breaks_is_broken(stage: Stage) -> None:
    def hang_up(one: socket.socket) -> bytes:
        got = one.recv(5)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, sys.byteorder) + bytes(4))
        return got

    port, heard = stage.tcp_server(hang_up)
    near = stage.port("tcp", (_HOST, port))
    stage.start()
    client = stage.connect(near)
    client.sendall(b"hello")
    assert heard.result(_PATIENCE_S) == b"hello"
    with suppress(ConnectionResetError):
        assert client.recv(1) == b""


@pytest.mark.parametrize("address", [_HOST, "::1"])
@pytest.mark.parametrize("target", [_HOST, "::1"])
def test_a_port_of_one_version_leads_to_a_container_of_either(stage: Stage, address: str, target: str) -> None:
    _needs_ipv6()
    port, heard = stage.tcp_server(_read_all, target)
    server = stage.open(socket.SOCK_DGRAM, target)
    near = stage.port("tcp", (target, port), address)
    near_udp = stage.port("udp", _place(server), address)
    stage.start()
    with stage.connect(near) as client:
        client.sendall(b"by tcp")
    assert heard.result(_PATIENCE_S) == b"by tcp"
    asker = stage.open(socket.SOCK_DGRAM, address)
    asker.sendto(b"by udp", near_udp)
    assert server.recv(100) == b"by udp"


def test_each_client_of_udp_gets_the_answers_to_its_own_questions(stage: Stage) -> None:
    server = stage.open(socket.SOCK_DGRAM)
    near = stage.port("udp", _place(server))
    stage.start()
    clients = [stage.open(socket.SOCK_DGRAM) for _ in range(2)]
    came = []
    for round_ in range(2):
        for number, client in enumerate(clients):
            text = f"client {number}, question {round_}".encode()
            client.sendto(text, near)
            data, source = server.recvfrom(_CHUNK)
            assert data == text
            came.append((data, source))
    first, second = came[0][1], came[1][1]
    assert first != second
    assert [source for _, source in came] == [first, second, first, second]
    for data, source in reversed(came):
        server.sendto(data.upper(), source)
    for number, client in enumerate(clients):
        answers = [client.recvfrom(_CHUNK) for _ in range(2)]
        assert answers == [(f"CLIENT {number}, QUESTION {round_}".encode(), near) for round_ in (1, 0)]


@pytest.mark.parametrize("size", [0, 1, 65507])
def test_a_datagram_comes_as_it_was_sent(stage: Stage, size: int) -> None:
    server = stage.open(socket.SOCK_DGRAM)
    near = stage.port("udp", _place(server))
    stage.start()
    client = stage.open(socket.SOCK_DGRAM)
    client.sendto(_MANY[:size], near)
    data, source = server.recvfrom(_CHUNK)
    assert data == _MANY[:size]
    server.sendto(data, source)
    assert client.recv(_CHUNK) == data


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_it_ends_with_the_container_and_the_port_is_free(stage: Stage, protocol: str) -> None:
    place = stage.port(protocol, (_HOST, 9))
    stage.start()
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other, pytest.raises(OSError, match="in use"):
        other.bind(place)
    stage.end_container()
    assert _has_ended(stage.pidfd)
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(place)


def test_connections_end_with_the_container(stage: Stage) -> None:
    port, _ = stage.tcp_server(_echo)
    near = stage.port("tcp", (_HOST, port))
    stage.start()
    client = stage.connect(near)
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"
    stage.end_container()
    assert client.recv(1) == b""


def test_for_a_container_that_has_ended_it_ends_at_once(stage: Stage) -> None:
    place = stage.port("tcp", (_HOST, 9))
    gone = subprocess.Popen(["true"])
    gone.wait()
    stage.start(container=gone.pid)
    assert stage.pidfd < 0 or _has_ended(stage.pidfd)
    with socket.socket() as other:
        other.bind(place)


def _say(client: socket.socket, server: socket.socket, text: bytes) -> None:
    """Something said by a client is heard by the server, and the other way round."""
    client.sendall(text)
    assert server.recv(100) == text
    server.sendall(text.upper())
    assert client.recv(100) == text.upper()


@dataclass
class _Crowded:
    """A program that relays for one client and has hardly any descriptor left for another."""

    stage: Stage
    pid: int
    near: tuple[str, int]
    listening: socket.socket
    first: tuple[socket.socket, socket.socket]

    def accept(self) -> socket.socket:
        server, _ = self.listening.accept()
        server.settimeout(_PATIENCE_S)
        return self.stage.stack.enter_context(server)

    def leave(self) -> None:
        """The first client goes, and what it needed is free."""
        client, server = self.first
        client.close()
        assert server.recv(1) == b""
        server.close()


def _crowded(stage: Stage, left: int) -> _Crowded:
    listening = stage.open(socket.SOCK_STREAM)
    listening.listen()
    near = stage.port("tcp", _place(listening))
    pid = stage.start()
    client = stage.connect(near)
    server, _ = listening.accept()
    server.settimeout(_PATIENCE_S)
    stage.stack.enter_context(server)
    _say(client, server, b"before")
    _leave_descriptors(pid, left)
    return _Crowded(stage, pid, near, listening, (client, server))


def test_without_a_descriptor_a_client_waits_until_there_is_one(stage: Stage) -> None:
    crowded = _crowded(stage, 0)
    waiting = stage.connect(crowded.near)
    waiting.sendall(b"let me in")
    assert _is_calm(crowded.pid)
    _say(*crowded.first, b"still there")  # nobody else is held up
    crowded.leave()
    server = crowded.accept()
    assert server.recv(100) == b"let me in"
    _say(waiting, server, b"thanks")


def test_with_one_descriptor_of_the_two_that_a_client_needs_it_lives_on(stage: Stage) -> None:
    crowded = _crowded(stage, 1)
    with stage.connect(crowded.near) as turned_away, suppress(ConnectionResetError):
        assert turned_away.recv(1) == b""
    assert _is_calm(crowded.pid)
    _say(*crowded.first, b"still there")
    crowded.leave()
    # the first one's descriptors are free as soon as the program has seen that both sides have ended
    fds = Path(f"/proc/{crowded.pid}/fd")
    deadline = time.monotonic() + _PATIENCE_S
    soft = resource.prlimit(crowded.pid, resource.RLIMIT_NOFILE)[0]
    while sum(int(path.name) < soft for path in fds.iterdir()) > soft - 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client = stage.connect(crowded.near)
    _say(client, crowded.accept(), b"next")


def test_without_a_descriptor_it_ends_with_the_container_all_the_same(stage: Stage) -> None:
    crowded = _crowded(stage, 0)
    stage.connect(crowded.near)
    _say(*crowded.first, b"still there")
    stage.end_container()
    assert _has_ended(stage.pidfd)


def test_without_a_descriptor_the_datagrams_of_new_clients_alone_are_lost(stage: Stage) -> None:
    server = stage.open(socket.SOCK_DGRAM)
    near = stage.port("udp", _place(server))
    pid = stage.start()
    known, new = (stage.open(socket.SOCK_DGRAM) for _ in range(2))

    def ask(client: socket.socket, text: bytes) -> None:
        client.sendto(text, near)
        data, source = server.recvfrom(_CHUNK)
        assert data == text
        server.sendto(text.upper(), source)
        assert client.recvfrom(_CHUNK) == (text.upper(), near)

    ask(known, b"before")
    soft, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    _leave_descriptors(pid, 0)
    for _ in range(3):
        new.sendto(b"lost", near)
    ask(known, b"still there")  # which came behind them
    assert _is_calm(pid)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, most))
    ask(new, b"found")
    ask(known, b"as before")


def test_a_container_that_has_moved_is_followed(stage: Stage) -> None:
    """Both addresses have a server at the same port; a signal tells which of them is the container's now."""
    first = stage.open(socket.SOCK_STREAM)
    first.listen()
    second = socket.socket()
    second.bind(("127.0.0.2", first.getsockname()[1]))
    second.listen()
    with second:
        place = stage.port("tcp", _place(first))
        pid = stage.start()
        stage.connect(place)
        first.settimeout(_PATIENCE_S)
        first.accept()[0].close()
        stage.lead_to("127.0.0.2", "-")
        os.kill(pid, signal.SIGHUP)
        second.settimeout(_PATIENCE_S)
        stage.connect(place)
        second.accept()[0].close()
        stage.lead_to("-", "-")
        os.kill(pid, signal.SIGHUP)
        one = stage.connect(place)
        assert one.recv(1) == b""
