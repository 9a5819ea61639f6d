"""A container's ports as ``ps`` shows them: those that follow each other and are the same on both sides as one range."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_Group = tuple[str, str]
"""Address on the host, empty for a port that is only exposed, and protocol."""


def shown_ports(ports: Iterable[dict[str, Any]]) -> str:
    """The API's ports in docker's form and order: ranges, broken off ones first, then ports that are others on the host."""
    done: list[str] = []
    apart: list[str] = []
    open_ranges: dict[_Group, tuple[int, int]] = {}
    for port in sorted(ports, key=_rank):
        number, address = port["PrivatePort"], port.get("IP", "")
        if address and port["PublicPort"] != number:
            apart.append(f"{_host(address)}:{port['PublicPort']}->{number}/{port['Type']}")
            continue
        group = (address, port["Type"])
        first, last = open_ranges.get(group, (number, number - 1))
        if number != last + 1:
            done.append(_range(group, first, last))
            first = number
        open_ranges[group] = (first, number)
    rest = [_range(group, first, last) for group, (first, last) in open_ranges.items()]
    return ", ".join([*done, *rest, *apart])


def _rank(port: dict[str, Any]) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _range(group: _Group, first: int, last: int) -> str:
    address, protocol = group
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
