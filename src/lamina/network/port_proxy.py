"""The process that holds the published ports of one container, and relays what the kernel cannot send on: what comes to ``::1``.

It is a program of its own, started by the path of this file with nothing but the standard library, so that it is small, and stays when
the daemon goes. It ends with the container. Its arguments are a path for its pid, the container's pid, and for each port
*descriptor:protocol:version:port*; the last one is a name by which people know what it is for. The container's addresses are the words of
a file beside the pid: one for ports of the host's IPv4 addresses and one for those of IPv6, ``-`` for none. It is read again at SIGHUP.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

_CHUNK = 65536
_UDP_IDLE_S = 90.0
_CONNECT_S = 10.0
_SWEEP_S = 15.0
_PAUSE_S = 0.1


class _Half:
    """One direction of a connection: from a socket to another, with what waits to be written."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting = b""
        self.has_ended = False


class _Relay:
    """Two sockets that are to see each other. It belongs to an event loop that tells it what is ready."""

    def __init__(self, loop: _Loop, near: socket.socket, far: socket.socket) -> None:
        self._loop = loop
        self._near, self._far = near, far
        self._halves = {near.fileno(): _Half(near, far), far.fileno(): _Half(far, near)}
        self._connecting_until: float | None = time.monotonic() + _CONNECT_S
        loop.watch(far, select.EPOLLOUT, self.ready)

    def ready(self, fd: int, events: int) -> None:
        if self._connecting_until is not None:
            if self._far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close()
                return
            self._connecting_until = None
        elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(self._halves[fd])
        if events & select.EPOLLOUT and self._halves:
            self._write(next(h for h in self._halves.values() if h.target.fileno() == fd))
        self._ask()

    def is_late(self, now: float) -> bool:
        return self._connecting_until is not None and now > self._connecting_until

    def close(self) -> None:
        for one in (self._near, self._far):
            self._loop.forget(one)
            one.close()
        self._halves = {}

    def _read(self, half: _Half) -> None:
        if half.waiting or half.has_ended:
            return
        try:
            data = half.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            half.waiting = data
            self._write(half)
        else:
            half.has_ended = True
            self._end(half)

    def _write(self, half: _Half) -> None:
        if half.waiting:
            try:
                half.waiting = half.waiting[half.target.send(half.waiting) :]
            except BlockingIOError:
                return
            except OSError:
                self.close()

    def _end(self, half: _Half) -> None:
        """One side says no more; the other may go on."""
        try:
            half.target.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        if all(h.has_ended for h in self._halves.values()):
            self.close()

    def _ask(self) -> None:
        """Ask to be told of what can be done next."""
        for half in self._halves.values():
            back = next(h for h in self._halves.values() if h is not half)
            reads = select.EPOLLIN if not half.waiting and not half.has_ended else 0
            writes = select.EPOLLOUT if back.waiting else 0
            if half.has_ended and back.has_ended:
                self.close()
                return
            if reads | writes:
                self._loop.watch(half.source, reads | writes, self.ready)
            else:  # one that is asked nothing would go on telling that it has been closed
                self._loop.forget(half.source)


class _Target:
    """Where in the container a port leads: an address, which may change, and a port."""

    def __init__(self, version: str, port: int) -> None:
        self.version = version
        self.port = port
        self.address = ""


