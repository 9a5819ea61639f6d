"""The build cache: what a step made, found again by what the step depends on.

A key names all that a step's outcome depends on and nothing else: of COPY the files that it takes, of RUN the root below it, the command
and its surroundings. What is found is the layer alone; the image is made of it anew, so that a history is never another Dockerfile's.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lamina.content import ContentStore
from lamina.oci.digest import DiffID, Digest
from lamina.state import Database, Schema

SCHEMA = Schema(
    "build",
    (
        """CREATE TABLE step (
            key TEXT PRIMARY KEY,
            image_id TEXT NOT NULL,
            used_ns INTEGER NOT NULL
        ) STRICT""",
        # keys of the first form named whole images; none of them is asked for any more
        "DROP TABLE step",
        """CREATE TABLE step (
            key TEXT PRIMARY KEY,
            diff_id TEXT,
            created TEXT NOT NULL,
            description TEXT NOT NULL,
            created_ns INTEGER NOT NULL,
            used_ns INTEGER NOT NULL
        ) STRICT""",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What a step made: a layer, None if it changed no file, and when (RFC 3339)."""

    layer: DiffID | None
    created: str


class BuildCache:
    """Outcomes of steps that were carried out before. One whose layer is gone counts as none."""

    def __init__(self, database: Database, content: ContentStore) -> None:
        self._database = database
        self._content = content
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def find(self, key: str) -> Outcome | None:
        """What the step made, if it is still there."""
        row = await self._database.read(
            lambda c: c.execute("SELECT diff_id, created FROM step WHERE key = ?", (key,)).fetchone()
        )
        if row is None:
            return None
        layer = DiffID(Digest(row["diff_id"])) if row["diff_id"] else None
        if layer is not None and not self._content.exists(layer):
            return None
        return Outcome(layer, row["created"])

    async def put(self, key: str, outcome: Outcome, description: str) -> None:
        """Remember what a step made. It may be forgotten in a power failure, which costs only time."""
        now = time.time_ns()
        values = (key, str(outcome.layer) if outcome.layer else None, outcome.created, description, now, now)
        statement = "INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?, ?)"
        await self._database.write(lambda c: c.execute(statement, values), lasting=False)

    @asynccontextmanager
    async def computing(self, key: str) -> AsyncIterator[None]:
        """Be the only one, of all builds, that carries out this step; who comes later finds its outcome."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


def step_key(*parts: str) -> str:
    """The name of a step by all that its outcome depends on; where one part ends and the next begins matters."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        state.update(b"%d:" % len(data) + data)
    return state.hexdigest()
