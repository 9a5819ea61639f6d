"""Interfaces, by netlink: bridges, and for each endpoint a pair of virtual ones with one end in a namespace.

Everything here blocks for milliseconds and keeps one netlink socket, so it is called from one thread; configuring the inner end is done
by a thread of its own inside the namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, ip_interface, ip_network
from pathlib import Path
from typing import Any

from lamina.linux import namespaces
from lamina.network.errors import BridgeUnavailable
from lamina.network.ipam import IPNetwork
from lamina.network.model import Address, Interface

_LOOPBACK = 1
_SYSCTL = Path("/proc/sys/net")
INTERFACE_PREFIX = "lv"
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True)
class InnerEnd:
    """What an interface inside a namespace is to be. ``gateways`` are where its default routes lead, which others have already or not."""

    addresses: Sequence[Interface]
    gateways: Sequence[Address]
    mac: str
    name: str = "eth0"
    mtu: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BridgeEnd:
    """The bridge that an endpoint is joined to. ``isolated`` ends reach the bridge's own address and no other end."""

    bridge: str
    isolated: bool = False


@dataclass(frozen=True)
class ChildEnd:
    """The interface of the host's that an endpoint is a child of; *kind* is macvlan or ipvlan."""

    parent: str
    kind: str
    mode: str


