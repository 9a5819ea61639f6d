"""Networks as ``ls`` and ``inspect`` show them (Engine API: Network, NetworkContainer)."""

from __future__ import annotations

from typing import Any

from lamina.container.record import NetworkEndpoint
from lamina.engine import Engine
from lamina.network import Network


def network(network: Network) -> dict[str, Any]:
    """An entry of ``GET /networks``, which tells nothing of containers."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options,
            "Config": [subnet.shown() for subnet in network.subnets],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": network.options,
        "Labels": network.labels,
    }


def inspected(shown: Network, engine: Engine) -> dict[str, Any]:
    """``GET /networks/{id}``, with the running containers that are in it."""
    members = ((record, record.endpoint(shown.name)) for record in engine.networks.members(shown))
    return network(shown) | {
        "Containers": {record.id: _member(record.name, e) for record, e in members if e is not None},
    }


def _member(name: str, endpoint: NetworkEndpoint) -> dict[str, Any]:
    return {
        "Name": name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ip}/{endpoint.prefix_len}" if endpoint.ip else "",
        "IPv6Address": f"{endpoint.ip6}/{endpoint.prefix_len6}" if endpoint.ip6 else "",
    }
