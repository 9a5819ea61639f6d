"""nftables: a table of lamina's own, changed in one transaction, never doubled.

The chain ``admin`` is the administrator's: it is looked through first for everything that is forwarded to or from containers, and lamina
never writes to it. All else is written anew from what there is to be, so that a restart, or a table that somebody changed, ends in the
same rules. Published ports are elements of maps (family, then with or without an address of the host's), which come and go without
touching a rule.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from lamina.linux import processes
from lamina.network.errors import BridgeUnavailable
from lamina.network.ipam import IPNetwork
from lamina.network.options import GatewayMode

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_BASE = """
add table inet {table}
add chain inet {table} admin
add set inet {table} bridges {{ type ifname; }}
add map inet {table} any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {table} any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add map inet {table} at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {table} at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
add set inet {table} open4 {{ type ipv4_addr . inet_proto . inet_service; }}
add set inet {table} open6 {{ type ipv6_addr . inet_proto . inet_service; }}
add chain inet {table} guard {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet {table} published
add chain inet {table} prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain inet {table} output {{ type nat hook output priority -100; policy accept; }}
add chain inet {table} confine
add chain inet {table} to
add chain inet {table} from
add chain inet {table} forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet {table} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush set inet {table} bridges
flush map inet {table} any4
flush map inet {table} any6
flush map inet {table} at4
flush map inet {table} at6
flush set inet {table} open4
flush set inet {table} open6
flush chain inet {table} guard
flush chain inet {table} published
flush chain inet {table} prerouting
flush chain inet {table} output
flush chain inet {table} confine
flush chain inet {table} to
flush chain inet {table} from
flush chain inet {table} forward
flush chain inet {table} postrouting
add rule inet {table} guard iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule inet {table} published dnat ip to ip daddr . meta l4proto . th dport map @at4
add rule inet {table} published dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
add rule inet {table} published dnat ip to meta l4proto . th dport map @any4
add rule inet {table} published ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @any6
add rule inet {table} prerouting fib daddr type local jump published
add rule inet {table} output fib daddr type local jump published
add rule inet {table} forward iifname @bridges jump admin
add rule inet {table} forward oifname @bridges jump admin
add rule inet {table} forward jump confine
add rule inet {table} forward oifname @bridges jump to
add rule inet {table} forward iifname @bridges jump from
add rule inet {table} to ct state established,related accept
add rule inet {table} to ip daddr . meta l4proto . th dport @open4 accept
add rule inet {table} to ip6 daddr . meta l4proto . th dport @open6 accept
add rule inet {table} postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
"""
_BRIDGE = """
add element inet {table} bridges {{ "{bridge}" }}
"""


@dataclass(frozen=True)
class BridgeRules:
    """What may go to and from one bridge's containers."""

    bridge: str
    subnets: Sequence[IPNetwork]
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    modes: tuple[GatewayMode, GatewayMode] = ("nat", "nat")
    """For IPv4 and for IPv6."""

    def mode(self, subnet: IPNetwork) -> GatewayMode:
        """How the way out of a subnet is."""
        return self.modes[subnet.version == 6]


@dataclass(frozen=True)
class PublishedPort:
    """A port of the host's that leads to a container: of the address told, or of all that the host has of the target's family.

    In a network that is *routed* to, others come to the container's own address, and the host's has nothing to do with it.
    """

    protocol: str
    address: str
    port: int
    target: str
    target_port: int
    routed: bool = False

    def element(self) -> tuple[str, str, str]:
        """The map or set that it belongs to, its key and its value, which sets have none of."""
        version = ip_address(self.target).version
        if self.routed:
            return f"open{version}", f"{self.target} . {PROTOCOLS[self.protocol]} . {self.target_port}", ""
        service = f"{PROTOCOLS[self.protocol]} . {self.port}"
        value = f"{self.target} . {self.target_port}"
        if self.address:
            return f"at{version}", f"{self.address} . {service}", value
        return f"any{version}", service, value


async def install(table: str, bridges: Iterable[BridgeRules], ports: Iterable[PublishedPort]) -> None:
    """Make the rules what they are to be, whatever was there. Raises BridgeUnavailable."""
    lines = [_BASE.format(table=table)]
    for rules in bridges:
        lines.append(_BRIDGE.format(table=table, bridge=rules.bridge))
        lines += [f"add rule inet {table} {rule}" for rule in _rules(rules)]
    lines += _additions(table, ports)
    await _run("\n".join(lines) + "\n")


async def publish(table: str, ports: Iterable[PublishedPort]) -> None:
    """Let ports lead to containers. Raises BridgeUnavailable."""
    await _run("\n".join(_additions(table, ports)) + "\n")


async def withdraw(table: str, ports: Iterable[PublishedPort]) -> None:
    """Let ports lead nowhere any more; what leads nowhere is no error."""
    ports = list(ports)
    # an element must be there to be deleted: added once more, which changes nothing, and then deleted, in one transaction
    lines = _additions(table, ports)
    lines += [f"delete element inet {table} {name} {{ {key} }}" for name, key, _ in (p.element() for p in ports)]
    await _run("\n".join(lines) + "\n")


async def remove(table: str) -> None:
    """Remove the table with everything in it; gone already is no error."""
    await _run(f"add table inet {table}\ndelete table inet {table}\n")


def _additions(table: str, ports: Iterable[PublishedPort]) -> list[str]:
    elements = (port.element() for port in ports)
    return [f"add element inet {table} {name} {{ {key}{value and f' : {value}'} }}" for name, key, value in elements]


def _rules(rules: BridgeRules) -> Iterator[str]:
    bridge = f'"{rules.bridge}"'
    if rules.internal:  # not even by a port that leads to a container elsewhere
        yield f"confine iifname {bridge} oifname != {bridge} drop"
        yield f"confine oifname {bridge} iifname != {bridge} drop"
    yield f"to oifname {bridge} ct status dnat accept"
    yield f"to oifname {bridge} iifname {bridge} {'accept' if rules.icc else 'drop'}"
    yield f"from iifname {bridge} accept"
    for subnet in rules.subnets:
        family = "ip" if subnet.version == 4 else "ip6"
        mode = rules.mode(subnet)
        if not rules.internal:
            if mode == "routed":
                yield f"to oifname {bridge} {family} daddr {subnet} meta l4proto {{ icmp, icmpv6 }} accept"
            if mode == "nat-unprotected":
                yield f"to oifname {bridge} {family} daddr {subnet} iifname != @bridges accept"
            if mode != "routed" and rules.masquerade:
                yield f"postrouting {family} saddr {subnet} oifname != {bridge} masquerade"
        # who asks its own host for a port that leads to a neighbour, or to itself, must get the answer from where it asked
        yield f"postrouting oifname {bridge} {family} saddr {subnet} ct status dnat masquerade"
    yield f"to oifname {bridge} drop"


async def _run(script: str) -> None:
    if not script.strip():
        return
    if shutil.which("nft") is None:
        raise BridgeUnavailable("nft is not installed (apt-get install nftables)")
    done = await processes.run(["nft", "-f", "-"], input=script.encode())
    if done.returncode != 0:
        raise BridgeUnavailable(f"nft: {done.stderr.decode(errors='replace').strip()}")
