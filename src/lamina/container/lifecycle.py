"""A container's life: started, stopped, ended by itself, removed; and found again by a new daemon.

One lock a container keeps these apart. What the record says is committed before anybody is told; what the kernel holds for a container
that has ended is cleaned up after they were told, still under the lock, so that a quick restart finds a clean place.

States and what leads from one to the next::

    created ──start──→ running ──exit──→ exited ──start──→ running …
       │                  └───exit──→ restarting ──after a while──→ running …
       └──────────────── remove ───────────┴──→ (no record)
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress

import msgspec

from lamina.container.announcements import Listener
from lamina.container.config import HostConfig
from lamina.container.errors import (
    AlreadyStarted,
    AlreadyStopped,
    ContainerBeingRemoved,
    ContainerDoesNotEnd,
    ContainerNotFound,
    ContainerNotRunning,
    ContainerRunning,
    PauseConflict,
)
from lamina.container.freezing import Freezing
from lamina.container.locks import ContainerLocks
from lamina.container.processes import ContainerProcesses
from lamina.container.record import Record, Status
from lamina.container.restarts import Restarts, wants_restart, wants_revival
from lamina.container.settings import donors_in
from lamina.container.store import ContainerStore
from lamina.container.streams import Console, Subscription
from lamina.container.transitions import as_ended, as_restarting, as_running, seconds_run, stop_signal
from lamina.container.updates import limits_of, updated
from lamina.container.waiting import Condition, Waiters
from lamina.errors import ContainerStartError, InvalidArgument, LaminaError
from lamina.linux.signals import signal_number
from lamina.linux.tasks import to_the_end
from lamina.runtime.monitor import ExitStatus
from lamina.snapshot import Snapshots
from lamina.volume import VolumeStore

_log = logging.getLogger(__name__)
_DEFAULT_STOP_TIMEOUT_S = 10
_KILL_PATIENCE_S = 10
_START_FAILED = 128


class Lifecycle:
    """Starts, stops, watches and removes the containers of one store."""

    def __init__(
        self,
        store: ContainerStore,
        processes: ContainerProcesses,
        snapshots: Snapshots,
        volumes: VolumeStore,
        locks: ContainerLocks,
        freezing: Freezing,
        emit: Listener,
    ) -> None:
        self._store = store
        self._processes = processes
        self._snapshots = snapshots
        self._volumes = volumes
        self._emit = emit
        self._waiters = Waiters()
        self._locks = locks
        self._freezing = freezing
        self._restarts = Restarts(self._start_again)
        self._kept: set[str] = set()
        self._leaving: dict[str, bool] = {}
        self._discarding = asyncio.Semaphore(1)
        self._consoles: dict[str, Console] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, action: str, record: Record, attributes: Mapping[str, str] | None = None) -> None:
        """Tell the world what happened to a container outside of its life."""
        self._emit(action, record, attributes or {})

    def console(self, container_id: str) -> Console:
        """The streams of a container, whether it runs or not."""
        return self._consoles.setdefault(container_id, Console())

    async def attach(self, container_id: str) -> Subscription:
        """Take part in what a container's process says from now on, or the next one's if it has none. Raises ContainerNotFound."""
        async with self._locks.of(container_id):
            console = self.console(container_id)
            if self._store.get(container_id).state.has_process and not console.is_connected:
                # if it has ended, the recording of that waits for us, and will end what is subscribed here
                with suppress(OSError):
                    console.connect(await self._processes.attach(container_id))
            return console.subscribe()

    async def start(self, container_id: str) -> None:
        """Start a container's process. Raises AlreadyStarted, ContainerStartError's kinds, or what preparing may raise."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            if record.state.status == "paused":
                raise PauseConflict(record.id, "paused: cannot start a paused container, try unpause instead")
            if record.state.is_running:
                raise AlreadyStarted(f"container {record.name} is already running")
            if record.state.status == "removing":
                raise ContainerBeingRemoved(record.name)
            self._restarts.forget(container_id)
            await self._start_unless_removed(msgspec.structs.replace(record, restart_count=0))

    async def _start_again(self, container_id: str) -> None:
        """What a restart policy does, unless the container was stopped, started or removed meanwhile."""
        with suppress(ContainerNotFound, LaminaError):
            async with self._locks.of(container_id):
                record = self._store.get(container_id)
                if record.state.status != "restarting":
                    return
                if any(self._is_restarting(donor) for donor in donors_in(record.host_config)):
                    self._restarts.schedule(container_id, 0)
                else:
                    await to_the_end(self._start_unless_removed(record))

    def _is_restarting(self, name: str) -> bool:
        """Whether a container whose namespaces are to be joined is about to come back."""
        try:
            return self._store.find(name).state.status == "restarting"
        except LaminaError:
            return False

    async def _start_unless_removed(self, record: Record) -> None:
        """With the lock held. Removing by force does not wait for a start, but ends it. Raises as ``start`` does."""
        starting = self._starts[record.id] = asyncio.ensure_future(self._start(record))
        try:
            await starting
        except asyncio.CancelledError:
            if not _is_cancelled_itself():
                raise ContainerBeingRemoved(record.name) from None
            raise
        finally:
            del self._starts[record.id]

    async def _start(self, record: Record) -> None:
        """With the lock held: all of it, or nothing is left but the error in the record."""
        console = self.console(record.id)
        try:
            started = await self._processes.create(record, self._donor_of)
            try:
                if console.has_subscribers:
                    console.connect(await self._processes.attach(record.id))
                running = as_running(record, started)
                await self._processes.start(record)
                await self._store.put(running, lasting=False)
            except BaseException:
                await to_the_end(self._processes.clean_up(record, started.joined))
                raise
        except BaseException as error:
            await to_the_end(self._record_start_failure(record, error))
            raise
        self._emit("start", running, {})
        self._watch(running)

    async def _record_start_failure(self, record: Record, error: BaseException) -> None:
        self.console(record.id).end_subscriptions()
        code = error.exit_code if isinstance(error, ContainerStartError) else _START_FAILED
        text = error.message if isinstance(error, LaminaError) else str(error) or "the start was interrupted"
        status: Status = "exited" if record.state.status == "restarting" else record.state.status
        failed = await self._store.settle(record.with_state(status=status, exit_code=code, error=text))
        if failed.host_config.auto_remove:
            await self._remove_ended(failed)

    async def stop(self, container_id: str, timeout_s: int | None = None, signal_name: str | None = None) -> None:
        """Ask the process to end, and kill it if it has not after *timeout_s* (-1: never). Raises AlreadyStopped."""
        number = signal_number(signal_name or stop_signal(self._store.get(container_id)))
        try:
            record = await self._told_to_end(container_id)
        except ContainerNotRunning:
            raise AlreadyStopped(f"container {self._store.get(container_id).name} is already stopped") from None
        if record is None:
            self._emit("stop", self._store.get(container_id), {})
            return
        configured = record.config.stop_timeout
        patience = (
            timeout_s if timeout_s is not None else configured if configured is not None else _DEFAULT_STOP_TIMEOUT_S
        )
        ended = asyncio.ensure_future(self._ended(record))
        try:
            if self._processes.signal(record, number):
                self._emit("kill", record, {"signal": str(int(number))})
            await self._freezing.let_signals_in(container_id)
            await asyncio.wait((ended,), timeout=None if patience < 0 else patience)
            if not ended.done():
                await self._end(record)
        finally:
            ended.cancel()
        self._emit("stop", record, {})

    async def _told_to_end(self, container_id: str) -> Record | None:
        """Note that a process is to end and not to come back. None if there was only a restart to come, which is called off.

        Raises ContainerNotRunning.
        """
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            if record.state.status == "restarting":
                self._restarts.forget(container_id)
                await self._store.settle(record.with_state(status="exited", stopped_by_user=True))
                self._waiters.tell_exit(container_id, record.state.exit_code)
                return None
            if not record.state.has_process:
                raise ContainerNotRunning(container_id)
            if record.state.stopped_by_user:
                return record
            return await self._store.put(record.with_state(stopped_by_user=True), lasting=False)

    async def kill(self, container_id: str, signal_name: str | None = None) -> None:
        """Send a signal. Raises ContainerNotRunning or InvalidArgument; for SIGKILL, returns when the container has ended."""
        record = self._store.get(container_id)
        number = signal_number(signal_name or "SIGKILL")
        if number in (signal.SIGKILL, signal_number(stop_signal(record))):
            told = await self._told_to_end(container_id)
            if told is None:
                return
            record = told
        if record.state.status == "restarting":
            return  # there is nobody to hear it yet
        if not record.state.has_process or not self._processes.signal(record, number):
            raise ContainerNotRunning(record.id)
        self._emit("kill", record, {"signal": str(int(number))})
        await self._freezing.let_signals_in(container_id)
        if number == signal.SIGKILL:
            await self._await_end(record)

    async def restart(self, container_id: str, timeout_s: int | None = None, signal_name: str | None = None) -> None:
        """Stop if running, then start. One that goes with its process (``--rm``) stays."""
        self._kept.add(container_id)
        try:
            with suppress(AlreadyStopped):
                await self.stop(container_id, timeout_s, signal_name)
            await self.start(container_id)
        finally:
            self._kept.discard(container_id)
        self._emit("restart", self._store.get(container_id), {})

    async def update(self, container_id: str, request: HostConfig) -> Record:
        """Change what a container may use, and its restart policy. Raises InvalidArgument, UpdateConflict or CannotUpdate."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            changed = updated(record, request)
            limits = limits_of(changed, request)
            if limits is not None and record.state.has_process:
                await self._processes.update(record, limits)
            await self._store.put(changed)
        self._emit("update", changed, {})
        return changed

    async def rename(self, container_id: str, name: str) -> None:
        """Give a container another name. Raises InvalidArgument's kinds or NameInUse."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            if not name.removeprefix("/"):
                raise InvalidArgument("Neither old nor new names may be empty")
            if name.removeprefix("/") == record.name:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            renamed = await self._store.rename(record, name)
            self._emit("rename", renamed, {"oldName": f"/{record.name}"})

    async def wait(self, container_id: str, condition: Condition) -> int:
        """The exit code, when the condition has come about."""
        if condition == "removed":
            return await self._waiters.removed(container_id)
        record = self._store.get(container_id)
        if condition == "not-running" and not record.state.is_running:
            return record.state.exit_code
        return await self._waiters.exited(container_id)

    async def remove(self, container_id: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container with its read-write layer and files; with *volumes* its anonymous volumes too.

        Raises ContainerNotFound, or ContainerRunning without *force*.
        """
        while True:
            if force and container_id in self._starts:
                self._starts[container_id].cancel()
            async with self._locks.of(container_id):
                record = self._store.get(container_id)
                if not force and record.state.is_running:
                    raise ContainerRunning(record.name, record.state.status)
                if not record.state.has_process:
                    await self._remove(record, volumes=volumes)
                    return
            # its end need not be written down, as nothing of it stays
            self._leaving[container_id] = volumes
            try:
                await self._end(record)
            finally:
                self._leaving.pop(container_id, None)
            if await self._has_removed_itself(container_id):
                return

    async def _has_removed_itself(self, container_id: str) -> bool:
        """Whether an end that was recorded took the container with it, which is done under the lock, behind the telling."""
        if container_id in self._store:
            async with self._locks.of(container_id):
                pass
        return container_id not in self._store

    async def _remove(self, record: Record, *, volumes: bool) -> None:
        """With the lock held. The rows go first: what is left then is garbage for a next start."""
        with self._volumes.removing(self._own_volumes(record) if volumes else ()) as removal:
            await self._store.remove(record.id, removal.change)
        self._restarts.forget(record.id)
        self.console(record.id).end_subscriptions()
        self._consoles.pop(record.id, None)
        await removal.finish()
        self._emit("destroy", record, {})
        self._waiters.tell_removal(record.id, record.state.exit_code)
        self._locks.forget(record.id)
        self._in_background(self._discard(record))

    def _own_volumes(self, record: Record) -> list[str]:
        """Its anonymous volumes that no other container has come to use."""
        used = {point.name for other in self._store if other.id != record.id for point in other.mounts}
        return [n for n in record.anonymous_volumes if n not in used and not self._volumes.is_held(n)]

    async def _discard(self, record: Record) -> None:
        """Delete what is left of a container, for which nobody waits: one container after the other, so that others' work goes first."""
        watcher = self._watchers.get(record.id)
        if watcher is not None:
            await asyncio.wait((watcher,))
        async with self._discarding:
            await self._snapshots.remove(record.id)
            await self._processes.forget(record.id)

    async def adopt(self) -> None:
        """Find the containers that ran when the last daemon ended: watch those that run, record the end of the others.

        One that goes with its process (``--rm``) and has none goes now: its start came to nothing, and nobody is left who would try again.
        """
        for record in self._store:
            if record.state.has_process:
                await self._processes.adopt(record)
                self._watch(await self._as_the_kernel_has_it(record))
                continue
            if self._processes.bundle(record.id).exists():
                # its start was never acknowledged, or its end was recorded but not cleaned up
                await self._processes.clean_up(record, record.joined)
            if record.host_config.auto_remove:
                await self._remove_ended(record)

    async def _as_the_kernel_has_it(self, record: Record) -> Record:
        """A record that tells whether its processes are frozen, also if the last daemon was killed in between."""
        status: Status = "paused" if await self._processes.is_frozen(record) else "running"
        return record if record.state.status == status else await self._store.settle(record.with_state(status=status))

    def carry_on(self) -> None:
        """Start what is to run whenever a daemon does, now that one does again."""
        self._in_background(self._revive([record for record in self._store if wants_revival(record)]))

    async def _revive(self, records: Sequence[Record]) -> None:
        for record in records:
            with suppress(ContainerNotFound):
                await self.change(record.id, as_restarting, lasting=False)
        for record in records:
            self._restarts.schedule_now(record.id)

    async def change(self, container_id: str, alter: Callable[[Record], Record], *, lasting: bool = True) -> Record:
        """Commit what *alter* makes of a container's record, and return it. Raises ContainerNotFound, WriteFailed, or as *alter* does."""
        async with self._locks.of(container_id):
            record = self._store.get(container_id)
            changed = alter(record)
            return record if changed is record else await self._store.put(changed, lasting=lasting)

    async def end_all(self) -> None:
        """End all processes, as the machine's own end would: what is to run again does so with the next daemon."""
        await self._restarts.close()
        running = [record for record in self._store if record.state.has_process]
        for record in running:
            self._processes.signal(record, signal.SIGKILL)
            await self._freezing.let_signals_in(record.id)
        for record in running:
            await self._await_end(record)

    async def close(self) -> None:
        """Stop watching. Containers go on; work that was begun on ended ones is finished."""
        await self._restarts.close()
        for record in self._store:
            watcher = self._watchers.get(record.id)
            if watcher is not None and record.state.has_process:
                watcher.cancel()
        pending = [t for t in (*self._watchers.values(), *self._tasks) if not t.done()]
        if pending:
            await asyncio.wait(pending, timeout=_KILL_PATIENCE_S)

    def _watch(self, record: Record) -> None:
        task = asyncio.ensure_future(self._follow_to_end(record))
        self._watchers[record.id] = task
        task.add_done_callback(lambda done: self._forget_watcher(record.id, done))

    def _forget_watcher(self, container_id: str, task: asyncio.Task[None]) -> None:
        if self._watchers.get(container_id) is task:
            del self._watchers[container_id]
        if not task.cancelled() and task.exception() is not None:
            _log.error("watching %s failed", container_id, exc_info=task.exception())

    async def _follow_to_end(self, running: Record) -> None:
        console = self.console(running.id)
        status = await self._processes.wait(running, console.hasten)
        await console.finished()
        try:
            async with self._locks.of(running.id):
                await self._record_end(self._store.get(running.id), status)
        except ContainerNotFound:
            # removed by force before its end was known; what the process had is still there
            await self._processes.clean_up(running, running.joined, has_ended=True)

    async def _record_end(self, record: Record, status: ExitStatus) -> None:
        """With the lock held. Whatever fails, those who wait are told, and what the process had is cleaned up."""
        ended = as_ended(record, status)
        volumes = self._leaving.get(record.id, True)
        goes = record.id in self._leaving or (ended.host_config.auto_remove and record.id not in self._kept)
        comes_back = wants_restart(ended)
        if comes_back:
            counted = msgspec.structs.replace(ended, restart_count=ended.restart_count + 1)
            ended = counted.with_state(status="restarting")
        try:
            if not goes:
                await self._store.settle(ended)
            if status.oom_killed:
                self._emit("oom", record, {})
            self._emit("die", record, {"exitCode": str(status.code), "execDuration": str(int(seconds_run(ended)))})
            self._waiters.tell_exit(record.id, status.code)
            self.console(record.id).end_subscriptions()
            if goes:
                await self._remove_ended(ended, volumes=volumes)
        finally:
            try:
                await self._processes.clean_up(ended, record.joined, has_ended=True)
            finally:
                if comes_back:
                    self._restarts.schedule(record.id, seconds_run(ended))

    async def _remove_ended(self, ended: Record, *, volumes: bool = True) -> None:
        try:
            await self._remove(ended, volumes=volumes)
        except LaminaError as error:
            _log.error("container %s has ended and cannot be removed: %s", ended.id, error)
            await self._store.settle(ended)

    async def _end(self, record: Record) -> None:
        """Kill the process and wait until its end is recorded, also when it ended by itself a moment ago."""
        with suppress(ContainerNotFound, ContainerNotRunning):
            await self._told_to_end(record.id)
        if self._processes.signal(record, signal.SIGKILL):
            self._emit("kill", record, {"signal": str(int(signal.SIGKILL))})
        await self._freezing.let_signals_in(record.id)
        await self._await_end(record)

    async def _await_end(self, record: Record) -> None:
        try:
            await asyncio.wait_for(self._ended(record), _KILL_PATIENCE_S)
        except TimeoutError:
            raise ContainerDoesNotEnd(record.id) from None

    async def _ended(self, record: Record) -> None:
        """Return when the record no longer has the process that it has now."""
        current = self._store.get(record.id) if record.id in self._store else None
        if current is not None and current.state.has_process:
            await self._waiters.exited(record.id)

    def _donor_of(self, name: str) -> Record:
        donor = self._store.find(name)
        if not donor.state.has_process:
            raise ContainerNotRunning(donor.id)
        return donor

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_cancelled_itself() -> bool:
    """Whether the CancelledError at hand is for the running task, and not of one that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
