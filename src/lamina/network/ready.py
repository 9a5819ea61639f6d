"""Endpoints made ahead, so that who starts a container does not wait for its namespace and its interfaces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lamina.network.errors import NoAddressLeft
from lamina.network.model import Endpoint

_log = logging.getLogger(__name__)
_LEISURE_S = 0.05
"""For the container that took one to start first."""


class ReadyEndpoints:
    """A few endpoints of the default bridge, address and all, made anew in the background when one was taken."""

    def __init__(self, count: int, make: Callable[[], Awaitable[Endpoint]]) -> None:
        self._count = count
        self._make = make
        self._endpoints: list[Endpoint] = []
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._endpoints)

    def take(self) -> Endpoint | None:
        """One that is ready, if there is one."""
        if not self._endpoints:
            return None
        self.fill_later()
        return self._endpoints.pop()

    @property
    def hold_any(self) -> bool:
        """Whether some hold addresses, or are about to."""
        return bool(self._endpoints) or (self._refill is not None and not self._refill.done())

    def fill_later(self) -> None:
        """Make what is missing, soon."""
        if self._count and not self._closed and (self._refill is None or self._refill.done()):
            self._refill = asyncio.ensure_future(self._fill())

    async def give_up(self) -> list[Endpoint]:
        """Stop making, and hand out all that are ready, for who removes them."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait([self._refill])
        given, self._endpoints = self._endpoints, []
        return given

    async def close(self) -> list[Endpoint]:
        """As ``give_up``, for good."""
        self._closed = True
        return await self.give_up()

    async def _fill(self) -> None:
        await asyncio.sleep(_LEISURE_S)
        try:
            while len(self._endpoints) < self._count:
                self._endpoints.append(await self._make())
        except NoAddressLeft:
            _log.debug("no address is left for endpoints made ahead")
        except Exception:
            _log.warning("no endpoint could be made ahead", exc_info=True)
