"""Networks (Engine API, "Network"): list and inspect the built-in ones."""

from __future__ import annotations

from typing import Any

from lamina.api.filters import Filters
from lamina.daemon.http import Request, Response, json_response
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.network.errors import NetworkNotFound

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Networks(engine)
    return [
        Route("GET", "/networks", resource.list_all),
        Route("POST", "/networks/prune", resource.prune),
        Route("GET", "/networks/{id}", resource.inspect),
    ]


class _Networks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_all(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _FILTERS)
        chosen = [
            name
            for name, network_id in self._engine.networks.ids.items()
            if filters.allows("driver", _DRIVERS[name])
            and filters.allows("type", "builtin")
            and filters.allows("scope", "local")
            and not filters.values_of("label")
            and (not filters.values_of("name") or any(v in name for v in filters.values_of("name")))
            and (not filters.values_of("id") or any(network_id.startswith(v) for v in filters.values_of("id")))
        ]
        return json_response([self._render(name) for name in chosen])

    async def prune(self, request: Request) -> Response:
        """The built-in networks, of which none is ever removed, are all there are."""
        Filters.parse(request.query("filters"), ("label", "label!", "until"))
        self._engine.events.publish(Event("network", "prune", "", {"reclaimed": "0"}))
        return json_response({"NetworksDeleted": None})

    async def inspect(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        for name, network_id in self._engine.networks.ids.items():
            if wanted == name or network_id.startswith(wanted):
                return json_response(self._render(name) | {"Containers": self._containers(name)})
        raise NetworkNotFound(wanted)

    def _render(self, name: str) -> dict[str, Any]:
        networks = self._engine.networks
        pool = networks.pool if name == "bridge" else None
        ranges = [{"Subnet": str(pool.subnet), "Gateway": str(pool.gateway.ip)}] if pool else None
        options = {"com.docker.network.bridge.name": networks.bridge} if name == "bridge" else {}
        return {
            "Name": name,
            "Id": networks.ids[name],
            "Created": "1970-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": _DRIVERS[name],
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": ranges},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": options,
            "Labels": {},
        }

    def _containers(self, name: str) -> dict[str, Any]:
        result = {}
        for record in self._engine.containers:
            endpoint = record.endpoint
            if endpoint is not None and endpoint.network == name:
                result[record.id] = {
                    "Name": record.name,
                    "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.ip}/{endpoint.prefix_len}" if endpoint.ip else "",
                    "IPv6Address": "",
                }
        return result
