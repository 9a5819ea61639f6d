"""What can go wrong with networks."""

from __future__ import annotations

from lamina.errors import Conflict, InvalidArgument, NotFound, Unavailable


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
