"""Which subnet a network gets when nobody names one, and whether one that was named can be had.

The pools are docker's (daemon/libnetwork/ipamutils): 172.17 to 172.31 as /16, then 192.168 in /20. For IPv6 there is a prefix of the
host's own (RFC 4193), drawn once, from which every network gets a /64.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain, islice
from pathlib import Path

from lamina.linux.files import write_atomically
from lamina.network.errors import InvalidNetwork, NoSubnetLeft, SubnetOverlaps
from lamina.network.ipam import IPNetwork
from lamina.network.model import plain_address

_PREFIX6 = 64
_MOST_TRIED = 4096
"""Subnets of one pool that are looked at before it counts as full."""


@dataclass(frozen=True)
class SubnetPool:
    """A range that is cut into subnets of one size (``--default-address-pool``)."""

    base: IPNetwork
    prefix_len: int

    @classmethod
    def parse(cls, text: str) -> SubnetPool:
        """``base=10.10.0.0/16,size=24``. Raises InvalidNetwork."""
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        size_text = fields.get("size", "")
        if set(fields) != {"base", "size"} or not (size_text.isascii() and size_text.isdigit() and len(size_text) < 4):
            raise InvalidNetwork(f"invalid default address pool: {text!r}: write it as base=10.10.0.0/16,size=24")
        try:
            base = ip_network(fields["base"])
            plain_address(str(base.network_address))
        except ValueError as error:
            raise InvalidNetwork(f"invalid default address pool: {error}") from None
        size = int(fields["size"])
        if not base.prefixlen <= size <= base.max_prefixlen - 2:
            raise InvalidNetwork(f"invalid default address pool: size {size} does not fit into {base}")
        return cls(base, size)

    def subnets(self) -> Iterator[IPNetwork]:
        """Its parts, one after the other."""
        yield from islice(self.base.subnets(new_prefix=self.prefix_len), _MOST_TRIED)


DEFAULT_POOLS = (
    *(SubnetPool(IPv4Network(f"172.{number}.0.0/16"), 16) for number in range(30, 16, -1)),
    SubnetPool(IPv4Network("172.31.0.0/16"), 16),
    SubnetPool(IPv4Network("192.168.0.0/16"), 20),
)


def _own_prefix() -> IPv6Network:
    """A prefix that with all likelihood nobody else has (RFC 4193, 3.2)."""
    return IPv6Network((0xFD << 120 | secrets.randbits(40) << 80, 48))


def with_own_prefix(pools: Sequence[SubnetPool], path: Path) -> tuple[SubnetPool, ...]:
    """The pools, with one of the host's own for IPv6 if there is none; its prefix is kept in a file."""
    if any(pool.base.version == 6 for pool in pools):
        return tuple(pools)
    try:
        prefix = IPv6Network(path.read_text().strip())
    except FileNotFoundError:
        prefix = _own_prefix()
        write_atomically(path, f"{prefix}\n".encode())
    return (*pools, SubnetPool(prefix, _PREFIX6))


def free_subnet(version: int, pools: Sequence[SubnetPool], taken: Iterable[IPNetwork]) -> IPNetwork:
    """The first subnet of a version that overlaps none of those *taken*. Raises NoSubnetLeft."""
    used = [network for network in taken if network.version == version]
    own = [pool for pool in pools if pool.base.version == version]
    for candidate in chain.from_iterable(pool.subnets() for pool in own):
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise NoSubnetLeft(version)


def check_free(subnet: IPNetwork, networks: Iterable[IPNetwork]) -> None:
    """Refuse a subnet that overlaps another network's. Raises SubnetOverlaps."""
    if any(subnet.version == other.version and subnet.overlaps(other) for other in networks):
        raise SubnetOverlaps
