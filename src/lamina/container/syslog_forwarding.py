"""What containers with the ``syslog`` driver say, passed on to syslog.

The daemon follows their logs, so that nobody waits for a slow or dead syslog but the lines themselves. How far it has come is written
down by time: the next daemon goes on there, and a syslog that was away gets what it has missed, as far as the log still has it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from lamina.container.log_lines import LogLine
from lamina.container.log_options import tag_of
from lamina.container.logs import LogQuery
from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.container.syslog import SyslogTarget
from lamina.container.times import InvalidTime, parse_rfc3339

_log = logging.getLogger(__name__)
_NAME = "syslog"
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
_NOTE_EVERY_S = 1.0

Lines = Callable[[Record, LogQuery], AsyncIterator[LogLine]]


class SyslogForwarding:
    """Passes on the lines of all containers that want it."""

    def __init__(self, containers: ContainerStore, lines: Lines, directory_of: Callable[[str], Path]) -> None:
        """*directory_of* names where a container's own files lie."""
        self._containers = containers
        self._lines = lines
        self._directory_of = directory_of
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Go on with the containers that run, and with what those that ended meanwhile had still to say."""
        for record in self._containers:
            if record.state.has_process or self._note(record.id).exists():
                self._begin(record)

    def heard(self, action: str, record: Record, attributes: Mapping[str, str]) -> None:
        """Something has happened to a container."""
        if action == "start":
            self._begin(record)
        elif action == "destroy":
            self._tasks.pop(record.id, None)  # it ends by itself, when it has passed on what it has open

    async def close(self) -> None:
        """Pass on no more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _note(self, container_id: str) -> Path:
        return self._directory_of(container_id) / _NAME

    def _begin(self, record: Record) -> None:
        config = record.host_config.log_config
        if config.type != "syslog":
            return
        before = self._tasks.get(record.id)
        target = SyslogTarget.of(config.config or {})
        self._tasks[record.id] = asyncio.ensure_future(self._forward(record, target, before))

    async def _forward(self, record: Record, target: SyslogTarget, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        delay_s = _FIRST_RETRY_S
        while record.id in self._containers:
            try:
                await self._forward_until_end(record, target)
            except OSError as error:
                _log.warning("%s: syslog cannot be reached, trying again: %s", record.id, error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_RETRY_S)
            else:
                return

    async def _forward_until_end(self, record: Record, target: SyslogTarget) -> None:
        """Raises OSError; what was passed on by then is noted."""
        since_ns = self._noted(record.id)
        connection: socket.socket | None = None
        noted_s, sent_ns = 0.0, since_ns
        try:
            # lines may have the same time: better twice than not at all
            async for line in self._lines(record, LogQuery(follow=True, since_ns=since_ns if since_ns >= 0 else None)):
                # not before there is something to say, as a container may be gone as soon as it has said it
                if connection is None:
                    connection = await asyncio.to_thread(target.connect)
                when_ns = _time_ns(line)
                await _send(connection, target, record, line, when_ns)
                sent_ns = max(sent_ns, when_ns)
                if asyncio.get_running_loop().time() - noted_s > _NOTE_EVERY_S:
                    noted_s = asyncio.get_running_loop().time()
                    self._write_note(record.id, sent_ns)
            sent_ns += 1  # it has ended, and all was passed on
        finally:
            if connection is not None:
                connection.close()
            self._write_note(record.id, sent_ns)

    def _noted(self, container_id: str) -> int:
        try:
            return int(self._note(container_id).read_text())
        except (OSError, ValueError):
            return -1

    def _write_note(self, container_id: str, sent_ns: int) -> None:
        with suppress(OSError):  # the container is gone, or the disk is full: some lines may come twice
            self._note(container_id).write_text(str(sent_ns))


async def _send(connection: socket.socket, target: SyslogTarget, record: Record, line: LogLine, when_ns: int) -> None:
    when = datetime.fromtimestamp(max(when_ns, 0) / 1e9, UTC)
    message = target.message(line.text, is_error=line.stream == 2, tag=tag_of(record), when=when)
    await asyncio.to_thread(connection.sendall, message)


def _time_ns(line: LogLine) -> int:
    try:
        return parse_rfc3339(line.time)
    except InvalidTime:
        return 0
