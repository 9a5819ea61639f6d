"""A container's place in its networks: its namespace, its addresses, its ports on the host, and what others there call it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from lamina.container.config import EndpointRequest, IPAMConfig
from lamina.container.record import Joined, NetworkEndpoint, PublishedPlace, Record
from lamina.errors import LaminaError
from lamina.linux.tasks import to_the_end
from lamina.network import Endpoint, Network, NetworkService, Wish
from lamina.network.errors import InvalidNetwork, NetworkNotFound, PortAllocated, PublishingFailed
from lamina.network.firewall import PublishedPort
from lamina.network.ipam import AddressPool
from lamina.network.ports import Holding, HostPorts, read_requests
from lamina.network.store import NetworkStore
from lamina.resolver.client import Resolver, ResolverUnavailable
from lamina.resolver.messages import Member, Sandbox

_ANYWHERE = {"0.0.0.0": "", "::": ""}  # noqa: S104
_ID_LENGTH = 64
_SYSCTLS_OPTION = "com.docker.network.endpoint.sysctls"


class Networking:
    """Joins containers to networks when they start, and while they run."""

    def __init__(
        self,
        networks: NetworkStore,
        service: NetworkService,
        ports: HostPorts,
        resolver: Resolver,
        *,
        publish_default: str = "",
    ) -> None:
        """*publish_default* is the host's address for published ports that name none (``--publish-default``)."""
        self._networks = networks
        self._service = service
        self._ports = ports
        self._resolver = resolver
        self._publish_default = publish_default
        self._holdings: dict[str, Holding] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, record: Record) -> Joined:
        """Join a container that is about to start to all its networks. On failure, and when cancelled, nothing is left behind.

        Raises NetworkNotFound, AddressInUse, PublishingFailed and the other kinds of the network's errors.
        """
        first, *others = self._wanted(record)
        if first.driver == "host":
            return Joined(endpoints={first.name: _host_endpoint(first)})
        made: list[tuple[Network, Endpoint]] = []
        try:
            made.append((first, await self._service.acquire(first.id, self._wish(record, first))))
            sandbox = made[0][1].sandbox
            for number, network in enumerate(others, start=1):
                name = self._interface_name(network, number)
                made.append(
                    (network, await self._service.attach(sandbox, network.id, name, self._wish(record, network)))
                )
            joined = Joined(sandbox=sandbox, endpoints={n.name: _as_stored(n, e) for n, e in made})
            way_out = self._way_out(record, joined)
            if others and way_out is not None:
                await self._service.lead_out(_to_network(joined.sandbox, way_out))
            joined = await self._with_ports(record, joined, way_out)
            try:
                await self._tell_resolver(record, joined)
            except BaseException:
                await to_the_end(self._withdraw(record.id, joined))
                raise
        except BaseException:
            if made:
                await self._service.release(*(endpoint for _, endpoint in made))
            raise
        return joined

    async def leave(self, record: Record, joined: Joined) -> None:
        """Give back all that a container has in its networks; what is gone already is no error."""
        if not joined.sandbox:
            return
        await self._resolver.drop(joined.sandbox)
        await self._withdraw(record.id, joined)
        endpoints = [_to_network(joined.sandbox, e) for e in joined.endpoints.values()]
        await self._service.release(*(endpoints or [Endpoint("", joined.sandbox)]))

    def holding(self, container_id: str) -> Holding | None:
        """The sockets of a container's ports, which somebody is to take over and keep."""
        return self._holdings.pop(container_id, None)

    async def connect(self, record: Record, network: Network, request: EndpointRequest | None) -> Joined:
        """Join a running container to one more network, and return where it is then. Raises as ``join`` does."""
        joined = record.joined
        assert joined is not None
        name = self._free_interface(network, joined)
        wish = self._wish(record, network, request)
        endpoint = await self._service.attach(joined.sandbox, network.id, name, wish)
        try:
            changed = msgspec.structs.replace(
                joined, endpoints={**joined.endpoints, network.name: _as_stored(network, endpoint)}
            )
            later = with_network(record, network.name, request)
            try:
                return await self._rearranged(record, later, joined, changed)
            except BaseException:
                with suppress(LaminaError):
                    await to_the_end(self._rearranged(later, record, changed, joined))
                raise
        except BaseException:
            await to_the_end(self._service.detach(endpoint))
            raise

    async def disconnect(self, record: Record, network: Network) -> Joined:
        """Take a running container out of a network, and return where it is then."""
        joined = record.joined
        assert joined is not None
        gone = joined.endpoints[network.name]
        rest = {name: endpoint for name, endpoint in joined.endpoints.items() if name != network.name}
        changed = msgspec.structs.replace(joined, endpoints=rest)
        changed = await self._rearranged(record, without_network(record, network.name), joined, changed)
        await self._service.detach(_to_network(joined.sandbox, gone))
        return changed

    def renamed(self, record: Record) -> None:
        """Let the others know a running container by its new name, soon."""
        if record.joined is not None:
            task = asyncio.ensure_future(self._tell_new_name(record, record.joined))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_new_name(self, record: Record, joined: Joined) -> None:
        with suppress(ResolverUnavailable):
            await self._tell_resolver(record, joined)

    def sandboxes(self, records: Iterable[Record]) -> list[Sandbox]:
        """What the resolver is to know of running containers."""
        described = (self._sandbox(r, r.joined) for r in records if r.joined is not None)
        return [sandbox for sandbox in described if sandbox is not None]

    def is_resolved(self, joined: Joined | None) -> bool:
        """Whether a container asks the resolver for names, as those in a network that somebody made do."""
        return joined is not None and any(self._is_own(e.network_id) for e in joined.endpoints.values())

    @property
    def host_gateway(self) -> str:
        """The address by which containers reach their host."""
        pool = self._service.pool
        return str(pool.gateway.ip) if pool is not None else ""

    async def lead_out_again(self, record: Record) -> None:
        """Make the default routes of a running container what they are to be, if a killed daemon was about to change them."""
        joined = record.joined
        if joined is None or not self.is_resolved(joined):
            return
        way_out = self._way_out(record, joined)
        if way_out is not None:
            with suppress(OSError, LaminaError):  # who is root in there may have changed what is there
                await self._service.lead_out(_to_network(joined.sandbox, way_out))

    def take_over_ports(self, record: Record) -> None:
        """Note the ports of a container that runs."""
        if record.joined is not None:
            self._ports.take_over(record.id, [p.binding for p in record.joined.ports])

    def hold_again(self, record: Record) -> Holding:
        """Bind the ports of a running container whose holder has ended. Raises PortAllocated."""
        assert record.joined is not None
        holding = Holding()
        holding.bindings = [p.binding for p in record.joined.ports]
        for binding in holding.bindings:
            holding.bind(binding)
        return holding

    def _wanted(self, record: Record) -> list[Network]:
        """A container's networks, that of its mode first; one that was taken out of all has none. Raises NetworkNotFound."""
        found = [self._networks.find(name) for name in record.networks]
        with suppress(NetworkNotFound):
            mode = self._networks.find(record.host_config.network_mode)
            found.sort(key=lambda network: network.id != mode.id)
        return found or [self._networks.find("none")]

    def _wish(self, record: Record, network: Network, request: EndpointRequest | None = None) -> Wish:
        """What is asked for, or what it had before. Raises InvalidAddress, InvalidNetwork."""
        request = request or record.networks.get(network.name)
        ipam = (request.ipam_config if request else None) or IPAMConfig()
        check_request(network, request)
        is_first = network.name == record.host_config.network_mode or len(record.networks) == 1
        mac = (request.mac_address if request else "") or (record.config.mac_address if is_first else "")
        return Wish(
            ip=ipam.ipv4_address or None,
            ip6=ipam.ipv6_address or None,
            mac=mac or None,
            link_local=tuple(ipam.link_local_ips or ()),
            likes=tuple(record.addresses.get(network.name, ())),
            sysctls=_sysctls(request),
        )

    def _interface_name(self, network: Network, number: int) -> str:
        prefix = network.options.get("com.docker.network.container_iface_prefix") or "eth"
        return f"{prefix}{number}"

    def _free_interface(self, network: Network, joined: Joined) -> str:
        taken = {endpoint.name for endpoint in joined.endpoints.values()}
        names = (self._interface_name(network, number) for number in range(len(taken) + 1))
        return next(name for name in names if name not in taken)

    def _way_out(self, record: Record, joined: Joined) -> NetworkEndpoint | None:
        """The endpoint whose gateway is the container's: that of the highest priority, then the first by its network's name."""
        out = [e for e in joined.endpoints.values() if self._service.leads_out(_to_network(joined.sandbox, e))]

        def rank(endpoint: NetworkEndpoint) -> tuple[int, str]:
            request = record.networks.get(endpoint.network)
            return -(request.gw_priority if request else 0), endpoint.network

        return min(out, key=rank, default=None)

    async def _rearranged(self, was: Record, record: Record, before: Joined, after: Joined) -> Joined:
        """Let the way out, the ports and the names be what they are to be with other networks and endpoints than before."""
        old, new = self._way_out(was, before), self._way_out(record, after)
        if new is not None and new != old:
            await self._service.lead_out(_to_network(after.sandbox, new))
        if new != old and before.ports:
            await self._service.withdraw(self._kernel_ports(before, old))
            await self._service.publish(self._kernel_ports(after, new), new.interface if new else "")
        elif new is not None and not before.ports:
            # it had no way out before by which they could be reached
            after = await self._with_ports(record, after, new)
        await self._tell_resolver(record, after)
        return after

    async def _with_ports(self, record: Record, joined: Joined, way_out: NetworkEndpoint | None) -> Joined:
        """Publish what a container asks for, by the endpoint that leads out. Raises PublishingFailed, InvalidPort, BridgeUnavailable."""
        host = record.host_config
        requests = read_requests(
            record.config.exposed_ports or {}, host.port_bindings or {}, publish_all=host.publish_all_ports
        )
        if not requests or way_out is None:
            return joined
        segment = self._service.segment_of(_to_network(joined.sandbox, way_out))
        if segment is None or segment.rules is None:
            return joined  # an endpoint of the host's network is reached there
        default = segment.host_binding or self._publish_default
        try:
            holding = self._ports.bind(record.id, requests, default_ip=default)
        except PortAllocated as error:
            raise PublishingFailed(record.name, way_out.endpoint_id, error) from error
        published = msgspec.structs.replace(joined, ports=[PublishedPlace.of(b) for b in holding.bindings])
        try:
            await self._service.publish(self._kernel_ports(published, way_out), way_out.interface)
        except BaseException:
            holding.let_go()
            self._ports.release(record.id, holding.bindings)
            raise
        self._holdings[record.id] = holding
        return published

    async def _withdraw(self, container_id: str, joined: Joined) -> None:
        holding = self._holdings.pop(container_id, None)
        if holding is not None:
            holding.let_go()
        if joined.ports:
            every = [self._kernel_ports(joined, e) for e in joined.endpoints.values()]
            await self._service.withdraw({port for ports in every for port in ports})
            self._ports.release(container_id, [p.binding for p in joined.ports])

    def kernel_ports(self, record: Record) -> list[PublishedPort]:
        """The ports of a running container that the kernel sends on by itself."""
        joined = record.joined
        return self._kernel_ports(joined, self._way_out(record, joined)) if joined is not None else []

    def _kernel_ports(self, joined: Joined, endpoint: NetworkEndpoint | None) -> list[PublishedPort]:
        if endpoint is None:
            return []
        segment = self._service.segment_of(_to_network(joined.sandbox, endpoint))
        found = []
        for place in joined.ports:
            target = endpoint.ip6 if ":" in place.host_ip else endpoint.ip
            if target:
                address = _ANYWHERE.get(place.host_ip, place.host_ip)
                is_routed = segment is not None and segment.is_routed(target)
                found.append(
                    PublishedPort(
                        place.protocol, address, place.host_port, target, place.container_port, routed=is_routed
                    )
                )
        return found

    def relayed_to(self, record: Record, joined: Joined) -> tuple[str, str]:
        """The addresses inside to which is relayed what the kernel does not send on: for the host's IPv4 ports, and for those of IPv6."""
        endpoint = self._way_out(record, joined)
        if endpoint is None:
            return "", ""
        return endpoint.ip or endpoint.ip6, endpoint.ip6 or endpoint.ip

    async def _tell_resolver(self, record: Record, joined: Joined) -> None:
        """Raises ResolverUnavailable."""
        sandbox = self._sandbox(record, joined)
        if sandbox is not None:
            await self._resolver.put(sandbox)
        else:
            await self._resolver.drop(joined.sandbox)

    def _sandbox(self, record: Record, joined: Joined) -> Sandbox | None:
        if not self.is_resolved(joined):
            return None
        return Sandbox(
            pin=joined.sandbox,
            container=record.id,
            members=[self._member(record, e) for e in joined.endpoints.values() if self._is_own(e.network_id)],
            links=_links(record),
            servers=record.host_config.dns or [],
            forwards=self._way_out(record, joined) is not None,
        )

    def _member(self, record: Record, endpoint: NetworkEndpoint) -> Member:
        request = record.networks.get(endpoint.network)
        return Member(
            network=endpoint.network_id,
            network_name=endpoint.network,
            names=dns_names(record, request),
            addresses=[address for address in (endpoint.ip, endpoint.ip6) if address],
        )

    def _is_own(self, network_id: str) -> bool:
        return network_id not in self._service.ids.values()


