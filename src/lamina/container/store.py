"""All containers: by ID, by name, by the beginning of an ID.

Records are kept in memory, as ``ps`` asks for all of them; a change is committed to the database before it shows here. A name is
reserved in memory first, so that of many clients who want it at once one gets it.

What *has happened*, as that a process ended, is another matter: a full disk cannot undo it. It shows at once, and its row follows
(``settle``).
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from lamina.container.errors import AmbiguousContainerID, ContainerNotFound, InvalidContainerName, NameInUse
from lamina.container.record import Record, decode, encode
from lamina.linux.tasks import to_the_end
from lamina.state import Database, Schema
from lamina.state.database import Change, WriteFailed

_log = logging.getLogger(__name__)
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0

SCHEMA = Schema(
    "container",
    (
        """CREATE TABLE container (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            record BLOB NOT NULL
        ) STRICT""",
    ),
)

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class ContainerStore:
    """The containers of one state root."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._records: dict[str, Record] = {}
        self._names: dict[str, str] = {}
        self._unwritten: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read all rows."""
        for row in await self._database.read(lambda c: c.execute("SELECT record FROM container").fetchall()):
            record = decode(row["record"])
            self._records[record.id] = record
            self._names[record.name] = record.id

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._records

    def get(self, container_id: str) -> Record:
        """The container with exactly this ID. Raises ContainerNotFound."""
        try:
            return self._records[container_id]
        except KeyError:
            raise ContainerNotFound(container_id) from None

    def find(self, name: str) -> Record:
        """The container that a user means: an ID, a name, or the beginning of one ID, in this order.

        Raises ContainerNotFound or AmbiguousContainerID.
        """
        if name in self._records:
            return self._records[name]
        owner = self._names.get(name.removeprefix("/"))
        if owner in self._records:
            return self._records[owner]
        matches = [i for i in self._records if i.startswith(name)] if name else []
        if not matches:
            raise ContainerNotFound(name)
        if len(matches) > 1:
            raise AmbiguousContainerID(name)
        return self._records[matches[0]]

    def has_name(self, name: str) -> bool:
        """Whether a container has or is about to have this name."""
        return name in self._names

    def reserve_name(self, name: str, container_id: str) -> str:
        """Take a name for a container that is being created, and return it without docker's leading slash.

        Raises InvalidContainerName or NameInUse.
        """
        if not _NAME.fullmatch(name):
            raise InvalidContainerName(name)
        name = name.removeprefix("/")
        owner = self._names.setdefault(name, container_id)
        if owner != container_id:
            raise NameInUse(name, owner)
        return name

    def release_name(self, name: str) -> None:
        """Give back a reserved name whose container did not come to be."""
        self._names.pop(name, None)

    async def rename(self, record: Record, name: str) -> Record:
        """Give a container another name and return its new record; the old name is free again.

        Raises InvalidContainerName, NameInUse or WriteFailed.
        """
        new = self.reserve_name(name, record.id)
        try:
            renamed = await self.put(msgspec.structs.replace(record, name=new))
        except BaseException:
            self.release_name(new)
            raise
        self.release_name(record.name)
        return renamed

    async def put(self, record: Record, *, lasting: bool = True) -> Record:
        """Commit a new or changed record, whose name is reserved, and return it; see ``Database.write`` for *lasting*.

        It shows when it is committed, also if the caller is cancelled meanwhile. Raises WriteFailed.
        """
        await to_the_end(self._put(record, lasting=lasting, frees=False))
        return record

    async def settle(self, record: Record) -> Record:
        """Note a fact and return the record. If its row cannot be written now it is as soon as that is possible."""
        try:
            await to_the_end(self._put(record, lasting=True, frees=True))
        except WriteFailed as error:
            _log.error("container %s: %s; trying again until it is written", record.id, error)
            self._show(record)
            self._unwritten.add(record.id)
            if self._writing is None or self._writing.done():
                self._writing = asyncio.ensure_future(self._write_unwritten())
        return record

    async def remove(self, container_id: str, also: Change | None = None) -> None:
        """Commit that a container is no more, with what goes with it (*also*); its name is free again. Raises WriteFailed."""
        await to_the_end(self._remove(self.get(container_id), also))

    async def close(self) -> None:
        """Try a last time to write what could not be written."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait((self._writing,))
        for container_id in list(self._unwritten):
            with suppress(WriteFailed):
                await self._put(self._records[container_id], lasting=True, frees=True)

    async def _put(self, record: Record, *, lasting: bool, frees: bool) -> None:
        data = encode(record)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO container VALUES (?, ?, ?)", (record.id, record.name, data))

        await self._database.write(write, lasting=lasting, frees=frees)
        self._unwritten.discard(record.id)
        self._show(record)

    async def _remove(self, record: Record, also: Change | None) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM container WHERE id = ?", (record.id,))
            if also is not None:
                also(connection)

        await self._database.write(delete, frees=True)
        self._unwritten.discard(record.id)
        self._records.pop(record.id, None)
        self._names.pop(record.name, None)

    def _show(self, record: Record) -> None:
        self._records[record.id] = record
        self._names[record.name] = record.id

    async def _write_unwritten(self) -> None:
        delay_s = _FIRST_RETRY_S
        while self._unwritten:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_RETRY_S)
            for container_id in list(self._unwritten):
                with suppress(WriteFailed, KeyError):
                    await self._put(self._records[container_id], lasting=True, frees=True)