class _Datagrams:
    """A UDP port: each client has a socket of its own to the container, by which the answers find back."""

    def __init__(self, loop: _Loop, port: socket.socket, target: _Target) -> None:
        self._loop = loop
        self._port = port
        self._target = target
        self._clients: dict[object, tuple[socket.socket, float]] = {}
        loop.watch(port, select.EPOLLIN, self._came)

    def _came(self, fd: int, events: int) -> None:
        for _ in range(64):
            try:
                data, client = self._port.recvfrom(_CHUNK)
            except OSError:
                return
            known = self._clients.get(client)
            out = known[0] if known is not None else self._meet(client)
            if out is not None:
                self._clients[client] = (out, time.monotonic())
                try:
                    out.send(data)
                except OSError:
                    continue

    def _meet(self, client: object) -> socket.socket | None:
        address = self._target.address
        if not address:
            return None
        try:
            out = socket.socket(_family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor is left: this one's datagram is lost, as datagrams may be
            return None
        try:
            out.connect((address, self._target.port))
        except OSError:
            out.close()
            return None

        def answer(fd: int, events: int) -> None:
            try:
                data = out.recv(_CHUNK)
                self._port.sendto(data, client)  # type: ignore[call-overload]
            except OSError:
                return

        self._loop.watch(out, select.EPOLLIN, answer)
        return out

    def forget_all(self) -> None:
        """Meet everybody anew, as the container has another address."""
        for out, _ in self._clients.values():
            self._loop.forget(out)
            out.close()
        self._clients = {}

    def sweep(self, now: float) -> None:
        for client, (out, last) in list(self._clients.items()):
            if now - last > _UDP_IDLE_S:
                del self._clients[client]
                self._loop.forget(out)
                out.close()


class _Loop:
    """Sockets, and what is to be called when something can be done with them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, tuple[int, object]] = {}
        self._paused: list[tuple[socket.socket, int, object]] = []
        self._resume_at = 0.0

    def watch(self, one: socket.socket | int, events: int, call: object) -> None:
        fd = one if isinstance(one, int) else one.fileno()
        before = self._calls.get(fd)
        if before is None:
            self._epoll.register(fd, events)
        elif before[0] != events:
            self._epoll.modify(fd, events)
        self._calls[fd] = (events, call)

    def forget(self, one: socket.socket) -> None:
        if self._calls.pop(one.fileno(), None) is not None:
            self._epoll.unregister(one.fileno())

    def pause(self, one: socket.socket) -> None:
        """Ask nothing of a socket for a moment."""
        events, call = self._calls[one.fileno()]
        self.forget(one)
        self._paused.append((one, events, call))
        self._resume_at = time.monotonic() + _PAUSE_S

    def step(self, patience_s: float) -> None:
        if self._paused and time.monotonic() >= self._resume_at:
            paused, self._paused = self._paused, []
            for one, events, call in paused:
                self.watch(one, events, call)
        for fd, events in self._epoll.poll(min(patience_s, _PAUSE_S) if self._paused else patience_s):
            known = self._calls.get(fd)
            if known is not None:
                known[1](fd, events)  # type: ignore[operator]


class _Ports:
    """All ports of a container, and the connections by them."""

    def __init__(self, loop: _Loop, addresses_path: str) -> None:
        self._loop = loop
        self._addresses_path = addresses_path
        self._targets: list[_Target] = []
        self._datagrams: list[_Datagrams] = []
        self._relays: list[_Relay] = []

    def add(self, text: str) -> None:
        """Serve a port, as the arguments tell it."""
        descriptor, protocol, version, number = text.split(":")
        target = _Target(version, int(number))
        self._targets.append(target)
        port = socket.socket(fileno=int(descriptor))
        port.setblocking(False)
        if protocol == "udp":
            self._datagrams.append(_Datagrams(self._loop, port, target))
        else:
            self._loop.watch(port, select.EPOLLIN, _acceptor(self._loop, port, target, self._relays))

    def read_addresses(self, number: int = 0, frame: object = None) -> None:
        """Lead to where the container is by now."""
        with open(self._addresses_path) as file:
            fourth, sixth = ("" if word == "-" else word for word in file.read().split())
        for target in self._targets:
            target.address = sixth if target.version == "6" else fourth
        for one in self._datagrams:
            one.forget_all()

    def sweep(self, now: float) -> None:
        """Let go of what has ended, or has not begun in time."""
        for relay in [r for r in self._relays if r.is_late(now)]:
            relay.close()
        self._relays[:] = [r for r in self._relays if r._halves]
        for one in self._datagrams:
            one.sweep(now)


def serve(pid: int, ports: list[str], addresses_path: str) -> None:
    """Relay until the process *pid* has ended."""
    loop = _Loop()
    has_ended: list[bool] = []
    try:
        loop.watch(os.pidfd_open(pid), select.EPOLLIN, lambda fd, events: has_ended.append(True))
    except ProcessLookupError:
        return
    served = _Ports(loop, addresses_path)
    for text in ports:
        served.add(text)
    signal.signal(signal.SIGHUP, served.read_addresses)
    served.read_addresses()
    swept = time.monotonic()
    while not has_ended:
        loop.step(_SWEEP_S)
        now = time.monotonic()
        if now - swept >= _SWEEP_S:
            swept = now
            served.sweep(now)


def _acceptor(loop: _Loop, port: socket.socket, target: _Target, relays: list[_Relay]) -> object:
    def accept(fd: int, events: int) -> None:
        for _ in range(64):
            try:
                near, _ = port.accept()
            except BlockingIOError:
                return
            except OSError:
                loop.pause(port)  # no descriptor is left: whoever waits does so until there is one
                return
            address = target.address
            if not address:
                near.close()
                continue
            near.setblocking(False)
            try:
                far = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError:
                near.close()
                loop.pause(port)
                return
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                far.connect((address, target.port))
            except BlockingIOError:
                pass
            except OSError:
                near.close()
                far.close()
                continue
            relays.append(_Relay(loop, near, far))

    return accept


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def main() -> None:
    """Leave whoever started this, tell the pid, and serve."""
    pid_path, pid, *ports = sys.argv[1:-1]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is ready, when it reads the addresses anyway
    child = os.fork()
    if child:
        with open(f"{pid_path}.new", "w") as file:
            file.write(str(child))
        os.rename(f"{pid_path}.new", pid_path)
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    serve(int(pid), ports, f"{pid_path}.addresses")


if __name__ == "__main__":
    main()
