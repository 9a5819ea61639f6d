"""Further processes in running containers (``docker exec``): what each was asked to be, its streams, and how it ended.

A session is kept until its container is gone, or for a while after its end. Like a container's own process it is conmon's child, so
that a daemon's end does not end it; who had asked for it is forgotten then, as with docker.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from lamina.container.config import ExecConfig
from lamina.container.errors import (
    ContainerIsPaused,
    ContainerIsRestarting,
    ContainerNotFound,
    ContainerNotRunning,
    ExecAlreadyRuns,
    ExecNotFound,
)
from lamina.container.links import linked_running
from lamina.container.processes import ContainerProcesses
from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.container.streams import Console
from lamina.errors import ContainerStartError, InvalidArgument

_START_PATIENCE_S = 10.0
_KEPT_S = 300
"""How long a session is kept after its end, as with docker."""

Tell = Callable[[str, Record, Mapping[str, str]], None]
"""(what happened, in which container, with what attributes)"""


@dataclass
class ExecSession:
    """One process, before it runs, while it does, and after.

    ``exit_code`` is None until it is known; ``ended_s`` is of the monotonic clock.
    """

    id: str
    container_id: str
    config: ExecConfig
    console: Console = field(default_factory=Console)
    started: bool = False
    pid: int = 0
    exit_code: int | None = None
    ended_s: float | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_running(self) -> bool:
        """Whether the process exists."""
        return self.pid > 0 and self.ended_s is None

    @property
    def command(self) -> str:
        """As events tell it."""
        return " ".join(self.config.cmd or [])


class Execs:
    """The sessions of all containers."""

    def __init__(self, containers: ContainerStore, processes: ContainerProcesses, tell: Tell) -> None:
        self._containers = containers
        self._processes = processes
        self._tell = tell
        self._sessions: dict[str, ExecSession] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    def create(self, record: Record, config: ExecConfig) -> ExecSession:
        """Remember what is to run. Raises ContainerNotRunning, ContainerIsPaused or InvalidArgument."""
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        _check_running(record)
        self._forget_old()
        session = ExecSession(secrets.token_hex(32), record.id, config)
        self._sessions[session.id] = session
        self._tell(f"exec_create: {session.command}", record, {"execID": session.id})
        return session

    def get(self, exec_id: str) -> ExecSession:
        """A session by its ID. Raises ExecNotFound, also if its container is gone."""
        session = self._sessions.get(exec_id)
        if session is None or session.container_id not in self._containers:
            raise ExecNotFound(exec_id)
        return session

    def ids_of(self, container_id: str) -> list[str]:
        """The sessions of a container that have not ended."""
        return [s.id for s in self._sessions.values() if s.container_id == container_id and s.ended_s is None]

    def check_startable(self, session: ExecSession) -> Record:
        """The session's container, if the process may be started now. Raises ExecAlreadyRuns, ContainerNotRunning, ContainerIsPaused."""
        record = self._containers.get(session.container_id)
        _check_running(record)
        if session.started:
            raise ExecAlreadyRuns(session.id)
        return record

    async def start(self, session: ExecSession, console_size: tuple[int, int] | None = None) -> None:
        """Run the process; its output goes to those who subscribed to the session's console.

        Raises ContainerStartError's kinds, whose exit code is the session's then, and as ``check_startable`` does.
        """
        record = self.check_startable(session)
        session.started = True
        self._tell(f"exec_start: {session.command}", record, {"execID": session.id})
        try:
            others = linked_running(record, self._containers)
            session.pid = await self._processes.execute(
                record, session.id, session.config, console_size, session.console, others
            )
        except BaseException as error:
            code = error.exit_code if isinstance(error, ContainerStartError) else 126
            self._end(session, 126 if code == 128 else code)
            await self._clean_up(session)
            raise
        session.begun.set()
        task = asyncio.ensure_future(self._follow_to_end(session))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def until_begun(self, session: ExecSession) -> None:
        """Return when a process that is being started runs, or has failed to. Raises TimeoutError."""
        if session.started:
            async with asyncio.timeout(_START_PATIENCE_S):
                await session.begun.wait()

    def resize(self, session: ExecSession, height: int, width: int) -> None:
        """Set the terminal's size. Raises OSError if the process has none, or has ended."""
        self._processes.resize_exec(session.container_id, session.id, height, width)

    async def close(self) -> None:
        """Stop watching; the processes go on."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    async def _follow_to_end(self, session: ExecSession) -> None:
        status = await self._processes.wait_exec(session.container_id, session.id)
        session.console.hasten()
        await session.console.finished()
        self._end(session, status.code)
        with suppress(ContainerNotFound):
            record = self._containers.get(session.container_id)
            self._tell("exec_die", record, {"execID": session.id, "exitCode": str(status.code)})
        await self._clean_up(session)

    def _end(self, session: ExecSession, code: int) -> None:
        session.exit_code = code
        session.ended_s = time.monotonic()
        session.begun.set()
        session.ended.set()
        session.console.end_subscriptions()

    async def _clean_up(self, session: ExecSession) -> None:
        directory = self._processes.exec_bundle(session.container_id, session.id)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def _forget_old(self) -> None:
        bound = time.monotonic() - _KEPT_S
        for session in list(self._sessions.values()):
            is_old = session.ended_s is not None and session.ended_s < bound
            if is_old or session.container_id not in self._containers:
                del self._sessions[session.id]


def _check_running(record: Record) -> None:
    if record.state.status == "restarting":
        raise ContainerIsRestarting(record.id)
    if not record.state.has_process:
        raise ContainerNotRunning(record.id)
    if record.state.status == "paused":
        raise ContainerIsPaused(record.id)
