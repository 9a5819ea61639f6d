"""A network as it is on this host: the addresses that it has to give, and what its endpoints are joined to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface

from lamina.network.errors import AddressInUse, BridgeUnavailable, DriverUnavailable, InvalidAddress, NetworkNotFound
from lamina.network.firewall import BridgeRules
from lamina.network.ipam import AddressPool
from lamina.network.links import BridgeEnd, ChildEnd, InnerEnd, random_mac
from lamina.network.model import Address, Endpoint, Interface, Network, Wish, plain_address
from lamina.network.options import BridgeOptions, ChildOptions


@dataclass
class Segment:
    """One network. ``failure`` tells why it could not be set up; it gives no endpoints then."""

    network: Network
    pools: dict[int, AddressPool]
    end: BridgeEnd | ChildEnd
    mtu: int = 0
    rules: BridgeRules | None = None
    host_binding: str = ""
    interface_prefix: str = "eth"
    failure: BridgeUnavailable | DriverUnavailable | None = None
    is_closed: bool = False
    """Whether it is about to go."""
    _held: dict[str, list[Address]] = field(default_factory=dict)
    """By endpoint, so that a second release frees nobody else's address."""

    @classmethod
    def of_bridge(cls, network: Network, options: BridgeOptions) -> Segment:
        """A network with a bridge of its own."""
        pools = _pools(network)
        rules = BridgeRules(
            network.interface,
            [pool.subnet for pool in pools.values()],
            internal=network.internal,
            icc=options.icc,
            masquerade=options.masquerade,
            modes=(options.gateway_mode4, options.gateway_mode6),
        )
        return cls(
            network,
            pools,
            BridgeEnd(network.interface, isolated=not options.icc),
            mtu=options.mtu,
            rules=rules,
            host_binding=options.host_binding,
            interface_prefix=options.interface_prefix,
        )

    @classmethod
    def of_child(cls, network: Network, options: ChildOptions) -> Segment:
        """A network whose endpoints are children of an interface of the host's."""
        return cls(network, _pools(network), ChildEnd(options.parent, network.driver, options.mode), mtu=options.mtu)

    @property
    def gateways(self) -> list[Interface]:
        """The addresses that the bridge has."""
        return [pool.gateway for pool in self.pools.values()]

    @property
    def is_used(self) -> bool:
        """Whether somebody has an address."""
        return bool(self._held)

    def is_routed(self, address: str) -> bool:
        """Whether others come to an address itself, and not by the host's."""
        return self.rules is not None and self.rules.modes[":" in address] == "routed"

    def take(self, endpoint_id: str, wish: Wish) -> tuple[Interface, ...]:
        """Addresses for an endpoint, one of each version. Raises InvalidAddress, AddressInUse or NoAddressLeft; nothing is taken then."""
        if self.failure is not None:
            raise self.failure
        if self.is_closed:
            raise NetworkNotFound(self.network.name)
        wanted = {4: wish.ip, 6: wish.ip6}
        likes = [ip_address(text) for text in wish.likes]
        taken: list[Address] = []
        try:
            for version, pool in self.pools.items():
                text = wanted[version]
                taken.append(_exactly(pool, text, version) if text else _preferably(pool, likes))
        except BaseException:
            for address in taken:
                self.pools[address.version].release(address)
            raise
        self._held[endpoint_id] = taken
        return tuple(ip_interface(f"{a}/{self.pools[a.version].subnet.prefixlen}") for a in taken)

    def take_over(self, endpoint: Endpoint) -> None:
        """Note the addresses of an endpoint that there is. Those of another subnet, if the network was changed, are nobody's."""
        for text in (endpoint.ip, endpoint.ip6):
            address = ip_address(text) if text else None
            pool = self.pools.get(address.version) if address is not None else None
            if pool is not None and address is not None:
                try:
                    pool.reserve(address)
                except AddressInUse:
                    continue
                self._held.setdefault(endpoint.id, []).append(address)

    def give_back(self, endpoint_id: str) -> None:
        """Free an endpoint's addresses; freeing them again is no error."""
        for address in self._held.pop(endpoint_id, ()):
            self.pools[address.version].release(address)

    def inner(self, addresses: Sequence[Interface], name: str, wish: Wish) -> InnerEnd:
        """The end inside a container that has *addresses*."""
        first = addresses[0] if addresses else None
        mac = wish.mac or (_mac_of(first) if first is not None and first.version == 4 else random_mac())
        more = [ip_interface(f"{text}/{64 if ':' in text else 16}") for text in wish.link_local]
        return InnerEnd([*addresses, *more], self.ways_out(addresses), mac, name, self.mtu, wish.sysctls)

    def ways_out(self, addresses: Sequence[Interface]) -> list[Address]:
        """The gateways by which one who has *addresses* gets out; none of a network that is internal."""
        if self.network.internal:
            return []
        found = (self.network.subnet(a.version) for a in addresses)
        return [ip_address(subnet.gateway) for subnet in found if subnet is not None and subnet.gateway]


def _pools(network: Network) -> dict[int, AddressPool]:
    """The address pools by version; of several subnets of one version the first gives the addresses, as with docker."""
    found: dict[int, AddressPool] = {}
    for subnet in network.subnets:
        found.setdefault(subnet.version, AddressPool.of(f"{network.name} ({network.id})", subnet))
    return found


def _exactly(pool: AddressPool, text: str, version: int) -> Address:
    try:
        address = plain_address(text)
    except ValueError:
        raise InvalidAddress(f"IPv{version}", text) from None
    if address.version != version:
        raise InvalidAddress(f"IPv{version}", text)
    pool.reserve(address)
    return address


def _preferably(pool: AddressPool, likes: Sequence[Address]) -> Address:
    for address in likes:
        if address.version == pool.subnet.version:
            try:
                pool.reserve(address)
            except AddressInUse:
                continue
            return address
    return pool.allocate()


def _mac_of(address: Interface) -> str:
    """A locally administered address that is unique in the subnet, as the IP address is (docker's rule)."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.ip.packed)
