"""Waiting for a container: until it does not run, exits the next time, or is removed (``POST /containers/{id}/wait``)."""

from __future__ import annotations

import asyncio
from typing import Literal

Condition = Literal["not-running", "next-exit", "removed"]


class Waiters:
    """Futures of those who wait for containers; each resolves to an exit code."""

    def __init__(self) -> None:
        self._exits: dict[str, list[asyncio.Future[int]]] = {}
        self._removals: dict[str, list[asyncio.Future[int]]] = {}

    async def exited(self, container_id: str) -> int:
        """The exit code of the container's next end."""
        return await self._wait(self._exits, container_id)

    async def removed(self, container_id: str) -> int:
        """The last exit code of the container, once it is no more."""
        return await self._wait(self._removals, container_id)

    def tell_exit(self, container_id: str, code: int) -> None:
        """The container's process has ended and its record says so."""
        _resolve(self._exits, container_id, code)

    def tell_removal(self, container_id: str, code: int) -> None:
        """The container is no more; those who waited for an exit that never came get the code too."""
        _resolve(self._exits, container_id, code)
        _resolve(self._removals, container_id, code)

    @staticmethod
    async def _wait(futures: dict[str, list[asyncio.Future[int]]], container_id: str) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        futures.setdefault(container_id, []).append(future)
        try:
            return await future
        finally:
            waiting = futures.get(container_id, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del futures[container_id]


def _resolve(futures: dict[str, list[asyncio.Future[int]]], container_id: str, code: int) -> None:
    for future in futures.pop(container_id, []):
        if not future.done():
            future.set_result(code)
