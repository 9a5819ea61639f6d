"""Addresses of one subnet: each is given to one endpoint at a time."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from lamina.network.errors import AddressInUse, NoAddressLeft


class AddressPool:
    """The host addresses of the gateway's subnet, given out one after another so that one just freed is not met again at once."""

    def __init__(self, network: str, gateway: IPv4Interface) -> None:
        self._network = network
        self.gateway = gateway
        self._taken = {gateway.ip, gateway.network.network_address, gateway.network.broadcast_address}
        self._last = int(gateway.network.network_address)

    @property
    def subnet(self) -> IPv4Network:
        """The whole subnet."""
        return self.gateway.network

    def allocate(self) -> IPv4Address:
        """A free address. Raises NoAddressLeft."""
        first, size = int(self.subnet.network_address), self.subnet.num_addresses
        for step in range(1, size + 1):
            candidate = IPv4Address(first + (self._last - first + step) % size)
            if candidate not in self._taken:
                self._taken.add(candidate)
                self._last = int(candidate)
                return candidate
        raise NoAddressLeft(self._network)

    def reserve(self, address: IPv4Address) -> None:
        """Take a certain address. Raises AddressInUse."""
        if address in self._taken or address not in self.subnet:
            raise AddressInUse(str(address))
        self._taken.add(address)

    def release(self, address: IPv4Address) -> None:
        """Give an address back."""
        if address not in (self.gateway.ip, self.subnet.network_address, self.subnet.broadcast_address):
            self._taken.discard(address)
