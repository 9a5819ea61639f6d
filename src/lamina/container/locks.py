"""One lock a container: what changes it, or its process, is done by one at a time."""

from __future__ import annotations

import asyncio

from lamina.container.errors import ContainerNotFound
from lamina.container.store import ContainerStore


class ContainerLocks:
    """The locks of one store's containers."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store
        self._locks: dict[str, asyncio.Lock] = {}

    def of(self, container_id: str) -> asyncio.Lock:
        """A container's lock. Raises ContainerNotFound."""
        if container_id not in self._store:
            raise ContainerNotFound(container_id)
        return self._locks.setdefault(container_id, asyncio.Lock())

    def forget(self, container_id: str) -> None:
        """The container is no more; who waits for its lock gets it all the same."""
        self._locks.pop(container_id, None)
