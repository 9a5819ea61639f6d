"""Addresses of one subnet: each is given to one endpoint at a time."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from lamina.network.errors import AddressInUse, NoAddressLeft
from lamina.network.model import Address, Interface, Subnet, plain_address

IPNetwork = IPv4Network | IPv6Network


class AddressPool:
    """The host addresses of the gateway's subnet, given out one after another so that one just freed is not met again at once.

    *within* is the part of the subnet that is given out without being asked for; *reserved* addresses are nobody's.
    """

    def __init__(
        self, network: str, gateway: Interface, within: IPNetwork | None = None, reserved: Iterable[Address] = ()
    ) -> None:
        self._network = network
        self.gateway = gateway
        self._never: set[Address] = {gateway.ip, gateway.network.network_address, *reserved}
        if gateway.version == 4:
            self._never.add(gateway.network.broadcast_address)
        self._taken = set(self._never)
        self._within = within or gateway.network
        self._last = int(self._within.network_address)

    @classmethod
    def of(cls, network: str, subnet: Subnet) -> AddressPool:
        """The pool of a subnet that was checked."""
        whole = ip_network(subnet.subnet)
        gateway = ip_interface(f"{subnet.gateway or whole.network_address}/{whole.prefixlen}")
        within = ip_network(subnet.ip_range) if subnet.ip_range else None
        return cls(network, gateway, within, [ip_address(text) for text in subnet.auxiliary_addresses.values()])

    @property
    def subnet(self) -> IPNetwork:
        """The whole subnet."""
        return self.gateway.network

    def contains(self, text: str) -> bool:
        """Whether a text is one of the addresses that can be asked for."""
        try:
            address = plain_address(text)
        except ValueError:
            return False
        return address in self.subnet and address not in self._never

    def allocate(self) -> Address:
        """A free address. Raises NoAddressLeft."""
        first, size = int(self._within.network_address), self._within.num_addresses
        for step in range(1, min(size, len(self._taken) + 1) + 1):
            candidate = self._within[(self._last - first + step) % size]
            if candidate not in self._taken:
                self._taken.add(candidate)
                self._last = int(candidate)
                return candidate
        raise NoAddressLeft(self._network)

    def reserve(self, address: Address) -> None:
        """Take a certain address. Raises AddressInUse."""
        if address in self._taken or address not in self.subnet:
            raise AddressInUse(str(address))
        self._taken.add(address)

    def release(self, address: Address) -> None:
        """Give an address back."""
        if address not in self._never:
            self._taken.discard(address)
