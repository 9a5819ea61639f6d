"""Ports of the host's that lead to containers: what is asked for, which port that becomes, and who holds it.

Each port is bound by a socket, so that no other program can take what packets never reach: the kernel sends them on before. A process
per container keeps the sockets, and relays what comes in by a way that the kernel cannot rewrite (``port_proxy``).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from lamina.network.errors import InvalidPort, PortAllocated
from lamina.network.model import plain_address

_LOCAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE = (32768, 60999)
_LAST_PORT = 65535
_MOST_DIGITS = 5
_WILDCARDS = {4: "0.0.0.0", 6: "::"}  # noqa: S104
_BACKLOG = 4096
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Place(Protocol):
    """Where on the host a port is to be (Engine API, PortBinding)."""

    host_ip: str
    host_port: str


@dataclass(frozen=True)
class PortRequest:
    """One port of a container, and where on the host it is wanted: from *first* to *last*, 0 for any."""

    protocol: str
    container_port: int
    host_ip: str = ""
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class PortBinding:
    """A port of a container, and the address and port of the host's that lead to it."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int


def read_ports(text: str) -> tuple[str, range]:
    """``80``, ``80/udp`` or ``8000-8010/tcp`` as protocol and ports. Raises InvalidPort."""
    numbers, _, protocol = text.partition("/")
    ends = numbers.split("-")
    are_numbers = len(ends) < 3 and all(map(_is_port, ends))
    if not are_numbers or int(ends[0]) > int(ends[-1]):
        raise InvalidPort(f"invalid port specification: {text!r}")
    if protocol.lower() not in ("", "tcp", "udp", "sctp"):
        raise InvalidPort(f"invalid proto: {protocol}")
    return protocol.lower() or "tcp", range(int(ends[0]), int(ends[-1]) + 1)


def read_requests(
    exposed: Iterable[str], bindings: Mapping[str, Sequence[Place] | None], *, publish_all: bool
) -> list[PortRequest]:
    """What a container asks for. Raises InvalidPort."""
    found = [request for text, places in bindings.items() for request in _requests(text, places or [])]
    named = {(request.protocol, request.container_port) for request in found}
    for text in exposed if publish_all else ():
        protocol, ports = read_ports(text)
        found += [PortRequest(protocol, port) for port in ports if (protocol, port) not in named]
        named |= {(protocol, port) for port in ports}
    return found


def _requests(text: str, places: Sequence[Place]) -> Iterator[PortRequest]:
    protocol, ports = read_ports(text)
    for place in places:
        if place.host_ip:
            try:
                plain_address(place.host_ip)
            except ValueError:
                raise InvalidPort(f"invalid IP address: {place.host_ip}") from None
        first, last = _host_range(place.host_port)
        for step, port in enumerate(ports):
            if len(ports) > 1 and first:
                if last - first != len(ports) - 1:
                    raise InvalidPort(
                        f"invalid ranges specified for container and host Ports: {text} and {place.host_port}"
                    )
                yield PortRequest(protocol, port, place.host_ip, first + step, first + step)
            else:
                yield PortRequest(protocol, port, place.host_ip, first, last)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and 0 < int(text) <= _LAST_PORT


def _host_range(text: str) -> tuple[int, int]:
    if text in ("", "0"):
        return 0, 0
    first, dash, last = text.partition("-")
    ends = (first, last if dash else first)
    if not all(map(_is_port, ends)) or int(ends[0]) > int(ends[1]):
        raise InvalidPort(f"invalid port specification: {text!r}")
    return int(ends[0]), int(ends[1])


class Holding:
    """The ports of one container, and the sockets that bind them until they are handed on."""

    def __init__(self) -> None:
        self.bindings: list[PortBinding] = []
        self.sockets: list[tuple[socket.socket, PortBinding]] = []

    def bind(self, binding: PortBinding) -> None:
        """Bind one port. Raises PortAllocated."""
        for one in _open(binding.protocol, binding.host_ip, binding.host_port):
            self.sockets.append((one, binding))

    def let_go(self) -> None:
        """Close the sockets; whoever else has them open keeps the ports."""
        while self.sockets:
            self.sockets.pop()[0].close()


