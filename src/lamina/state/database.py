"""One SQLite database in WAL mode, written and read by one thread.

A thing exists when its row does: a package writes bytes first and commits the row last. ``synchronous=FULL`` makes a commit that
returned survive a power failure. Each package brings its own tables as a ``Schema``; nothing here knows what they mean.

A removal frees space, and must not fail for want of it: beside the database lies a *ballast*, some bytes that are given up when a
full disk refuses a write that frees, and taken again when there is room.

All access goes through one thread of its own, so that no caller blocks the event loop and there is never a second writer to wait for.
Writes that come while another is on its way to the disk wait for it and go together: many callers share the price of one sync.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lamina.errors import DataLoss, LaminaError

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], object]
"""Statements of a transaction."""

_BALLAST_BYTES = 4 << 20
_MODE = 0o600
_BUSY_S = 30.0
"""How long another process that writes, where there is one, is waited for."""


class DatabaseDamaged(DataLoss):
    """The database file cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot open the state database: {path}: {reason}")
        self.path = path
        self.reason = reason


class WriteFailed(LaminaError):
    """The database could not be written; nothing of the change remains."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write the state database: {path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Schema:
    """A package's tables: its name and the statements that lead from nothing to today's form, in order.

    A statement that was released is never changed; a new form is a further statement.
    """

    package: str
    migrations: Sequence[str]


@dataclass(frozen=True)
class _Failed:
    """A change that raised."""

    error: Exception


@dataclass(frozen=True)
class _Write:
    """A change that waits for its turn, and the future of who waits for it."""

    change: Change
    lasting: bool
    frees: bool
    outcome: asyncio.Future[Any]

    def tell(self, result: object) -> None:
        """Let the caller go on; one that was cancelled hears nothing."""
        if self.outcome.done():
            return
        if isinstance(result, _Failed):
            self.outcome.set_exception(result.error)
        else:
            self.outcome.set_result(result)


class Database:
    """A state database; open it with ``Database.open``."""

    def __init__(self, path: Path, connection: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        self._path = path
        self._connection = connection
        self._executor = executor
        self._ballast = path.with_name(f"{path.name}-ballast")
        self._has_ballast = False
        self._waiting: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, schemas: Sequence[Schema]) -> Database:
        """Open or create the database and bring every schema to its newest form. Raises DatabaseDamaged."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(executor, _connect, path, schemas)
        except sqlite3.DatabaseError as error:
            executor.shutdown(wait=False)
            raise DatabaseDamaged(path, str(error)) from error
        database = cls(path, connection, executor)
        await database._in_thread(database._take_ballast)
        return database

    async def write(self, change: Callable[[sqlite3.Connection], T], *, lasting: bool = True, frees: bool = False) -> T:
        """Run *change* in a transaction; it is durable when this returns. If it raises, nothing of it remains.

        Without *lasting* it survives the death of this process, but maybe not a power failure: for what a power failure makes
        untrue, such as that a process runs. A change that *frees* is for removals and ends: it succeeds on a full disk too.
        Raises WriteFailed.
        A caller that is cancelled meanwhile cannot stop the transaction: it is done wholly or not at all.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(change, lasting, frees, outcome))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_waiting())
        return await outcome

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run *query* against the last committed state."""
        return await self._in_thread(lambda: query(self._connection))

    async def close(self) -> None:
        """Write what waits, fold the write-ahead log into the file and close it."""
        if self._writing is not None:
            await self._writing
        await self._in_thread(self._connection.close)
        self._executor.shutdown(wait=False)

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            results = await self._in_thread(partial(self._write_batch, batch))
            for write, result in zip(batch, results, strict=True):
                write.tell(result)

    def _write_batch(self, batch: Sequence[_Write]) -> list[object]:
        """What each change returned, or the exception that it came to."""
        if len(batch) > 1:
            try:
                return self._write_together(batch)
            except sqlite3.OperationalError:
                pass  # the disk may be full, which some of them are let off from: one after another
        results: list[object] = []
        for write in batch:
            try:
                results.append(self._write(write.change, lasting=write.lasting, frees=write.frees))
            except Exception as error:
                results.append(_Failed(error))
        return results

    def _write_together(self, batch: Sequence[_Write]) -> list[object]:
        """In one transaction, in which a change that fails undoes itself alone. Raises OperationalError; nothing is done then."""

        def all_of_them(connection: sqlite3.Connection) -> list[object]:
            results: list[object] = []
            for write in batch:
                connection.execute("SAVEPOINT one")
                try:
                    results.append(write.change(connection))
                except sqlite3.OperationalError:
                    raise
                except Exception as error:
                    connection.execute("ROLLBACK TO one")
                    results.append(_Failed(error))
                connection.execute("RELEASE one")
            return results

        results = _write(self._connection, all_of_them, lasting=any(write.lasting for write in batch))
        if any(write.frees for write in batch) and not self._has_ballast:
            self._take_ballast()
        return results

    def _write(self, change: Callable[[sqlite3.Connection], T], *, lasting: bool, frees: bool) -> T:
        try:
            try:
                result = _write(self._connection, change, lasting=lasting)
            except sqlite3.OperationalError:
                if not frees or not self._drop_ballast():
                    raise
                return _write(self._connection, change, lasting=lasting)
        except sqlite3.OperationalError as error:
            raise WriteFailed(self._path, str(error)) from error
        if frees and not self._has_ballast:
            self._take_ballast()
        return result

    def _take_ballast(self) -> None:
        with suppress(OSError):  # the disk is full now; a later write takes it
            fd = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
            try:
                os.posix_fallocate(fd, 0, _BALLAST_BYTES)
                self._has_ballast = True
            finally:
                os.close(fd)

    def _drop_ballast(self) -> bool:
        """Give the disk back what was kept; False if nothing was."""
        self._has_ballast = False
        try:
            had_any = self._ballast.stat().st_size > 0
            self._ballast.unlink()
        except OSError:
            return False
        return had_any

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _connect(path: Path, schemas: Sequence[Schema]) -> sqlite3.Connection:
    # SQLite gives its other files the mode of this one; environment variables of containers are among what they hold
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        with suppress(FileNotFoundError):
            file.chmod(_MODE)
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -1024")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (package TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT"
        )
        for schema in schemas:
            _in_transaction(connection, lambda c, schema=schema: _migrate(c, schema))  # type: ignore[misc]
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    row = connection.execute("SELECT version FROM schema_version WHERE package = ?", (schema.package,)).fetchone()
    done: int = row["version"] if row else 0
    if done > len(schema.migrations):
        raise sqlite3.DatabaseError(f"the {schema.package} tables were written by a newer version")
    for statement in schema.migrations[done:]:
        connection.execute(statement)
    connection.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (schema.package, len(schema.migrations)))


def _write(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], T], *, lasting: bool) -> T:
    if lasting:
        return _in_transaction(connection, change)
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        return _in_transaction(connection, change)
    finally:
        connection.execute("PRAGMA synchronous = FULL")


def _in_transaction(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = change(connection)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return result
