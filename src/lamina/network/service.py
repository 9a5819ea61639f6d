"""The networks of one daemon on its host: endpoints handed out and taken back, some of them made ahead.

Making a namespace with its interfaces takes 15 ms, taking one that is ready none. So a few are kept ready on the default bridge, address
and all. The first endpoint of a container makes its *sandbox*, a namespace that is pinned by a mount; further ones join it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, ip_interface
from pathlib import Path
from typing import TypeVar

import msgspec

from lamina.linux.namespaces import remove_network_namespace
from lamina.linux.tasks import to_the_end
from lamina.network import built_in, firewall
from lamina.network.claims import Claims, NameTaken, check_interface_name
from lamina.network.errors import (
    AddressInUse,
    BridgeUnavailable,
    DriverUnavailable,
    InvalidAddress,
    InvalidBridgeName,
    InvalidSubnet,
    NetworkNotFound,
    NoAddressLeft,
    NoSubnetLeft,
)
from lamina.network.firewall import BridgeRules, PublishedPort
from lamina.network.ipam import AddressPool, IPNetwork
from lamina.network.links import INTERFACE_PREFIX, BridgeEnd, ChildEnd, InnerEnd, Links, lonely_name
from lamina.network.model import ANYWHERE, CHILD_DRIVERS, Endpoint, Interface, Network, Wish
from lamina.network.options import BridgeOptions, ChildOptions
from lamina.network.ready import ReadyEndpoints
from lamina.network.segments import Segment
from lamina.network.subnets import DEFAULT_POOLS, SubnetPool, free_subnet, with_own_prefix

T = TypeVar("T")
_log = logging.getLogger(__name__)
_SYSCTL = Path("/proc/sys/net")
_LONGEST_PREFIX = 30
_DEFAULT_BRIDGE = "lamina"
_DEFAULT_TABLE = "lamina"
_MOST_DAEMONS = 100
_GONE_PATIENCE_S = 2.0
_GONE_POLL_S = 0.02
_LEAVING_PATIENCE_S = 10.0
"""For the last of those who leave a network that is to be removed; on a busy host the kernel takes its time."""
_MAC = re.compile("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class NetworkService:
    """The networks on the host. Bridges, one nftables table and one directory of pinned namespaces belong to it alone."""

    def __init__(
        self,
        root: Path,
        run_root: Path,
        *,
        bridge: str | None,
        bip: str | None,
        table: str | None,
        ready: int = 2,
        owner: Callable[[Path], None] | None = None,
        pools: Iterable[SubnetPool] = DEFAULT_POOLS,
    ) -> None:
        """Touches nothing yet. Without a *bridge* and a *table*, ``start`` chooses names that no other daemon uses.

        *bip* is the default bridge's address with its prefix length; *owner* makes namespaces that another user namespace owns. Raises
        InvalidSubnet, InvalidBridgeName.
        """
        if bridge is not None and not check_interface_name(bridge):
            raise InvalidBridgeName(bridge)
        self._owner = owner
        self._root = root
        self._pins = run_root
        self._wanted_bridge = bridge
        self._wanted_table = table
        self._claims = Claims()
        self.bridge = ""
        self._bridge_is_foreign = False
        self.table = ""
        self.subnet_pools = tuple(pools)
        self._wanted_bip = _gateway_of(bip) if bip else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._links: Links | None = None
        self._segments: dict[str, Segment] = {}
        self._ports: set[PublishedPort] = set()
        self._rules_lock = asyncio.Lock()
        self._leaving: dict[asyncio.Task[None], Endpoint] = {}
        self._ready = ReadyEndpoints(ready, lambda: self._make(self._default))
        self.ids: dict[str, str] = {}

    @property
    def pool(self) -> AddressPool | None:
        """The default bridge's addresses; None if it could not be set up."""
        segment = self._segments.get(self.ids.get("bridge", ""))
        return segment.pools.get(4) if segment is not None and segment.failure is None else None

    @property
    def built_in(self) -> list[Network]:
        """The networks that always are there."""
        return built_in.definitions(self.ids, self.bridge, self.pool)

    async def start(
        self,
        live: Iterable[Endpoint],
        networks: Iterable[Network] = (),
        ports: Callable[[], Iterable[PublishedPort]] = tuple,
    ) -> None:
        """Set all networks up, take over the endpoints of running containers and their ports, remove all other endpoints.

        *ports* is asked when the networks are known, and before the rules are written, so that no port leads nowhere in between.
        A network that cannot be set up on this host tells why when an endpoint is asked for; ``none`` and ``host`` always work. Raises
        NameTaken if another daemon uses the bridge or the table that was asked for.
        """
        self._pins.mkdir(parents=True, exist_ok=True)
        self._root.mkdir(parents=True, exist_ok=True)
        self.ids = built_in.load_ids(self._root / "ids.json")
        self.subnet_pools = with_own_prefix(self.subnet_pools, self._root / "prefix6")
        kept = list(live)
        await self._in_thread(self._choose_names)
        self._segments[self.ids["bridge"]] = await self._default_segment()
        for network in networks:
            self._segments[network.id] = await self._set_up(network)
        self._ports = set(ports())
        await self._install_rules()
        for endpoint in kept:
            segment = self._segments.get(endpoint.network_id)
            if segment is not None:
                segment.take_over(endpoint)
        await self._in_thread(lambda: self._remove_strays(kept))
        if self._default.failure is None:
            self._ready.fill_later()

    async def add(self, network: Network) -> None:
        """Set a new network up. Raises BridgeUnavailable; nothing is left then."""
        segment = await self._set_up(network)
        if segment.failure is not None:
            await self._in_thread(partial(self._remove_host_side, segment))
            raise segment.failure
        self._segments[network.id] = segment
        try:
            if segment.rules is not None:
                await self._write_rules()
        except BaseException:
            await to_the_end(self.drop(network))
            raise

    async def drop(self, network: Network) -> None:
        """Take a network that has no endpoints away from the host."""
        segment = self._segments.pop(network.id, None)
        if segment is not None:
            if segment.rules is not None:
                await self._install_rules()
            await self._in_thread(partial(self._remove_host_side, segment))

    async def has_interface(self, name: str) -> bool:
        """Whether the host has an interface of a name, which is not ours then."""
        return bool(name) and await self._in_thread(lambda: self._require_links().has_interface(name))

    def close_to_newcomers(self, network: Network, *, closed: bool) -> None:
        """Let nobody join a network that is about to go, or let them again."""
        segment = self._segments.get(network.id)
        if segment is not None:
            segment.is_closed = closed

    async def is_used(self, network: Network) -> bool:
        """Whether somebody has, or is about to have, an address in a network; those who are leaving are waited for."""
        segment = self._segments.get(network.id)
        for _ in range(int(_LEAVING_PATIENCE_S / _GONE_POLL_S)):
            if segment is None or not segment.is_used:
                return False
            await asyncio.sleep(_GONE_POLL_S)
        return True

    async def used_subnets(self) -> list[IPNetwork]:
        """The networks that the host has routes to."""
        return await self._in_thread(lambda: self._require_links().routes())

    async def acquire(self, network: str, wish: Wish = ANYWHERE) -> Endpoint:
        """An endpoint, by the network's ID or a built-in one's name, in a new sandbox.

        On failure, and when cancelled, nothing is left behind. Raises NetworkNotFound, InvalidAddress, BridgeUnavailable,
        NoAddressLeft or AddressInUse.
        """
        if network in ("none", self.ids["none"]):
            return await self._make_isolated()
        segment = self._segment(network)
        check_addresses(wish.ip, wish.mac)
        if segment is self._default and wish == ANYWHERE and segment.failure is None:
            ready = self._ready.take()
            if ready is not None:
                return ready
        return await self._acquire(segment, wish)

    async def attach(self, sandbox: str, network: str, name: str, wish: Wish = ANYWHERE) -> Endpoint:
        """A further endpoint in a sandbox, as its interface *name*. Raises as ``acquire`` does."""
        check_addresses(wish.ip, wish.mac)
        return await self._acquire(self._segment(network), wish, sandbox, name)

    async def detach(self, endpoint: Endpoint) -> None:
        """Take one endpoint out of its sandbox, which stays, and free its addresses."""
        await self._in_thread(lambda: self._require_links().remove_inner(Path(endpoint.sandbox), endpoint.name))
        self._free(endpoint)

    async def lead_out(self, endpoint: Endpoint) -> None:
        """Make a sandbox's default routes those of one of its endpoints, or none if it has no way out."""
        addresses = _interfaces(endpoint)
        segment = self._segments.get(endpoint.network_id)
        gateways = segment.ways_out(addresses) if segment is not None else []
        pin = Path(endpoint.sandbox)
        await self._in_thread(lambda: self._require_links().lead_out(pin, endpoint.name, gateways))

    def leads_out(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint's network has a way out."""
        segment = self._segments.get(endpoint.network_id)
        return segment is not None and bool(segment.ways_out(_interfaces(endpoint)))

    def segment_of(self, endpoint: Endpoint) -> Segment | None:
        """The network of an endpoint, None on ``host`` and ``none``."""
        return self._segments.get(endpoint.network_id)

    async def release(self, endpoint: Endpoint, *others: Endpoint) -> None:
        """Remove a sandbox with its endpoints and free their addresses; gone already is no error.

        It is done to its end when cancelled too.
        """
        await to_the_end(self._remove(endpoint, others))

    async def publish(self, ports: Iterable[PublishedPort], interface: str = "") -> None:
        """Let ports of the host's lead to containers, of which one is at *interface*.

        Raises BridgeUnavailable; they lead nowhere then.
        """
        new = set(ports)
        if interface and new:
            await self._in_thread(lambda: self._require_links().let_turn_back(interface))
        await to_the_end(self._publish(new))

    async def _publish(self, new: set[PublishedPort]) -> None:
        async with self._rules_lock:
            await firewall.publish(self.table, new)
            self._ports |= new

    async def withdraw(self, ports: Iterable[PublishedPort]) -> None:
        """Let ports lead nowhere any more."""
        await to_the_end(self._withdraw(set(ports)))

    async def _withdraw(self, ports: set[PublishedPort]) -> None:
        async with self._rules_lock:
            gone = self._ports & ports
            self._ports -= gone
            if gone:
                try:
                    await firewall.withdraw(self.table, gone)
                except BridgeUnavailable as error:
                    _log.warning("%s", error)

    async def settled(self) -> None:
        """Return when the kernel has taken away the interfaces of all that was released."""
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def close(self, *, remove: bool) -> None:
        """Let go; with *remove* bridges and rules vanish too, which is for when no container uses them."""
        for endpoint in await self._ready.close():
            await self.release(endpoint)
        await self.settled()
        if (
            remove
            and self._links is not None
            and not await self._in_thread(lambda: self._require_links().endpoints_on(self.bridge))
        ):
            for segment in self._segments.values():
                await self._in_thread(partial(self._remove_host_side, segment))
            with suppress(BridgeUnavailable):
                await firewall.remove(self.table)
        if self._links is not None:
            await self._in_thread(self._links.close)
        self._claims.release()
        self._thread.shutdown(wait=False)

    @property
    def _default(self) -> Segment:
        return self._segments[self.ids["bridge"]]

    def _segment(self, network: str) -> Segment:
        segment = self._segments.get(self.ids["bridge"] if network == "bridge" else network)
        if segment is None:
            raise NetworkNotFound(network)
        return segment

    async def _default_segment(self) -> Segment:
        """The default bridge, set up; its subnet is what was asked for, or what it has, or the first that is free."""
        name = self.bridge
        nowhere = Segment(self._default_definition(None), {}, BridgeEnd(name))
        try:
            links = self._require_links()
            gateway = await self._in_thread(
                lambda: self._wanted_bip or links.bridge_address(name) or self._free_bip(links)
            )
            pool = AddressPool(f"bridge ({self.ids['bridge']})", gateway)
            network = self._default_definition(pool)
            rules = BridgeRules(name, [pool.subnet])
            segment = Segment(network, {4: pool}, BridgeEnd(name), rules=rules)
            await self._in_thread(lambda: links.ensure_bridge(name, [gateway]))
            _enable("ipv4/ip_forward")
        except (BridgeUnavailable, OSError) as error:
            nowhere.failure = error if isinstance(error, BridgeUnavailable) else BridgeUnavailable(str(error))
            _log.warning("%s", nowhere.failure)
            return nowhere
        return segment

    def _default_definition(self, pool: AddressPool | None) -> Network:
        network = built_in.definitions(self.ids, self.bridge, pool)[0]
        return msgspec.structs.replace(network, foreign=self._bridge_is_foreign)

    def _free_bip(self, links: Links) -> IPv4Interface:
        own = [p for p in self.subnet_pools if p.base.version == 4] or DEFAULT_POOLS
        try:
            subnet = free_subnet(4, own, links.routes())
        except NoSubnetLeft:
            raise BridgeUnavailable(
                "every default subnet overlaps a route of this host; choose one with --bip"
            ) from None
        return IPv4Interface((subnet.network_address + 1, subnet.prefixlen))

    async def _set_up(self, network: Network) -> Segment:
        """A network's side on the host. What fails is the segment's failure."""
        links = self._require_links()
        if network.driver in CHILD_DRIVERS:
            segment = Segment.of_child(network, ChildOptions.parse(network.driver, network.options))
            work = partial(self._set_up_parent, segment)
        else:
            segment = Segment.of_bridge(network, BridgeOptions.parse(network.options))
            work = partial(links.ensure_bridge, network.interface, segment.gateways, mtu=segment.mtu)
        try:
            await self._in_thread(work)
            if network.enable_ipv6 and segment.rules is not None:
                _enable("ipv6/conf/all/forwarding")
        except (BridgeUnavailable, OSError) as error:
            reason = error.reason if isinstance(error, BridgeUnavailable) else str(error)
            is_child = network.driver in CHILD_DRIVERS
            segment.failure = DriverUnavailable(network.driver, reason) if is_child else BridgeUnavailable(reason)
            _log.warning("network %s: %s", network.name, segment.failure)
        return segment

    def _set_up_parent(self, segment: Segment) -> None:
        end = segment.end
        assert isinstance(end, ChildEnd)
        links = self._require_links()
        parent = links.ensure_parent(end.parent, network_id=segment.network.id)
        segment.end = ChildEnd(parent, end.kind, end.mode)
        try:
            links.check_child(parent, end.kind)
        except BridgeUnavailable:
            self._remove_host_side(segment)
            raise

    def _remove_host_side(self, segment: Segment) -> None:
        links = self._require_links()
        if isinstance(segment.end, BridgeEnd):
            if not segment.network.foreign and not links.endpoints_on(segment.end.bridge):
                links.remove_bridge(segment.end.bridge)
        elif segment.end.parent == lonely_name(segment.network.id):
            links.remove_interface(segment.end.parent)

    async def _install_rules(self) -> None:
        """Write all rules; a host without nftables has no bridge networks."""
        try:
            await self._write_rules()
        except BridgeUnavailable as error:
            _log.warning("%s", error)
            for segment in self._segments.values():
                if segment.rules is not None:
                    segment.failure = segment.failure or error

    async def _write_rules(self) -> None:
        async with self._rules_lock:
            rules = [s.rules for s in self._segments.values() if s.rules is not None and s.failure is None]
            await firewall.install(self.table, rules, self._ports)

    async def _make_isolated(self) -> Endpoint:
        endpoint_id = secrets.token_hex(32)
        endpoint = Endpoint(endpoint_id, str(self._pins / endpoint_id[:12]), network_id=self.ids["none"])
        try:
            await self._in_thread(lambda: self._require_links().make_sandbox(Path(endpoint.sandbox)))
        except BaseException:
            self._undo(endpoint, is_first=True)
            raise
        return endpoint

    async def _acquire(self, segment: Segment, wish: Wish, sandbox: str | None = None, name: str = "") -> Endpoint:
        # who comes back at once has its addresses again when the kernel has taken its old interfaces away
        own = [task for task, leaving in self._leaving.items() if {leaving.ip, leaving.ip6} & set(wish.likes)]
        if own:
            await asyncio.wait(own)
        try:
            return await self._make(segment, wish, sandbox, name)
        except (AddressInUse, NoAddressLeft):
            if not self._leaving and not (segment is self._default and self._ready.hold_any):
                raise
        # one that is ready may hold the address, or one on its way out; who asks comes before who may ask
        if segment is self._default:
            for endpoint in await self._ready.give_up():
                await self.release(endpoint)
        await self.settled()
        try:
            return await self._make(segment, wish, sandbox, name)
        finally:
            if segment is self._default:
                self._ready.fill_later()

    async def _make(
        self, segment: Segment, wish: Wish = ANYWHERE, sandbox: str | None = None, name: str = ""
    ) -> Endpoint:
        endpoint_id = secrets.token_hex(32)
        addresses = segment.take(endpoint_id, wish)
        inner = segment.inner(addresses, name or f"{segment.interface_prefix}0", wish)
        interface = f"{INTERFACE_PREFIX}{endpoint_id[:12]}" if isinstance(segment.end, BridgeEnd) else ""
        place = sandbox or str(self._pins / endpoint_id[:12])
        endpoint = _endpoint(endpoint_id, place, interface, segment, inner, addresses)
        if sandbox is not None:  # which of the ways out is taken is for all endpoints of a sandbox together
            inner = replace(inner, gateways=())
        try:
            await self._in_thread(lambda: self._join(Path(place), interface, segment, inner))
        except BaseException:
            self._undo(endpoint, is_first=sandbox is None)
            raise
        return endpoint

    def _join(self, pin: Path, interface: str, segment: Segment, inner: InnerEnd) -> None:
        links = self._require_links()
        if isinstance(segment.end, BridgeEnd):
            links.add_endpoint(pin, interface, segment.end, inner)
        else:
            links.add_child(pin, segment.end, inner)

    def _undo(self, endpoint: Endpoint, *, is_first: bool) -> None:
        """Remove what a failed or cancelled making left.

        The thread may be in the midst of it: the removal comes next there, and before anything that the freed address is used for.
        """
        self._thread.submit(self._remove_links, endpoint, is_first)
        self._free(endpoint)

    async def _remove(self, endpoint: Endpoint, others: Iterable[Endpoint]) -> None:
        """Let the kernel take the interfaces away with the namespace, which it does for many at once; their addresses are free then."""
        await asyncio.to_thread(remove_network_namespace, Path(endpoint.sandbox))
        for member in (endpoint, *others):
            if not member.interface:
                self._free(member)
                continue
            task = asyncio.ensure_future(self._free_when_gone(member))
            self._leaving[task] = member
            task.add_done_callback(self._leaving.pop)

    def _remove_links(self, endpoint: Endpoint, with_sandbox: bool) -> None:
        if with_sandbox:
            remove_network_namespace(Path(endpoint.sandbox))
        if endpoint.interface:
            self._require_links().remove_interface(endpoint.interface)
        elif not with_sandbox:
            self._require_links().remove_inner(Path(endpoint.sandbox), endpoint.name)

    async def _free_when_gone(self, endpoint: Endpoint) -> None:
        deadline = time.monotonic() + _GONE_PATIENCE_S
        while _exists(endpoint.interface):
            if time.monotonic() > deadline:
                await self._in_thread(partial(self._remove_links, endpoint, True))  # somebody keeps the namespace
                break
            await asyncio.sleep(_GONE_POLL_S)
        self._free(endpoint)

    def _free(self, endpoint: Endpoint) -> None:
        segment = self._segments.get(endpoint.network_id)
        if segment is not None:
            segment.give_back(endpoint.id)

    def _choose_names(self) -> None:
        """Claim a bridge and a table: those asked for, or those of last time, or the first that nobody uses."""
        remembered = self._root / "bridge"
        last, _, was_foreign = (remembered.read_text() if remembered.exists() else "").strip().partition(" ")
        numbered = [f"{_DEFAULT_BRIDGE}{number}" for number in range(_MOST_DAEMONS)]
        candidates = (
            [self._wanted_bridge] if self._wanted_bridge else list(dict.fromkeys([last or numbered[0], *numbered]))
        )
        for name in candidates:
            links = Links(self._owner)
            is_foreign = (
                self._wanted_bridge is None and name != last and set(links.endpoints_on(name)) - self._own_interfaces()
            )
            if not is_foreign and self._claims.take("bridge", name):
                break
            links.close()
        else:
            raise NameTaken("bridge", candidates[0])
        suffix = name.removeprefix(_DEFAULT_BRIDGE) if name in numbered[1:] else ""
        is_there = links.has_interface(name)
        self._bridge_is_foreign = is_there and (bool(was_foreign) if name == last else self._wanted_bridge is not None)
        self.bridge, self.table, self._links = name, self._wanted_table or f"{_DEFAULT_TABLE}{suffix}", links
        if not self._claims.take("table", self.table):
            self._claims.release()
            links.close()
            raise NameTaken("table", self.table)
        remembered.write_text(f"{name} foreign" if self._bridge_is_foreign else name)

    def _own_interfaces(self) -> set[str]:
        """The outer ends of all namespaces that this run root pins, whoever made them."""
        return {f"{INTERFACE_PREFIX}{pin.name}" for pin in self._pins.iterdir()}

    def _require_links(self) -> Links:
        assert self._links is not None
        return self._links

    def _remove_strays(self, kept: list[Endpoint]) -> None:
        """Only what this run root pins is looked at: what else is on the bridge may be another daemon's that was killed."""
        sandboxes = {endpoint.sandbox for endpoint in kept}
        for pin in self._pins.iterdir():
            if str(pin) not in sandboxes:
                remove_network_namespace(pin)
                self._require_links().remove_interface(f"{INTERFACE_PREFIX}{pin.name}")
        known = {endpoint.interface for endpoint in kept}
        for segment in self._segments.values():
            # a daemon that was killed while it joined a container to a network has left an end that no record knows
            if segment is not self._default and isinstance(segment.end, BridgeEnd):
                for interface in set(self._require_links().endpoints_on(segment.end.bridge)) - known:
                    self._require_links().remove_interface(interface)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def check_addresses(ip: str | None, mac: str | None) -> None:
    """Refuse what no endpoint can have. Raises InvalidAddress."""
    if ip:
        try:
            IPv4Address(ip)
        except ValueError:
            raise InvalidAddress("IPv4", ip) from None
    if mac and not _MAC.fullmatch(mac):
        raise InvalidAddress("MAC", mac)


def _gateway_of(bip: str) -> IPv4Interface:
    try:
        gateway = IPv4Interface(bip)
    except ValueError as error:
        raise InvalidSubnet(bip, str(error)) from None
    if gateway.network.prefixlen > _LONGEST_PREFIX:
        raise InvalidSubnet(bip, "it leaves no address for a container; write it as 10.1.0.1/16")
    if gateway.ip in (gateway.network.network_address, gateway.network.broadcast_address):
        raise InvalidSubnet(bip, "it is the address of the network or of all its hosts, not of one")
    return gateway


def _endpoint(
    endpoint_id: str,
    sandbox: str,
    interface: str,
    segment: Segment,
    inner: InnerEnd,
    addresses: Sequence[Interface],
) -> Endpoint:
    """What is told of an endpoint that *inner* is the end of, with the network's *addresses*."""
    by_version = {address.version: address for address in addresses}
    gateways = {gateway.version: str(gateway) for gateway in inner.gateways}
    fourth, sixth = by_version.get(4), by_version.get(6)
    return Endpoint(
        id=endpoint_id,
        sandbox=sandbox,
        interface=interface,
        ip=str(fourth.ip) if fourth else "",
        prefix_len=fourth.network.prefixlen if fourth else 0,
        gateway=gateways.get(4, ""),
        mac=inner.mac,
        network_id=segment.network.id,
        ip6=str(sixth.ip) if sixth else "",
        prefix_len6=sixth.network.prefixlen if sixth else 0,
        gateway6=gateways.get(6, ""),
        name=inner.name,
    )


def _interfaces(endpoint: Endpoint) -> list[Interface]:
    pairs = ((endpoint.ip, endpoint.prefix_len), (endpoint.ip6, endpoint.prefix_len6))
    return [ip_interface(f"{ip}/{length}") for ip, length in pairs if ip]


def _enable(name: str) -> None:
    """Switch a setting of the kernel's networks on. Raises OSError."""
    path = _SYSCTL / name
    if path.read_text().strip() != "1":
        path.write_text("1")


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True
