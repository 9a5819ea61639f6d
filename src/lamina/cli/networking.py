"""``--network`` and the flags about a container's place in it. Errors are ValueErrors in docker's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina.cli.grammar import Options, whole
from lamina.cli.values import csv_fields

Endpoint = dict[str, Any]
_PREDEFINED = frozenset({"default", "bridge", "host", "none"})
_CONFLICTS = {
    "Aliases": ("--network-alias", "alias"),
    "MacAddress": ("--mac-address", "MAC address"),
    "IPAMConfig": ("--ip, --ip6 or --link-local-ip", "addresses"),
}


def network(text: str) -> tuple[str, Endpoint]:
    """``NAME``, or ``name=NAME,alias=…,ip=…``: the network and how the container joins it."""
    if "=" not in text:
        return text, {}
    name, endpoint = "", Endpoint()
    for field in csv_fields(text):
        key, equals, value = (part.strip() for part in field.partition("="))
        if not equals:
            raise ValueError("invalid key/value pair format in driver options")
        if key.lower() == "name":
            name = value
        elif key.lower() in _FIELDS:
            _FIELDS[key.lower()](endpoint, value)
        else:
            raise ValueError(f"invalid field key {key.lower()}")
    if not name:
        raise ValueError("network name/id is not specified")
    return name, endpoint


def _driver_option(endpoint: Endpoint, text: str) -> None:
    name, _, value = text.partition("=")
    endpoint.setdefault("DriverOpts", {})[name] = value


_FIELDS: dict[str, Callable[[Endpoint, str], object]] = {
    "alias": lambda endpoint, value: endpoint.setdefault("Aliases", []).append(value),
    "ip": lambda endpoint, value: endpoint.setdefault("IPAMConfig", {}).update(IPv4Address=value),
    "ip6": lambda endpoint, value: endpoint.setdefault("IPAMConfig", {}).update(IPv6Address=value),
    "link-local-ip": lambda endpoint, value: (
        endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
    ),
    "mac-address": lambda endpoint, value: endpoint.update(MacAddress=value),
    "driver-opt": _driver_option,
    "gw-priority": lambda endpoint, value: endpoint.update(GwPriority=whole(value)),
}


def endpoints(options: Options) -> dict[str, Endpoint]:
    """Each network that the container joins in a way of its own; flags that name no network are for the first."""
    networks: list[tuple[str, Endpoint]] = options.network or [("default", {})]
    first = dict(networks[0][1])
    ipam = {
        field: value
        for field, value in (
            ("IPv4Address", options.ip),
            ("IPv6Address", options.ip6),
            ("LinkLocalIPs", options.link_local_ip),
        )
        if value
    }
    given = {"Aliases": options.network_alias, "MacAddress": options.mac_address, "IPAMConfig": ipam}
    for field, value in given.items():
        if value and field in first:
            flag, told = _CONFLICTS[field]
            raise ValueError(f"conflicting options: cannot specify both {flag} and per-network {told}")
        if value:
            first[field] = value
    if "Aliases" in first and networks[0][0] in _PREDEFINED:
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    every = [(networks[0][0], first), *networks[1:]]
    return {name: endpoint for name, endpoint in every if endpoint or len(every) > 1}
