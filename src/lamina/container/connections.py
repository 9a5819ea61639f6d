"""``network connect`` and ``disconnect``: a container's networks, changed while it runs or for its next start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lamina.container.config import EndpointRequest
from lamina.container.locks import ContainerLocks
from lamina.container.networking import Networking, check_request, with_network, without_network
from lamina.container.record import Record
from lamina.container.settings import donor_in
from lamina.container.store import ContainerStore
from lamina.container.transitions import as_joined
from lamina.network import Network
from lamina.network.errors import ConnectionRefused
from lamina.network.model import ISOLATED_DRIVERS

Tell = Callable[[str, Record, Network], None]
"""(connect or disconnect, which container, which network)"""


class Connections:
    """Changes which networks containers are in."""

    def __init__(
        self,
        store: ContainerStore,
        networking: Networking,
        locks: ContainerLocks,
        follow: Callable[[Record], Awaitable[None]],
        tell: Tell,
    ) -> None:
        """*follow* makes of a running container what depends on its networks: its names, and who holds its ports."""
        self._store = store
        self._networking = networking
        self._locks = locks
        self._follow = follow
        self._tell = tell

    async def connect(self, container_id: str, network: Network, request: EndpointRequest | None) -> None:
        """Put a container into a network. Raises ConnectionRefused and the network's errors; nothing has changed then."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            _check_may_change(record, network)
            if network.name in record.networks and record.state.has_process:
                raise ConnectionRefused(f"endpoint with name {record.name} already exists in network {network.name}")
            check_request(network, request)
            changed = with_network(record, network.name, request)
            if not record.state.has_process:
                await self._store.put(changed)
                return
            joined = await self._networking.connect(record, network, request)
            try:
                stored = await self._store.put(as_joined(changed, joined))
            except BaseException:
                await self._networking.disconnect(as_joined(changed, joined), network)
                raise
            await self._follow(stored)
        self._tell("connect", stored, network)

    async def disconnect(self, container_id: str, network: Network) -> None:
        """Take a container out of a network. Raises ConnectionRefused."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            _check_may_change(record, network, leaves=True)
            if network.name not in record.networks:
                raise ConnectionRefused(f"container {record.id} is not connected to network {network.name}")
            changed = without_network(record, network.name)
            if record.endpoint(network.name) is None:
                await self._store.put(changed)
                return
            joined = await self._networking.disconnect(record, network)
            stored = await self._store.settle(
                as_joined(changed, joined)
            )  # it has left, whether that can be written or not
            await self._follow(stored)
        self._tell("disconnect", record, network)


def _check_may_change(record: Record, network: Network, *, leaves: bool = False) -> None:
    """Raises ConnectionRefused, in docker's words."""
    mode = record.host_config.network_mode
    if donor_in(mode) is not None:
        raise ConnectionRefused(
            "container sharing network namespace with another container or host cannot be connected to any other network"
        )
    if mode == "host" or (network.driver in ISOLATED_DRIVERS and network.name == "host"):
        raise ConnectionRefused("container cannot be disconnected from host network or connected to host network")
    is_private = "none" in record.networks or (network.name == "none" and bool(record.networks))
    if not leaves and is_private and network.name not in record.networks:
        raise ConnectionRefused(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if record.config.network_disabled:
        raise ConnectionRefused("container has its network disabled")
