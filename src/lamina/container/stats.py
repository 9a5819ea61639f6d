"""What containers use, measured every second for as long as somebody looks (``docker stats``).

However many look at a container, it is measured once a second; all containers that are looked at are measured in one go, in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass

from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.linux.cgroups import Hierarchies
from lamina.linux.usage import GroupUsage, SystemCpu, group_usage, interface_counters, system_cpu

_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Sample:
    """One measurement; ``usage`` is None for a container that does not run. Interfaces have the counters of proc_pid_net(5)."""

    taken_ns: int
    system: SystemCpu
    usage: GroupUsage | None
    interfaces: dict[str, list[int]]

    @classmethod
    def nothing(cls) -> Sample:
        """Of a container that does not run."""
        return cls(0, SystemCpu(0, 0), None, {})


Measured = tuple[Sample, Sample | None]
"""A measurement, and the one before it if there was one."""


class Stats:
    """Measures the containers of one store."""

    def __init__(self, containers: ContainerStore, hierarchies: Hierarchies, group_of: Callable[[Record], str]) -> None:
        """*group_of* names a container's control group."""
        self._containers = containers
        self._hierarchies = hierarchies
        self._group_of = group_of
        self._watchers: dict[str, set[asyncio.Queue[Measured | None]]] = {}
        self._ticking: asyncio.Task[None] | None = None

    async def once(self, record: Record) -> Sample:
        """Measure a container now."""
        return (await asyncio.to_thread(self._measure, [record]))[record.id]

    async def follow(self, record: Record) -> AsyncGenerator[Measured, None]:
        """Measurements as they are made, the first at once, until the container is gone. Who is behind misses some."""
        queue: asyncio.Queue[Measured | None] = asyncio.Queue(1)
        watchers = self._watchers.setdefault(record.id, set())
        watchers.add(queue)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.ensure_future(self._tick())
        try:
            while (measured := await queue.get()) is not None:
                yield measured
        finally:
            watchers.discard(queue)
            if not watchers:
                self._watchers.pop(record.id, None)

    async def close(self) -> None:
        """Measure no more."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait((self._ticking,))

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        before: dict[str, Sample] = {}
        due = loop.time()
        while self._watchers:
            records = [self._containers.get(i) for i in list(self._watchers) if i in self._containers]
            samples = await asyncio.to_thread(self._measure, records)
            for container_id, watchers in self._watchers.items():
                sample = samples.get(container_id)
                if sample is None and container_id in self._containers:
                    continue  # somebody has come to look at it since
                for queue in watchers:
                    _deliver(queue, None if sample is None else (sample, before.get(container_id)))
            before = samples
            due = max(due + _INTERVAL_S, loop.time())
            await asyncio.sleep(due - loop.time())

    def _measure(self, records: list[Record]) -> dict[str, Sample]:
        """Blocking."""
        system = system_cpu()
        return {record.id: self._measure_one(record, system) for record in records}

    def _measure_one(self, record: Record, system: SystemCpu) -> Sample:
        usage, interfaces = None, {}
        if record.state.has_process:
            with suppress(FileNotFoundError):
                usage = group_usage(self._hierarchies, self._group_of(record))
            if record.host_config.network_mode != "host":
                interfaces = interface_counters(record.state.pid)
        return Sample(time.time_ns(), system, usage, interfaces)


def _deliver(queue: asyncio.Queue[Measured | None], measured: Measured | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(measured)
