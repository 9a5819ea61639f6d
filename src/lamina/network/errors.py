"""What can go wrong with networks."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import Conflict, Forbidden, InvalidArgument, LaminaError, NotFound, Unavailable, Unsupported


class NetworkNotFound(NotFound):
    """No network has this name or ID."""

    def __init__(self, name: str) -> None:
        super().__init__(f"network {name} not found")
        self.name = name


class NoAddressLeft(Unavailable):
    """Every address of a network is taken."""

    def __init__(self, network: str) -> None:
        super().__init__(f"no available IPv4 addresses on this network's address pools: {network}")
        self.network = network


class AddressInUse(Conflict):
    """An address that was asked for is taken, or is not the network's to give."""

    def __init__(self, address: str) -> None:
        super().__init__(f"Address already in use or outside the network: {address}")
        self.address = address


class InvalidSubnet(InvalidArgument):
    """A subnet cannot be used for a network."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid bridge address {text!r}: {reason}")
        self.text = text


class InvalidBridgeName(InvalidArgument):
    """A text cannot name an interface."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"invalid bridge name {name!r}: an interface's name has at most 15 characters, without blanks and slashes"
        )
        self.name = name


class InvalidAddress(InvalidArgument):
    """What was asked for as an address of an endpoint is none. *kind* is IPv4 or MAC."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"invalid {kind} address: {text!r}")
        self.text = text


class BridgeUnavailable(Unavailable):
    """The bridge network could not be set up on this host; ``none`` and ``host`` work."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the bridge network is not available: {reason}")
        self.reason = reason


class InvalidNetwork(InvalidArgument):
    """What a network is asked to be makes no sense; the message is docker's."""


class NetworkExists(Conflict):
    """Another network has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"network with name {name} already exists")
        self.name = name


class AmbiguousNetwork(InvalidArgument):
    """The beginning of an ID is that of several networks."""

    def __init__(self, prefix: str, count: int) -> None:
        super().__init__(f"network {prefix} is ambiguous ({count} matches found based on ID prefix)")
        self.prefix = prefix


class PredefinedNetwork(Forbidden):
    """The built-in networks are neither made nor removed."""


class NetworkInUse(Conflict):
    """Containers have a place in the network. *holders* are their names and IDs."""

    def __init__(self, network: str, holders: Sequence[tuple[str, str]]) -> None:
        told = ", ".join(f'name:"{name}" id:"{container_id[:12]}"' for name, container_id in holders)
        super().__init__(f"error while removing network: network {network} has active endpoints ({told})")
        self.network = network
        self.holders = holders


class SubnetOverlaps(Forbidden):
    """A subnet that was asked for has addresses that another network has."""

    def __init__(self) -> None:
        super().__init__("invalid pool request: Pool overlaps with other one on this address space")


class NoSubnetLeft(Unavailable):
    """Every subnet of the default pools overlaps one that is in use."""

    def __init__(self, version: int) -> None:
        super().__init__(f"all predefined address pools have been fully subnetted (IPv{version})")
        self.version = version

    @property
    def hint(self) -> str:
        """What to do about it."""
        return "choose a subnet with --subnet, or give the daemon further ones with --default-address-pool"


class DriverNotFound(NotFound):
    """There is no driver of this name."""

    def __init__(self, driver: str) -> None:
        super().__init__(f"could not find plugin {driver} in v1 plugin registry: plugin not found")
        self.driver = driver


class DriverUnavailable(Unsupported):
    """The kernel lacks what a driver needs."""

    def __init__(self, driver: str, reason: str) -> None:
        super().__init__(f"networks of the driver {driver} are not available: {reason}")
        self.driver = driver


class ConnectionRefused(Forbidden):
    """A container cannot join, or leave, a network; the message is docker's."""


class PortAllocated(Conflict):
    """A port of the host's cannot be had: it is another container's, or another program's, or, unless it *is taken*, no port at all."""

    def __init__(
        self, address: str, port: int, reason: str = "port is already allocated", *, is_taken: bool = True
    ) -> None:
        place = f"[{address}]" if ":" in address else address
        super().__init__(f"Bind for {place}:{port} failed: {reason}")
        self.address = address
        self.port = port
        self.is_taken = is_taken


class PublishingFailed(LaminaError):
    """A container's ports could not be published; the message is docker's."""

    def __init__(self, container: str, endpoint_id: str, reason: LaminaError) -> None:
        super().__init__(
            "failed to set up container networking: driver failed programming external connectivity on endpoint "
            f"{container} ({endpoint_id}): {reason}"
        )
        self.container = container
        self.reason = reason


class InvalidPort(InvalidArgument):
    """A port, or a range of them, is none; the message is docker's."""