class Links:
    """The host's side of all networks."""

    def __init__(self, owner: Callable[[Path], None] | None = None) -> None:
        """*owner* makes network namespaces that another user namespace owns; see ``create_network_namespace``."""
        from pyroute2.iproute.linux import IPRoute  # a quarter of a second to import, so not before it is needed

        self._open: Any = IPRoute
        self._netlink: Any = IPRoute()
        self._owner = owner

    def ensure_bridge(self, name: str, gateways: Sequence[Interface], *, mtu: int = 0) -> None:
        """Make a bridge, or check the one that is there, with its addresses, up. Raises BridgeUnavailable."""
        netlink = self._netlink
        with self._refusal_told(name):
            if not netlink.link_lookup(ifname=name):
                # an address of its own: the kernel would change it with the ends that come and go, and containers keep it in mind
                netlink.link("add", ifname=name, kind="bridge", address=random_mac())
            index = self._find_bridge(name)
            if index is None:
                raise BridgeUnavailable(f"{name} exists and is no bridge")
            there = self._addresses(index)
            for gateway in gateways:
                if str(gateway) not in there:
                    netlink.addr(
                        "add",
                        index=index,
                        address=str(gateway.ip),
                        prefixlen=gateway.network.prefixlen,
                        **_no_check(gateway),
                    )
            netlink.link("set", index=index, state="up", **({"mtu": mtu} if mtu else {}))
        # what comes from the host's own 127.0.0.1 may go on to a container; the firewall lets nothing come back that way
        with suppress(OSError):
            (_SYSCTL / "ipv4/conf" / name / "route_localnet").write_text("1")

    def has_interface(self, name: str) -> bool:
        """Whether the host has an interface of a name."""
        return bool(self._netlink.link_lookup(ifname=name))

    def bridge_address(self, name: str) -> IPv4Interface | None:
        """The IPv4 address that a bridge has, if there is one."""
        found = self._netlink.link_lookup(ifname=name)
        addresses = [ip_interface(a) for a in self._addresses(found[0])] if found else []
        return next((a for a in addresses if isinstance(a, IPv4Interface)), None)

    def routes(self) -> list[IPNetwork]:
        """The networks that the host has routes to, less the default ones."""
        return [
            ip_network(f"{route.get('dst')}/{route['dst_len']}", strict=False)
            for family in _FAMILIES.values()
            for route in self._netlink.get_routes(family=family)
            if route.get("dst") and route["dst_len"]
        ]

    def ensure_parent(self, name: str, *, network_id: str) -> str:
        """The interface whose children a network's endpoints are to be, and return its name.

        Without a *name* it is a dummy of the network's own; ``eth0.10`` is made as a VLAN of ``eth0``. Raises BridgeUnavailable.
        """
        netlink = self._netlink
        wanted = name or lonely_name(network_id)
        if netlink.link_lookup(ifname=wanted):
            return wanted
        with self._refusal_told(wanted):
            if not name:
                self._add_lonely(wanted)
            else:
                base, dot, vlan = name.rpartition(".")
                found = netlink.link_lookup(ifname=base) if dot and vlan.isdigit() else []
                if not found:
                    raise BridgeUnavailable(f"the parent interface {name} was not found on this host")
                netlink.link("add", ifname=wanted, kind="vlan", link=found[0], vlan_id=int(vlan))
            netlink.link("set", index=netlink.link_lookup(ifname=wanted)[0], state="up")
        return wanted

    def check_child(self, parent: str, kind: str) -> None:
        """Find out whether the kernel has a *kind* of children. Raises BridgeUnavailable."""
        probe = f"{INTERFACE_PREFIX}{os.urandom(5).hex()}"
        with self._refusal_told(kind):
            self._netlink.link("add", ifname=probe, kind=kind, link=self._netlink.link_lookup(ifname=parent)[0])
        self.remove_interface(probe)

    def _add_lonely(self, name: str) -> None:
        """An interface that leads nowhere: a dummy, or a bridge without ends where the kernel has no dummies."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            self._netlink.link("add", ifname=name, kind="dummy")
        except NetlinkError:
            self._netlink.link("add", ifname=name, kind="bridge")

    def remove_interface(self, name: str) -> None:
        """Remove an interface; gone already is no error."""
        for index in self._netlink.link_lookup(ifname=name):
            with suppress(Exception):  # the kernel removes it by itself once the namespace is gone
                self._netlink.link("del", index=index)

    def make_sandbox(self, pin: Path) -> None:
        """Make a namespace with nothing but loopback. On failure nothing is left behind."""
        namespaces.create_network_namespace(pin, self._owner)
        try:
            namespaces.in_network_namespace(pin, self._configure_loopback)
        except BaseException:
            namespaces.remove_network_namespace(pin)
            raise

    def add_endpoint(self, pin: Path, interface: str, end: BridgeEnd, inner: InnerEnd) -> None:
        """Join the namespace pinned at *pin*, which is made if it is not there, to a bridge through *interface*.

        On failure nothing is left behind. Raises BridgeUnavailable if the kernel refuses, OSError.
        """
        is_new = not pin.exists()
        if is_new:
            namespaces.create_network_namespace(pin, self._owner)
        try:
            with self._refusal_told(end.bridge), open(pin, "rb") as file:
                bridge = self._netlink.link_lookup(ifname=end.bridge)
                if not bridge:
                    raise BridgeUnavailable(f"{end.bridge} is gone")
                peer = {"ifname": inner.name, "net_ns_fd": file.fileno(), "address": inner.mac}
                mtu = {"mtu": inner.mtu} if inner.mtu else {}
                # the host's end must not ask for addresses of its own, which IPv6 gives every interface that comes up
                self._netlink.link(
                    "add", ifname=interface, kind="veth", master=bridge[0], state="up", peer=peer | mtu, **mtu
                )
                if end.isolated:
                    index = self._netlink.link_lookup(ifname=interface)[0]
                    self._netlink.brport("set", index=index, isolated=1)
            namespaces.in_network_namespace(pin, lambda: self._configure_inner(inner))
        except BaseException:
            if is_new:
                namespaces.remove_network_namespace(pin)
            self.remove_interface(interface)
            raise

    def add_child(self, pin: Path, end: ChildEnd, inner: InnerEnd) -> None:
        """Join a namespace, which is made if it is not there, to the host's network. Raises as ``add_endpoint`` does."""
        is_new = not pin.exists()
        if is_new:
            namespaces.create_network_namespace(pin, self._owner)
        scratch = f"{INTERFACE_PREFIX}{os.urandom(5).hex()}"
        try:
            with self._refusal_told(end.parent), open(pin, "rb") as file:
                parent = self._netlink.link_lookup(ifname=end.parent)
                if not parent:
                    raise BridgeUnavailable(f"the parent interface {end.parent} is gone")
                mac = {"address": inner.mac} if end.kind == "macvlan" else {}
                self._netlink.link(
                    "add", ifname=scratch, kind=end.kind, link=parent[0], **{f"{end.kind}_mode": end.mode}, **mac
                )
                index = self._netlink.link_lookup(ifname=scratch)[0]
                mtu = {"mtu": inner.mtu} if inner.mtu else {}
                self._netlink.link("set", index=index, net_ns_fd=file.fileno(), ifname=inner.name, **mtu)
            namespaces.in_network_namespace(pin, lambda: self._configure_inner(inner))
        except BaseException:
            if is_new:
                namespaces.remove_network_namespace(pin)
            self.remove_interface(scratch)
            raise

    def let_turn_back(self, interface: str) -> None:
        """Let a bridge send back to an end what came from there: a container that asks the host for a port of its own.

        Only where bridged packets pass the firewall (br_netfilter) are they still the bridge's then. Raises BridgeUnavailable.
        """
        with self._refusal_told(interface):
            for index in self._netlink.link_lookup(ifname=interface):
                self._netlink.brport("set", index=index, mode=1)

    def lead_out(self, pin: Path, interface: str, gateways: Sequence[Address]) -> None:
        """Make the default routes of a namespace lead through one of its interfaces, or nowhere without any *gateways*.

        Raises BridgeUnavailable, as who is root in a container may have taken its addresses away, or OSError.
        """
        with self._refusal_told(interface):
            namespaces.in_network_namespace(pin, lambda: self._replace_default_routes(interface, gateways))

    def remove_inner(self, pin: Path, name: str) -> None:
        """Remove an interface inside a namespace, with the end that it has outside; gone already is no error."""

        def remove() -> None:
            with self._open() as netlink:
                for index in netlink.link_lookup(ifname=name):
                    with suppress(Exception):  # it went by itself
                        netlink.link("del", index=index)

        with suppress(FileNotFoundError):
            namespaces.in_network_namespace(pin, remove)

    def endpoints_on(self, bridge: str) -> list[str]:
        """The names of the outer ends that are joined to a bridge."""
        index = self._find_bridge(bridge)
        if index is None:
            return []
        return [
            str(link.get("ifname"))
            for link in self._netlink.get_links()
            if link.get("master") == index and str(link.get("ifname")).startswith(INTERFACE_PREFIX)
        ]

    def remove_bridge(self, name: str) -> None:
        """Remove a bridge; gone already is no error, and what has its name but is no bridge is not ours to remove."""
        index = self._find_bridge(name)
        if index is not None:
            self._netlink.link("del", index=index)

    def close(self) -> None:
        """Let go of the netlink socket."""
        self._netlink.close()

    def _find_bridge(self, name: str) -> int | None:
        for index in self._netlink.link_lookup(ifname=name):
            (link,) = self._netlink.get_links(index)
            if link.get(("linkinfo", "kind")) == "bridge":
                return int(index)
        return None

    @contextmanager
    def _refusal_told(self, what: str) -> Iterator[None]:
        """What the kernel refuses is told as BridgeUnavailable."""
        from pyroute2.netlink.exceptions import NetlinkError  # imported by IPRoute already

        try:
            yield
        except NetlinkError as error:
            raise BridgeUnavailable(f"{what}: {error}") from error

    def _addresses(self, index: int) -> list[str]:
        found = [a for family in _FAMILIES.values() for a in self._netlink.get_addr(family=family, index=index)]
        return [f"{a.get('address')}/{a['prefixlen']}" for a in found]

    def _configure_loopback(self) -> None:
        with self._open() as netlink:
            netlink.link("set", index=_LOOPBACK, state="up")

    def _configure_inner(self, inner: InnerEnd) -> None:
        with self._open() as netlink:
            netlink.link("set", index=_LOOPBACK, state="up")
            (index,) = netlink.link_lookup(ifname=inner.name)
            _set_sysctls(inner)
            for address in inner.addresses:
                length = address.network.prefixlen
                netlink.addr("add", index=index, address=str(address.ip), prefixlen=length, **_no_check(address))
            netlink.link("set", index=index, state="up")
            for gateway in inner.gateways:
                netlink.route("add", family=_FAMILIES[gateway.version], dst="default", gateway=str(gateway))

    def _replace_default_routes(self, interface: str, gateways: Sequence[Address]) -> None:
        with self._open() as netlink:
            for family in _FAMILIES.values():
                for route in netlink.get_default_routes(family=family, table=254):
                    netlink.route(
                        "del", family=family, dst="default", gateway=route.get("gateway"), oif=route.get("oif")
                    )
            found = netlink.link_lookup(ifname=interface)
            for gateway in gateways if found else ():
                family = _FAMILIES[gateway.version]
                netlink.route("add", family=family, dst="default", gateway=str(gateway), oif=found[0])


def lonely_name(network_id: str) -> str:
    """The parent's name in a network whose children have none of the host's."""
    return f"dm-{network_id[:12]}"


def random_mac() -> str:
    """A hardware address that is locally administered, for one interface."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + os.urandom(4))


def _no_check(address: Interface) -> dict[str, int]:
    """An IPv6 address of ours is nobody else's: without the second that the kernel takes to find out (IFA_F_NODAD)."""
    return {"flags": 0x02} if address.version == 6 else {}


def _set_sysctls(inner: InnerEnd) -> None:
    """*inner* tells names as ``net.ipv6.conf.IFNAME.…``, in which IFNAME stands for the interface. Raises OSError."""
    has_6 = any(address.version == 6 for address in inner.addresses)
    wanted = {f"net.ipv6.conf.{inner.name}.disable_ipv6": "0" if has_6 else "1"}
    wanted |= inner.sysctls
    for name, value in wanted.items():
        parts = (inner.name if part.upper() == "IFNAME" else part for part in name.split("."))
        path = Path("/proc/sys", *parts)
        if path.exists():
            path.write_text(value)
