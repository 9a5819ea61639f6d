"""Networks that users make: created, removed and pruned, with a look at the containers that are in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.engine.events import Event, EventLog
from lamina.linux.tasks import to_the_end
from lamina.network import Network, NetworkService
from lamina.network.definitions import NetworkRequest, check_name, define
from lamina.network.errors import NetworkExists, NetworkInUse, PredefinedNetwork
from lamina.network.store import NetworkStore
from lamina.resolver.client import Resolver


class Networks:
    """What can be done to the networks of one state root."""

    def __init__(
        self,
        store: NetworkStore,
        service: NetworkService,
        resolver: Resolver,
        containers: ContainerStore,
        events: EventLog,
    ) -> None:
        self._store = store
        self._service = service
        self._resolver = resolver
        self._containers = containers
        self._events = events
        self._lock = asyncio.Lock()
        """So that no two networks are given the same subnet."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, request: NetworkRequest) -> Network:
        """Make a network and set it up. Raises NetworkExists, BridgeUnavailable and as ``define`` does; nothing is left then."""
        check_name(request.name)
        async with self._lock:
            if self._store.has_name(request.name):
                raise NetworkExists(request.name)
            routes = await self._service.used_subnets()
            network = define(request, networks=self._store, routes=routes, pools=self._service.subnet_pools)
            if await self._service.has_interface(network.interface):
                network = msgspec.structs.replace(network, foreign=True)
            await self._service.add(network)
            try:
                await self._store.put(network)
            except BaseException:
                await to_the_end(self._service.drop(network))
                raise
        self._tell("create", network)
        self._warm_up()
        return network

    async def remove(self, name: str) -> Network:
        """Remove a network. Raises NetworkNotFound, PredefinedNetwork, or NetworkInUse if a running container is in it."""
        async with self._lock:
            network = self._store.find(name)
            if network.is_built_in:
                raise PredefinedNetwork(f"{network.name} is a pre-defined network and cannot be removed")
            self._service.close_to_newcomers(network, closed=True)
            try:
                users = [(r.name, r.id) for r in self.members(network)]
                if users or await self._service.is_used(network):
                    raise NetworkInUse(network.name, users or [("a container that is being started", "")])
                await self._store.remove(network)
            except BaseException:
                self._service.close_to_newcomers(network, closed=False)
                raise
            await to_the_end(self._service.drop(network))
        self._tell("destroy", network)
        return network

    async def prune(self, wanted: Callable[[Network], bool]) -> list[str]:
        """Remove the networks that no container is in or is to be in when it starts again, and return their names."""
        removed = []
        for network in self._store.own:
            if wanted(network) and not self.is_referred_to(network):
                try:
                    await self.remove(network.id)
                except NetworkInUse:
                    continue
                removed.append(network.name)
        self._events.publish(Event("network", "prune", "", {"reclaimed": "0"}))
        return removed

    def members(self, network: Network) -> list[Record]:
        """The running containers that are in a network."""
        return [
            r for r in self._containers if (e := r.endpoint(network.name)) is not None and e.network_id == network.id
        ]

    def is_referred_to(self, network: Network) -> bool:
        """Whether a container is in a network, or will be when it is started."""
        return any(network.name in record.networks for record in self._containers)

    def _tell(self, action: str, network: Network) -> None:
        self._events.publish(Event("network", action, network.id, {"name": network.name, "type": network.driver}))

    def _warm_up(self) -> None:
        """The first container in such a network is not to wait for the resolver."""
        task = asyncio.ensure_future(self._resolver.warm_up())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
