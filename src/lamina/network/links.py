"""Interfaces, by netlink: the bridge, and for each endpoint a pair of virtual ones with one end in a namespace.

Everything here blocks for milliseconds and keeps one netlink socket, so it is called from one thread; configuring the inner end is done
by a thread of its own inside the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from lamina.linux import namespaces
from lamina.network.errors import BridgeUnavailable

_LOOPBACK = 1
_DEFAULT_POOLS = tuple(IPv4Network(f"172.{n}.0.0/16") for n in range(30, 16, -1))
INTERFACE_PREFIX = "lv"


@dataclass(frozen=True)
class InnerEnd:
    """What ``eth0`` inside a namespace is to be."""

    address: IPv4Interface
    gateway: IPv4Address
    mac: str


class Links:
    """The host's side of the bridge network."""

    def __init__(self, bridge: str, owner: Callable[[Path], None] | None = None) -> None:
        """*owner* makes network namespaces that another user namespace owns; see ``create_network_namespace``."""
        from pyroute2.iproute.linux import IPRoute  # a quarter of a second to import, so not before it is needed

        self._open: Any = IPRoute
        self._netlink: Any = IPRoute()
        self._bridge = bridge
        self._owner = owner
        self._index = 0

    def ensure_bridge(self, gateway: IPv4Interface) -> None:
        """Make the bridge, or check the one that is there, with its address, up. Raises BridgeUnavailable."""
        netlink = self._netlink
        with self._refusal_told():
            if not netlink.link_lookup(ifname=self._bridge):
                netlink.link("add", ifname=self._bridge, kind="bridge")
            index = self._find_bridge()
            if index is None:
                raise BridgeUnavailable(f"{self._bridge} exists and is no bridge")
            if str(gateway) not in self._addresses(index):
                netlink.addr("add", index=index, address=str(gateway.ip), prefixlen=gateway.network.prefixlen)
            netlink.link("set", index=index, state="up")
        self._index = index

    def bridge_address(self) -> IPv4Interface | None:
        """The address that the bridge has, if there is one."""
        found = self._netlink.link_lookup(ifname=self._bridge)
        addresses = self._addresses(found[0]) if found else []
        return IPv4Interface(addresses[0]) if addresses else None

    def free_subnet(self) -> IPv4Interface:
        """The gateway's address in the first of the default subnets that no route of the host overlaps.

        Raises BridgeUnavailable.
        """
        routes = [
            IPv4Network(f"{route.get('dst')}/{route['dst_len']}", strict=False)
            for route in self._netlink.get_routes(family=2)
            if route.get("dst")
        ]
        for pool in _DEFAULT_POOLS:
            if not any(pool.overlaps(route) for route in routes):
                return IPv4Interface((pool.network_address + 1, pool.prefixlen))
        raise BridgeUnavailable("every default subnet overlaps a route of this host; choose one with --bip")

    def add_endpoint(self, pin: Path, interface: str, inner: InnerEnd) -> None:
        """Make a namespace pinned at *pin*, whose ``eth0`` is joined to the bridge through *interface*.

        On failure nothing is left behind. Raises BridgeUnavailable if the kernel refuses, OSError.
        """
        namespaces.create_network_namespace(pin, self._owner)
        try:
            with self._refusal_told(), open(pin, "rb") as file:
                peer = {"ifname": "eth0", "net_ns_fd": file.fileno(), "address": inner.mac}
                self._netlink.link("add", ifname=interface, kind="veth", master=self._index, state="up", peer=peer)
            namespaces.in_network_namespace(pin, lambda: self._configure_inner(inner))
        except BaseException:
            self.remove_endpoint(pin, interface)
            raise

    def add_isolated(self, pin: Path) -> None:
        """Make a namespace with nothing but loopback. On failure nothing is left behind."""
        namespaces.create_network_namespace(pin, self._owner)
        try:
            namespaces.in_network_namespace(pin, self._configure_loopback)
        except BaseException:
            namespaces.remove_network_namespace(pin)
            raise

    def remove_endpoint(self, pin: Path, interface: str | None) -> None:
        """Remove an endpoint; what is gone already is no error."""
        namespaces.remove_network_namespace(pin)
        if interface:
            for index in self._netlink.link_lookup(ifname=interface):
                with suppress(Exception):  # the kernel removes it by itself once the namespace is gone
                    self._netlink.link("del", index=index)

    def endpoints_on_bridge(self) -> list[str]:
        """The names of the outer ends that are joined to the bridge."""
        if not self._index:
            return []
        return [
            str(link.get("ifname"))
            for link in self._netlink.get_links()
            if link.get("master") == self._index and str(link.get("ifname")).startswith(INTERFACE_PREFIX)
        ]

    def foreign_endpoints(self, own: set[str]) -> bool:
        """Whether interfaces of endpoints other than *own* are joined to the bridge: those of a daemon that was killed."""
        self._index = self._find_bridge() or 0
        return bool(set(self.endpoints_on_bridge()) - own)

    def remove_bridge(self) -> None:
        """Remove the bridge; gone already is no error, and what has its name but is no bridge is not ours to remove."""
        index = self._find_bridge()
        if index is not None:
            self._netlink.link("del", index=index)
        self._index = 0

    def close(self) -> None:
        """Let go of the netlink socket."""
        self._netlink.close()

    def _find_bridge(self) -> int | None:
        for index in self._netlink.link_lookup(ifname=self._bridge):
            (link,) = self._netlink.get_links(index)
            if link.get(("linkinfo", "kind")) == "bridge":
                return int(index)
        return None

    @contextmanager
    def _refusal_told(self) -> Iterator[None]:
        """What the kernel refuses is told as BridgeUnavailable."""
        from pyroute2.netlink.exceptions import NetlinkError  # imported by IPRoute already

        try:
            yield
        except NetlinkError as error:
            raise BridgeUnavailable(f"{self._bridge}: {error}") from error

    def _addresses(self, index: int) -> list[str]:
        found = self._netlink.get_addr(family=2, index=index)
        return [f"{a.get('address')}/{a['prefixlen']}" for a in found]

    def _configure_loopback(self) -> None:
        with self._open() as netlink:
            netlink.link("set", index=_LOOPBACK, state="up")

    def _configure_inner(self, inner: InnerEnd) -> None:
        with self._open() as netlink:
            netlink.link("set", index=_LOOPBACK, state="up")
            (index,) = netlink.link_lookup(ifname="eth0")
            prefixlen = inner.address.network.prefixlen
            netlink.addr("add", index=index, address=str(inner.address.ip), prefixlen=prefixlen)
            netlink.link("set", index=index, state="up")
            netlink.route("add", dst="default", gateway=str(inner.gateway))
