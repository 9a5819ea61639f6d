"""Logs are kept short: one that has become too long is set aside, a new one is begun, and the oldest go.

conmon writes the log and goes on alone when the daemon is gone; the daemon, when it hears that something was written (inotify), looks
at the size, sets the file aside and tells conmon to open its log again. Who follows a log is given each new file before anything can be
removed, and so loses no line. While no daemon runs a log grows; the next one cuts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.container import log_files
from lamina.container.log_files import LogReader
from lamina.container.log_lines import LogLine
from lamina.container.log_options import LogLimits, log_limits
from lamina.container.logs import LogQuery, read_logs
from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.linux.inotify import DirectoryWatches
from lamina.linux.tasks import to_the_end

_log = logging.getLogger(__name__)
_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.1
_REOPEN_PATIENCE_S = 5.0
_REOPEN_POLL_S = 0.002
_NO_LIMITS = LogLimits(None, 1)


@dataclass
class _Watched:
    """A log that is written, the lock that keeps its files as they are, and those who follow it."""

    path: Path
    limits: LogLimits
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    followers: set[Follower] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


@dataclass(eq=False)
class Follower:
    """A reader and the word that there is more to read."""

    reader: LogReader
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: bool = False

    async def next_change(self) -> bool:
        """Wait until there may be more; False if no more can come."""
        if not self.has_ended:
            await self.changed.wait()
            self.changed.clear()
            return True
        return False


class LogRotation:
    """The logs of all containers: keeps them short, and opens them for reading."""

    def __init__(
        self, containers: ContainerStore, path_of: Callable[[str], Path], reopen: Callable[[str], None]
    ) -> None:
        """*reopen* tells a container's conmon to open its log again; it raises OSError if there is none."""
        self._containers = containers
        self._path_of = path_of
        self._reopen = reopen
        self._watches: DirectoryWatches | None = None
        self._watched: dict[str, _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Watch the logs of the containers that run."""
        self._watches = DirectoryWatches()
        for record in self._containers:
            if record.state.has_process:
                self._begin(record)

    def heard(self, action: str, record: Record, attributes: Mapping[str, str]) -> None:
        """Something has happened to a container."""
        if action == "start":
            self._begin(record)
        elif action == "die":
            self._in_background(self._finish(record.id))
        elif action == "destroy":
            self._forget(record.id)

    @asynccontextmanager
    async def _reading(self, record: Record, *, follow: bool) -> AsyncIterator[Follower]:
        """A container's log for the length of the block; one that is followed is given its new files."""
        watched = self._of(record)
        async with watched.lock:
            follower = Follower(await asyncio.to_thread(log_files.open_log, watched.path))
            follower.has_ended = not self._is_running(record.id)
            if follow:
                watched.followers.add(follower)
        try:
            yield follower
        finally:
            watched.followers.discard(follower)
            follower.reader.close()

    async def lines(self, record: Record, query: LogQuery) -> AsyncIterator[LogLine]:
        """The lines that match; see ``read_logs``."""
        async with self._reading(record, follow=query.follow) as follower:
            async for line in read_logs(follower.reader, query, follower.next_change):
                yield line

    async def clear(self, record: Record) -> None:
        """Remove all that a container has said so far."""
        watched = self._of(record)
        async with watched.lock:
            await to_the_end(self._rotate(record.id, watched))
            await asyncio.to_thread(log_files.trim, watched.path, 1, 0)

    async def close(self) -> None:
        """Watch no more."""
        tasks = [*self._tasks, *(w.task for w in self._watched.values() if w.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._watches is not None:
            self._watches.close()

    def _of(self, record: Record) -> _Watched:
        config = record.host_config.log_config
        limits = log_limits(config) if config.type != "none" else _NO_LIMITS
        return self._watched.setdefault(record.id, _Watched(self._path_of(record.id), limits))

    def _is_running(self, container_id: str) -> bool:
        return container_id in self._containers and self._containers.get(container_id).state.has_process

    def _begin(self, record: Record) -> None:
        if record.host_config.log_config.type == "none":
            return
        watched = self._of(record)
        if watched.task is None or watched.task.done():
            watched.task = self._in_background(self._look(record.id, watched))

    async def _look(self, container_id: str, watched: _Watched) -> None:
        """Look at a log's size as long as it grows, and then ask to be told of its next change."""
        assert self._watches is not None
        before, pause_s = -1, 0.0
        while True:
            # asked for first, so that what is written between the look and the asking is not missed
            with suppress(OSError):
                self._watches.once(watched.path.parent, lambda: self._woken(container_id, watched))
            size = _size(watched.path)
            if size == before:
                return
            for follower in watched.followers:
                follower.changed.set()
            limit = watched.limits.max_bytes
            if limit is not None and (size > limit or not watched.path.exists()):
                async with watched.lock:
                    await to_the_end(self._shorten(container_id, watched))
                size = 0
            grown = size - before if before >= 0 else 0
            if limit is not None and grown > 0 and pause_s > 0:
                pause_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, pause_s * (limit - size) / (2 * grown)))
            else:
                pause_s = _SHORTEST_PAUSE_S
            before = size
            await asyncio.sleep(pause_s)

    def _woken(self, container_id: str, watched: _Watched) -> None:
        if (watched.task is None or watched.task.done()) and self._is_running(container_id):
            watched.task = self._in_background(self._look(container_id, watched))

    async def _shorten(self, container_id: str, watched: _Watched) -> None:
        """With the lock held."""
        limits = watched.limits
        assert limits.max_bytes is not None
        is_new = await self._rotate(container_id, watched)
        await asyncio.to_thread(log_files.trim, watched.path, limits.max_files, limits.max_bytes)
        if limits.compress and is_new:
            await asyncio.to_thread(log_files.compress, watched.path)

    async def _rotate(self, container_id: str, watched: _Watched) -> bool:
        """With the lock held: begin a new file, which those who follow are given; False if the old one may still be written."""
        await asyncio.to_thread(log_files.set_aside, watched.path)
        try:
            self._reopen(container_id)
        except OSError:
            return True  # nobody writes: whoever comes next makes a new file
        deadline = asyncio.get_running_loop().time() + _REOPEN_PATIENCE_S
        while not watched.path.exists():
            if asyncio.get_running_loop().time() > deadline:
                _log.warning("%s: conmon has not opened its log again", container_id)
                return False
            await asyncio.sleep(_REOPEN_POLL_S)
        for follower in list(watched.followers):
            if not follower.reader.grow(log_files.open_file(watched.path)):
                follower.has_ended = True
                watched.followers.discard(follower)
            follower.changed.set()
        return True

    async def _finish(self, container_id: str) -> None:
        """The process has ended, and nothing more is written: the last look."""
        watched = self._watched.get(container_id)
        if watched is None:
            return
        for follower in list(watched.followers):
            follower.has_ended = True
            follower.changed.set()
        limit = watched.limits.max_bytes
        async with watched.lock:
            if not self._is_running(container_id) and limit is not None and _size(watched.path) > limit:
                await to_the_end(self._shorten(container_id, watched))

    def _forget(self, container_id: str) -> None:
        watched = self._watched.pop(container_id, None)
        if watched is not None:
            for follower in list(watched.followers):
                follower.has_ended = True
                follower.changed.set()
            if watched.task is not None:
                watched.task.cancel()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a log cannot be looked after", exc_info=task.exception())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