class HostPorts:
    """Which ports of the host's containers have."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], dict[str, str]] = {}
        """By protocol and port: whose it is, by address."""
        self._next = 0

    def bind(self, holder: str, requests: Iterable[PortRequest], *, default_ip: str = "") -> Holding:
        """Bind what a container asks for; *default_ip* is for those who name no address.

        Raises PortAllocated; nothing is held then.
        """
        holding = Holding()
        try:
            for request in requests:
                self._bind_one(holder, request, _addresses(request.host_ip or default_ip), holding)
        except BaseException:
            holding.let_go()
            self.release(holder, holding.bindings)
            raise
        return holding

    def take_over(self, holder: str, bindings: Iterable[PortBinding]) -> None:
        """Note ports that a running container has."""
        for binding in bindings:
            self._taken.setdefault((binding.protocol, binding.host_port), {})[binding.host_ip] = holder

    def release(self, holder: str, bindings: Iterable[PortBinding]) -> None:
        """Give ports back; those that are somebody else's by now stay."""
        for binding in bindings:
            key = (binding.protocol, binding.host_port)
            owners = self._taken.get(key, {})
            if owners.get(binding.host_ip) == holder:
                del owners[binding.host_ip]
            if not owners:
                self._taken.pop(key, None)

    def _bind_one(self, holder: str, request: PortRequest, addresses: Sequence[str], holding: Holding) -> None:
        """The first port that is free on all addresses."""
        failure: PortAllocated | None = None
        for port in self._candidates(request):
            sockets: list[socket.socket] = []
            try:
                for address in addresses:
                    self._check_free(request.protocol, address, port)
                    sockets += _open(request.protocol, address, port)
            except BaseException as error:
                for one in sockets:
                    one.close()
                if not isinstance(error, PortAllocated) or not error.is_taken:
                    raise
                failure = failure or error
                continue
            bindings = [PortBinding(request.protocol, request.container_port, a, port) for a in addresses]
            self.take_over(holder, bindings)
            holding.bindings += bindings
            holding.sockets += zip(sockets, bindings, strict=False)
            return
        assert failure is not None
        raise failure

    def _candidates(self, request: PortRequest) -> Iterator[int]:
        if request.first:
            yield from range(request.first, request.last + 1)
            return
        first, last = _local_range()
        size = last - first + 1
        for _ in range(size):
            self._next = (self._next + 1) % size
            yield first + self._next

    def _check_free(self, protocol: str, address: str, port: int) -> None:
        version = ip_address(address).version
        for other in self._taken.get((protocol, port), {}):
            is_same = other == address or _WILDCARDS[version] in (other, address)
            if is_same and ip_address(other).version == version:
                raise PortAllocated(address, port)


def _addresses(wanted: str) -> list[str]:
    """Where a port is bound: without a wish on all addresses of both versions, if the host has IPv6."""
    if wanted:
        return [str(ip_address(wanted))]
    return list(_WILDCARDS.values()) if _has_ipv6() else [_WILDCARDS[4]]


def _has_ipv6() -> bool:
    with suppress(OSError):
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    return False


def _open(protocol: str, address: str, port: int) -> list[socket.socket]:
    """A socket that holds a port, which listens if it can. None of SCTP, which the kernel alone serves. Raises PortAllocated."""
    if protocol not in _KINDS:
        return []
    version = ip_address(address).version
    try:
        holder = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, _KINDS[protocol])
    except OSError as error:
        raise PortAllocated(address, port, os.strerror(error.errno or 0).lower(), is_taken=False) from None
    try:
        if version == 6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, port))
        if protocol == "tcp":
            holder.listen(_BACKLOG)
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise PortAllocated(address, port, "address already in use") from None
        raise PortAllocated(address, port, os.strerror(error.errno or 0).lower(), is_taken=False) from None
    return [holder]


def _local_range() -> tuple[int, int]:
    try:
        first, last = _LOCAL_RANGE.read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return _DEFAULT_RANGE
