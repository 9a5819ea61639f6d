"""The process that holds the published ports of one container, and relays what the kernel cannot send on: what comes to ``::1``.

It is a program of its own, started by the path of this file with nothing but the standard library, so that it is small, and stays when
the daemon goes. It ends with the container. Its arguments are the container's pid and for each port *descriptor:protocol:address:port*;
the last one is a name by which people know what it is for.
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


class _Datagrams:
    """A UDP port: each client has a socket of its own to the container, by which the answers find back."""

    def __init__(self, loop: _Loop, port: socket.socket, target: tuple[str, int], family: int) -> None:
        self._loop = loop
        self._port = port
        self._target = target
        self._family = family
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
        try:
            out = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor is left: this one's datagram is lost, as datagrams may be
            return None
        try:
            out.connect(self._target)
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


def serve(pid: int, ports: list[str]) -> None:
    """Relay until the process *pid* has ended."""
    loop = _Loop()
    relays: list[_Relay] = []
    datagrams: list[_Datagrams] = []
    has_ended: list[bool] = []
    try:
        loop.watch(os.pidfd_open(pid), select.EPOLLIN, lambda fd, events: has_ended.append(True))
    except ProcessLookupError:
        return
    for text in ports:
        descriptor, protocol, place = text.split(":", 2)
        address, _, number = place.rpartition(":")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        target = (address, int(number))
        port = socket.socket(fileno=int(descriptor))
        port.setblocking(False)
        if protocol == "udp":
            datagrams.append(_Datagrams(loop, port, target, family))
        else:
            loop.watch(port, select.EPOLLIN, _acceptor(loop, port, target, family, relays))
    swept = time.monotonic()
    while not has_ended:
        loop.step(_SWEEP_S)
        now = time.monotonic()
        if now - swept >= _SWEEP_S:
            swept = now
            for relay in [r for r in relays if r.is_late(now)]:
                relay.close()
            relays[:] = [r for r in relays if r._halves]
            for one in datagrams:
                one.sweep(now)


def _acceptor(loop: _Loop, port: socket.socket, target: tuple[str, int], family: int, relays: list[_Relay]) -> object:
    def accept(fd: int, events: int) -> None:
        for _ in range(64):
            try:
                near, _ = port.accept()
            except BlockingIOError:
                return
            except OSError:
                loop.pause(port)  # no descriptor is left: whoever waits does so until there is one
                return
            near.setblocking(False)
            try:
                far = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError:
                near.close()
                loop.pause(port)
                return
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                far.connect(target)
            except BlockingIOError:
                pass
            except OSError:
                near.close()
                far.close()
                continue
            relays.append(_Relay(loop, near, far))

    return accept


def main() -> None:
    """Leave whoever started this, tell the pid, and serve."""
    pid_path, pid, *ports = sys.argv[1:-1]
    child = os.fork()
    if child:
        with open(f"{pid_path}.new", "w") as file:
            file.write(str(child))
        os.rename(f"{pid_path}.new", pid_path)
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    serve(int(pid), ports)


if __name__ == "__main__":
    main()
