"""Pausing: a container's processes stand still and go on (the freezer of cgroups(7))."""

from __future__ import annotations

from contextlib import suppress

from lamina.container.announcements import Listener
from lamina.container.errors import ContainerIsRestarting, ContainerNotFound, ContainerNotRunning, PauseConflict
from lamina.container.locks import ContainerLocks
from lamina.container.processes import ContainerProcesses
from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.container.transitions import as_frozen
from lamina.linux.tasks import to_the_end


class Freezing:
    """Freezes the containers of one store."""

    def __init__(
        self, store: ContainerStore, processes: ContainerProcesses, locks: ContainerLocks, emit: Listener
    ) -> None:
        self._store = store
        self._processes = processes
        self._locks = locks
        self._emit = emit

    async def pause(self, container_id: str) -> None:
        """Freeze a container's processes. Raises ContainerNotRunning or PauseConflict."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            if record.state.status == "paused":
                raise PauseConflict(record.id, "already paused")
            if record.state.status == "restarting":
                raise ContainerIsRestarting(record.id)
            if not record.state.has_process:
                raise ContainerNotRunning(record.id)
            await self._freeze(record, frozen=True)

    async def unpause(self, container_id: str) -> None:
        """Let a frozen container go on. Raises PauseConflict."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            if record.state.status != "paused":
                raise PauseConflict(record.id, "not paused")
            await self._freeze(record, frozen=False)

    async def _freeze(self, record: Record, *, frozen: bool) -> None:
        """With the lock held. What the record says and what the kernel does are the same again if one of them fails."""
        try:
            await self._processes.freeze(record, frozen=frozen)
        except FileNotFoundError:
            raise ContainerNotRunning(record.id) from None  # it ended a moment ago
        except OSError as error:
            raise PauseConflict(record.id, f"not {'paused' if frozen else 'unpaused'}: {error}") from None
        try:
            await self._store.put(as_frozen(record) if frozen else record.with_state(status="running"))
        except BaseException:
            with suppress(OSError):
                await to_the_end(self._processes.freeze(record, frozen=not frozen))
            raise
        self._emit("pause" if frozen else "unpause", record, {})

    async def let_signals_in(self, container_id: str) -> None:
        """A frozen process takes a signal when it goes on, which it does for this, as with docker."""
        with suppress(PauseConflict, ContainerNotRunning, ContainerNotFound):
            if self._store.get(container_id).state.status == "paused":
                await self.unpause(container_id)
