"""Networks (Engine API, "Network"): create, list, inspect, connect, disconnect, remove, prune."""

from __future__ import annotations

import msgspec

from lamina.api.filters import Filters
from lamina.container.config import EndpointRequest, docker_name
from lamina.container.errors import ContainerNotFound
from lamina.container.times import parse_moment, parse_rfc3339
from lamina.daemon.render import networks as render
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.http import Request, Response, json_response
from lamina.image.listing import has_labels
from lamina.network import Network
from lamina.network.definitions import NetworkRequest
from lamina.network.errors import InvalidNetwork
from lamina.network.model import Subnet

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_PRUNE_FILTERS = ("label", "label!", "until")


class _SubnetBody(msgspec.Struct, kw_only=True):
    subnet: str = msgspec.field(name="Subnet", default="")
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = msgspec.field(name="Gateway", default="")
    auxiliary_addresses: dict[str, str] | None = msgspec.field(name="AuxiliaryAddresses", default=None)
    auxiliary_address: dict[str, str] | None = msgspec.field(name="AuxAddress", default=None)


class _IpamBody(msgspec.Struct, kw_only=True, rename=docker_name):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[_SubnetBody] | None = None


class _CreateBody(msgspec.Struct, kw_only=True):
    name: str = msgspec.field(name="Name", default="")
    driver: str = msgspec.field(name="Driver", default="bridge")
    scope: str = msgspec.field(name="Scope", default="")
    internal: bool = msgspec.field(name="Internal", default=False)
    attachable: bool = msgspec.field(name="Attachable", default=False)
    ingress: bool = msgspec.field(name="Ingress", default=False)
    config_only: bool = msgspec.field(name="ConfigOnly", default=False)
    config_from: dict[str, str] | None = msgspec.field(name="ConfigFrom", default=None)
    ipam: _IpamBody | None = msgspec.field(name="IPAM", default=None)
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    options: dict[str, str] | None = msgspec.field(name="Options", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class _ConnectBody(msgspec.Struct, kw_only=True, rename=docker_name):
    container: str = ""
    endpoint_config: EndpointRequest | None = None


class _DisconnectBody(msgspec.Struct, kw_only=True, rename=docker_name):
    container: str = ""
    force: bool = False


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Networks(engine)
    return [
        Route("GET", "/networks", resource.list_all),
        Route("POST", "/networks/create", resource.create),
        Route("POST", "/networks/prune", resource.prune),
        Route("GET", "/networks/{id}", resource.inspect),
        Route("DELETE", "/networks/{id}", resource.delete),
        Route("POST", "/networks/{id}/connect", resource.connect),
        Route("POST", "/networks/{id}/disconnect", resource.disconnect),
    ]


class _Networks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_all(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _FILTERS)
        dangling = filters.boolean("dangling")
        kinds = filters.values_of("type")
        for kind in kinds:
            if kind not in ("builtin", "custom"):
                raise InvalidNetwork(f"invalid filter: 'type'='{kind}'")
        chosen = [
            network
            for network in self._engine.network_definitions
            if filters.allows("driver", network.driver)
            and filters.allows("type", "builtin" if network.is_built_in else "custom")
            and filters.allows("scope", "local")
            and has_labels(network.labels, filters.values_of("label"))
            and filters.matches("name", network.name)
            and filters.matches("id", network.id)
            and (dangling is None or (not network.is_built_in and dangling != self._is_used(network)))
        ]
        return json_response([render.network(network) for network in chosen])

    async def create(self, request: Request) -> Response:
        body = await request.json(_CreateBody)
        network = await self._engine.networks.create(_read(body))
        return json_response({"Id": network.id, "Warning": ""}, 201)

    async def inspect(self, request: Request) -> Response:
        scope = request.query("scope")
        network = self._engine.network_definitions.find(request.path_params["id"])
        if scope not in (None, "", "local"):
            raise InvalidNetwork(f"network {network.name} is not of scope {scope}")
        return json_response(render.inspected(network, self._engine))

    async def delete(self, request: Request) -> Response:
        await self._engine.networks.remove(request.path_params["id"])
        return Response(204)

    async def connect(self, request: Request) -> Response:
        body = await request.json(_ConnectBody)
        network = self._engine.network_definitions.find(request.path_params["id"])
        record = self._engine.containers.find(body.container)
        await self._engine.connections.connect(record.id, network, body.endpoint_config)
        return Response(200)

    async def disconnect(self, request: Request) -> Response:
        """By force also a container that is known by no name any more."""
        body = await request.json(_DisconnectBody)
        network = self._engine.network_definitions.find(request.path_params["id"])
        try:
            record = self._engine.containers.find(body.container)
        except ContainerNotFound:
            if body.force:
                return Response(200)
            raise
        await self._engine.connections.disconnect(record.id, network)
        return Response(200)

    async def prune(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _PRUNE_FILTERS)
        until = filters.values_of("until")
        before_ns = parse_moment(until[0]) if until else None

        def wanted(network: Network) -> bool:
            return (
                has_labels(network.labels, filters.values_of("label"))
                and not any(has_labels(network.labels, [unwanted]) for unwanted in filters.values_of("label!"))
                and (before_ns is None or parse_rfc3339(network.created) < before_ns)
            )

        return json_response({"NetworksDeleted": await self._engine.networks.prune(wanted) or None})

    def _is_used(self, network: Network) -> bool:
        return self._engine.networks.is_referred_to(network)


def _read(body: _CreateBody) -> NetworkRequest:
    """Raises InvalidNetwork for what lamina does not have."""
    if body.ingress or body.scope not in ("", "local"):
        raise InvalidNetwork("This node is not a swarm manager. Networks of the swarm scope are not supported")
    if body.config_only or (body.config_from or {}).get("Network"):
        raise InvalidNetwork("configuration-only networks are not supported")
    ipam = body.ipam or _IpamBody()
    return NetworkRequest(
        name=body.name,
        driver=body.driver or "bridge",
        subnets=[
            Subnet(
                subnet=s.subnet,
                ip_range=s.ip_range,
                gateway=s.gateway,
                auxiliary_addresses=s.auxiliary_addresses or s.auxiliary_address or {},
            )
            for s in ipam.config or []
        ],
        enable_ipv4=body.enable_ipv4,
        enable_ipv6=body.enable_ipv6,
        internal=body.internal,
        attachable=body.attachable,
        ipam_driver=ipam.driver or "default",
        ipam_options=ipam.options,
        options=body.options or {},
        labels=body.labels or {},
    )
