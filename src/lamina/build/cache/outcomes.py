"""The build cache: what a step made, found again by what the step depends on.

A key names all that a step's outcome depends on and nothing else: of COPY the files that it takes, of RUN the root below it, the command
and its surroundings. What is found is the layer alone; the image is made of it anew, so that a history is never another Dockerfile's.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lamina.build.cache.kept import CacheItem
from lamina.content import ContentStore
from lamina.image.store import Image, ImageStore
from lamina.oci.digest import DiffID, Digest, ImageID
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
        "ALTER TABLE step ADD COLUMN uses INTEGER NOT NULL DEFAULT 1",
        "CREATE TABLE stage_end (image_id TEXT PRIMARY KEY) STRICT",
        "CREATE TABLE memory (build TEXT PRIMARY KEY, data BLOB NOT NULL, used_ns INTEGER NOT NULL) STRICT",
    ),
)


_MEMORIES = 200
"""Of how many Dockerfiles and contexts the last build is remembered."""


@dataclass(frozen=True)
class Outcome:
    """What a step made: a layer, None if it changed no file, and when (RFC 3339)."""

    layer: DiffID | None
    created: str


class BuildCache:
    """Outcomes of steps that were carried out before. One whose layer is gone counts as none, and is forgotten.

    That an outcome was used is kept in memory until ``save_uses``: a cached build writes once, and not once a step.
    """

    def __init__(self, database: Database, images: ImageStore, content: ContentStore) -> None:
        self._database = database
        self._images = images
        self._content = content
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._used: dict[str, tuple[int, int]] = {}
        self._gone: set[str] = set()

    async def find(self, key: str) -> Outcome | None:
        """What the step made, if it is still there."""
        row = await self._database.read(
            lambda c: c.execute("SELECT diff_id, created FROM step WHERE key = ?", (key,)).fetchone()
        )
        if row is None:
            return None
        layer = _layer(row)
        if layer is not None and not self._content.exists(layer):
            self._gone.add(key)
            return None
        _, uses = self._used.get(key, (0, 0))
        self._used[key] = (time.time_ns(), uses + 1)
        return Outcome(layer, row["created"])

    async def put(self, key: str, outcome: Outcome, description: str) -> None:
        """Remember what a step made. It may be forgotten in a power failure, which costs only time."""
        now = time.time_ns()
        self._gone.discard(key)
        values = (key, str(outcome.layer) if outcome.layer else None, outcome.created, description, now, now, 1)
        statement = "INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?, ?, ?)"
        await self._database.write(lambda c: c.execute(statement, values), lasting=False)

    async def save_uses(self) -> None:
        """Write what is known of uses, and forget outcomes whose layers were found to be gone."""
        used, self._used = self._used, {}
        gone, self._gone = self._gone, set()
        if not used and not gone:
            return
        uses = [(used_ns, count, key) for key, (used_ns, count) in used.items()]
        statement = "UPDATE step SET used_ns = max(used_ns, ?), uses = uses + ? WHERE key = ?"

        def save(connection: sqlite3.Connection) -> None:
            connection.executemany(statement, uses)
            connection.executemany("DELETE FROM step WHERE key = ?", [(key,) for key in gone])

        await self._database.write(save, lasting=False)

    async def items(self) -> list[CacheItem]:
        """See Keeper. A layer is shared if it is part of an image that is more than a stage of an earlier build."""
        await self.save_uses()
        rows, ends = await self._database.read(
            lambda c: (c.execute("SELECT * FROM step ORDER BY created_ns").fetchall(), _stage_ends(c))
        )
        self._gone |= {row["key"] for row in rows if (layer := _layer(row)) and not self._content.exists(layer)}
        wanted = self._wanted_layers(ends)
        return [_item(row, self._content, wanted) for row in rows if row["key"] not in self._gone]

    async def remove(self, ids: Collection[str], unused_since_ns: int) -> int:
        """See Keeper. What this frees, it frees by ``unneeded_stages``."""
        await self.save_uses()
        rows = [(key, unused_since_ns) for key in ids]
        await self._database.write(
            lambda c: c.executemany("DELETE FROM step WHERE key = ? AND used_ns < ?", rows), frees=True
        )
        return 0

    async def record_stages(self, ends: Iterable[ImageID], results: Iterable[ImageID]) -> None:
        """Remember which images of a build are there for later builds alone: its stages' *ends* but for its *results*."""
        results = set(results)
        rows = [(str(image_id),) for image_id in ends if image_id not in results]
        wanted = [(str(image_id),) for image_id in results]

        def record(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR IGNORE INTO stage_end VALUES (?)", rows)
            connection.executemany("DELETE FROM stage_end WHERE image_id = ?", wanted)

        await self._database.write(record, lasting=False)

    async def recall(self, build: str) -> bytes:
        """What was kept by ``memorize`` under a name; empty for nothing."""
        row = await self._database.read(
            lambda c: c.execute("SELECT data FROM memory WHERE build = ?", (build,)).fetchone()
        )
        return bytes(row["data"]) if row is not None else b""

    async def memorize(self, build: str, data: bytes) -> None:
        """Keep what the steps of a build depended on; what was kept longest ago makes room."""
        oldest = "SELECT build FROM memory ORDER BY used_ns DESC LIMIT -1 OFFSET ?"

        def save(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (build, data, time.time_ns()))
            connection.execute(f"DELETE FROM memory WHERE build IN ({oldest})", (_MEMORIES,))  # noqa: S608 - our own text

        await self._database.write(save, lasting=False)

    async def unneeded_stages(self) -> list[Image]:
        """The stages' images of earlier builds whose last layer's outcome was removed. Those that are gone are forgotten."""
        ends, layers = await self._database.read(
            lambda c: (
                _stage_ends(c),
                {row[0] for row in c.execute("SELECT diff_id FROM step WHERE diff_id IS NOT NULL")},
            )
        )
        gone = [(str(image_id),) for image_id in ends if image_id not in self._images]
        await self._database.write(lambda c: c.executemany("DELETE FROM stage_end WHERE image_id = ?", gone))
        images = [self._images.get(image_id) for image_id in ends if image_id in self._images]
        return [image for image in images if not layers & {str(diff_id) for diff_id in image.config.diff_ids[-1:]}]

    def _wanted_layers(self, ends: Collection[ImageID]) -> set[DiffID]:
        """The layers of all images but those that are there for later builds alone."""
        idle: set[ImageID] = set()
        for image_id in ends:
            parent: ImageID | None = image_id
            while parent is not None and parent in self._images and parent not in idle:
                if self._images.names(parent) or set(map(_id, self._images.children(parent))) - idle:
                    break
                idle.add(parent)
                parent = self._images.get(parent).parent
        return {diff_id for image in self._images if image.image_id not in idle for diff_id in image.config.diff_ids}

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


def _stage_ends(connection: sqlite3.Connection) -> list[ImageID]:
    return [ImageID(Digest(row[0])) for row in connection.execute("SELECT image_id FROM stage_end")]


def _layer(row: sqlite3.Row) -> DiffID | None:
    return DiffID(Digest(row["diff_id"])) if row["diff_id"] else None


def _id(image: Image) -> ImageID:
    return image.image_id


def _item(row: sqlite3.Row, content: ContentStore, wanted: Collection[DiffID]) -> CacheItem:
    layer = _layer(row)
    return CacheItem(
        id=row["key"],
        kind="regular",
        description=row["description"],
        size_bytes=content.size(layer) if layer is not None else 0,
        created_ns=row["created_ns"],
        used_ns=row["used_ns"],
        uses=row["uses"],
        shared=layer is None or layer in wanted,
    )
