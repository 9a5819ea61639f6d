"""What a network is: the value that is stored and shown, and a container's place in it.

The field names are the Engine API's (Network, IPAM, IPAMConfig).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_network
from typing import Any

import msgspec

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address


def plain_address(text: str) -> Address:
    """An address without a zone (``%eth0``), which means something on one host's interface alone. Raises ValueError."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    return ip_address(text)


BUILT_IN = ("bridge", "host", "none")
ISOLATED_DRIVERS = ("host", "null")
"""Their networks have neither interfaces nor addresses."""
CHILD_DRIVERS = ("macvlan", "ipvlan")
"""Their endpoints are children of an interface of the host's, which sees to their way out."""


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """One range of a network's addresses (IPAMConfig). An empty ``ip_range`` gives out the whole subnet."""

    subnet: str = msgspec.field(name="Subnet", default="")
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = msgspec.field(name="Gateway", default="")
    auxiliary_addresses: dict[str, str] = msgspec.field(name="AuxiliaryAddresses", default={})

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_network(self.subnet).version

    def shown(self) -> dict[str, Any]:
        """As ``inspect`` shows it: what is empty is left out."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in fields.items() if value}


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network as it was asked for, complete.

    ``interface`` is its bridge's name on the host, a ``foreign`` one was there before and stays; ``chosen`` tells that nobody named a
    subnet.
    """

    id: str
    name: str
    driver: str
    created: str
    subnets: list[Subnet] = []
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    interface: str = ""
    foreign: bool = False
    chosen: bool = False

    @property
    def is_built_in(self) -> bool:
        """Whether it is one of those that always are there."""
        return self.name in BUILT_IN

    def subnet(self, version: int) -> Subnet | None:
        """The range that addresses of a version come from."""
        return next((s for s in self.subnets if s.version == version), None)


@dataclass(frozen=True)
class Endpoint:
    """A container's place in a network. ``sandbox`` is the path of its namespace, ``interface`` the host's end and ``name`` the other.

    What a network does not have is empty: on ``none`` there are no addresses, and no gateway without a way out.
    """

    id: str
    sandbox: str
    interface: str = ""
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""
    network_id: str = ""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    name: str = "eth0"


@dataclass(frozen=True)
class Wish:
    """What is asked for of an endpoint. ``likes`` are addresses to be had if they are free, as a container had them before."""

    ip: str | None = None
    ip6: str | None = None
    mac: str | None = None
    likes: Sequence[str] = ()
    link_local: Sequence[str] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)


ANYWHERE = Wish()