def dns_names(record: Record, request: EndpointRequest | None) -> list[str]:
    """By which names a container is found in a network that somebody made."""
    aliases = (request.aliases if request else None) or []
    return list(dict.fromkeys([record.name, *aliases, record.short_id, record.config.hostname]))


def with_network(record: Record, name: str, request: EndpointRequest | None) -> Record:
    """A record that is to be in one more network."""
    return msgspec.structs.replace(record, networks={**record.networks, name: request})


def without_network(record: Record, name: str) -> Record:
    """A record that is not to be in a network any more."""
    rest = {other: request for other, request in record.networks.items() if other != name}
    return msgspec.structs.replace(record, networks=rest)


def check_request(network: Network, request: EndpointRequest | None) -> None:
    """Refuse what a network cannot give. Raises InvalidNetwork or InvalidAddress, in docker's words."""
    ipam = request.ipam_config if request else None
    if request is not None and request.aliases and network.is_built_in:
        raise InvalidNetwork("network-scoped alias is supported only for containers in user defined networks")
    if ipam is None:
        return
    for text, version in ((ipam.ipv4_address, 4), (ipam.ipv6_address, 6)):
        if not text:
            continue
        if network.is_built_in:
            raise InvalidNetwork("user specified IP address is supported on user defined networks only")
        if network.chosen:
            raise InvalidNetwork(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        subnet = network.subnet(version)
        if subnet is None or not AddressPool.of(network.name, subnet).contains(text):
            raise InvalidNetwork(f"no configured subnet or ip-range contain the IP address {text}")


def _links(record: Record) -> dict[str, str]:
    """Names that a container alone knows, each with the name that others know."""
    texts = [t for request in record.networks.values() for t in (request.links if request else None) or []]
    pairs = (text.partition(":") for text in [*(record.host_config.links or []), *texts])
    # a link to a container on the default bridge holds its whole ID, of which the first digits are a name
    return {(alias or name).lower(): name[:12] if len(name) == _ID_LENGTH else name for name, _, alias in pairs}


def _sysctls(request: EndpointRequest | None) -> dict[str, str]:
    """``net.ipv4.conf.IFNAME.forwarding=1,…`` of a driver option."""
    text = ((request.driver_opts if request else None) or {}).get(_SYSCTLS_OPTION, "")
    pairs = [part.partition("=") for part in text.split(",") if part]
    for name, equals, _ in pairs:
        if not equals or not name.startswith("net.") or ".IFNAME." not in name.upper() or "/" in name or ".." in name:
            raise InvalidNetwork(f"invalid {_SYSCTLS_OPTION}: {name!r}: expected net.….IFNAME.…=value")
    return {name: value for name, _, value in pairs}


def _host_endpoint(network: Network) -> NetworkEndpoint:
    return NetworkEndpoint(
        network=network.name, network_id=network.id, endpoint_id=secrets.token_hex(32), driver="host"
    )


def _as_stored(network: Network, endpoint: Endpoint) -> NetworkEndpoint:
    return NetworkEndpoint(
        network=network.name,
        network_id=network.id,
        endpoint_id=endpoint.id,
        ip=endpoint.ip,
        prefix_len=endpoint.prefix_len,
        gateway=endpoint.gateway,
        ip6=endpoint.ip6,
        prefix_len6=endpoint.prefix_len6,
        gateway6=endpoint.gateway6,
        mac=endpoint.mac,
        interface=endpoint.interface,
        name=endpoint.name,
        driver=network.driver,
    )


def _to_network(sandbox: str, endpoint: NetworkEndpoint) -> Endpoint:
    return Endpoint(
        id=endpoint.endpoint_id,
        sandbox=sandbox,
        interface=endpoint.interface,
        ip=endpoint.ip,
        prefix_len=endpoint.prefix_len,
        gateway=endpoint.gateway,
        mac=endpoint.mac,
        network_id=endpoint.network_id,
        ip6=endpoint.ip6,
        prefix_len6=endpoint.prefix_len6,
        gateway6=endpoint.gateway6,
        name=endpoint.name,
    )


def live_endpoints(records: Iterable[Record]) -> list[Endpoint]:
    """The endpoints that running containers hold; of a sandbox without any the sandbox alone."""
    found = []
    for record in records:
        joined = record.joined
        if record.state.has_process and joined is not None and joined.sandbox:
            found += [_to_network(joined.sandbox, e) for e in joined.endpoints.values()] or [
                Endpoint("", joined.sandbox)
            ]
    return found
