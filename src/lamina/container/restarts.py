"""Restart policies: whether a container whose process has ended is started again, and how long it waits for that.

The rules are docker's (moby, restartmanager): the first restart comes after 100 ms, each further one after twice the time of the one
before, up to a minute; who ran for ten seconds begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lamina.container.record import NEVER, Record

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 60.0
_SETTLED_S = 10.0

Start = Callable[[str], Awaitable[None]]
"""Starts the container with an ID, if it still waits for that."""


def wants_restart(ended: Record) -> bool:
    """Whether a container that has just ended is to be started again."""
    policy = ended.host_config.restart_policy
    if ended.state.stopped_by_user:
        return False
    if policy.name == "on-failure":
        has_tries = not policy.maximum_retry_count or ended.restart_count < policy.maximum_retry_count
        return ended.state.exit_code != 0 and has_tries
    return policy.name in ("always", "unless-stopped")


def wants_revival(record: Record) -> bool:
    """Whether a container that does not run when the daemon comes back is to be started: also one that was stopped, with ``always``."""
    policy = record.host_config.restart_policy.name
    if record.state.status == "restarting":
        return True
    if record.state.status != "exited" or record.state.started_at == NEVER:
        return False
    return policy == "always" or (policy == "unless-stopped" and not record.state.stopped_by_user)


class Restarts:
    """The restarts that are to come, at most one a container."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._delays_s: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def schedule(self, container_id: str, ran_s: float) -> None:
        """Start a container that ran for *ran_s* seconds again after its delay."""
        before = self._delays_s.get(container_id)
        delay_s = _FIRST_DELAY_S if before is None or ran_s >= _SETTLED_S else min(2 * before, _LONGEST_DELAY_S)
        self._delays_s[container_id] = delay_s
        self._begin(container_id, delay_s)

    def schedule_now(self, container_id: str) -> None:
        """Start a container again at once."""
        self._begin(container_id, 0)

    def call_off(self, container_id: str) -> None:
        """Forget a restart that waits for its time; one that has begun goes on."""
        task = self._waiting.pop(container_id, None)
        if task is not None:
            task.cancel()

    def forget(self, container_id: str) -> None:
        """A user has started, stopped or removed the container: what comes then begins with the shortest delay."""
        self.call_off(container_id)
        self._delays_s.pop(container_id, None)

    async def close(self) -> None:
        """Begin no more restarts; those that were scheduled are the next daemon's."""
        self._closed = True
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, container_id: str, delay_s: float) -> None:
        self.call_off(container_id)
        self._waiting[container_id] = asyncio.ensure_future(self._start_after(container_id, delay_s))

    async def _start_after(self, container_id: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        # from here on nobody can call it off: whoever wants to waits for the container's lock
        self._waiting.pop(container_id, None)
        if not self._closed:
            await self._start(container_id)
