"""What is known of layers' blobs elsewhere: the compressed form that a push gave one, and the repositories that have it.

It saves the next push of a layer from sending it again, and is never trusted: a registry is asked whether it has what it is said to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffID, Digest
from lamina.oci.reference import Reference
from lamina.state import Database, Schema

SCHEMA = Schema(
    "layer_blob",
    (
        """CREATE TABLE layer_form (
            diff_id TEXT NOT NULL,
            media_type TEXT NOT NULL,
            digest TEXT NOT NULL,
            size INTEGER NOT NULL,
            PRIMARY KEY (diff_id, media_type)
        ) STRICT""",
        """CREATE TABLE layer_place (
            digest TEXT NOT NULL,
            domain TEXT NOT NULL,
            path TEXT NOT NULL,
            PRIMARY KEY (digest, domain, path)
        ) STRICT""",
    ),
)

_MOST_SOURCES = 3
"""How many repositories are tried before a layer is sent after all."""


class LayerBlobs:
    """The forms and places of layers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forms(self, diff_ids: Iterable[DiffID]) -> dict[DiffID, Descriptor]:
        """The compressed forms that layers were given, the newest of each."""
        wanted = [str(diff_id) for diff_id in diff_ids]

        def read(connection: sqlite3.Connection) -> dict[DiffID, Descriptor]:
            found = {}
            for diff_id in wanted:
                query = "SELECT * FROM layer_form WHERE diff_id = ? ORDER BY rowid DESC LIMIT 1"
                for row in connection.execute(query, (diff_id,)):
                    blob = Descriptor(row["media_type"], Digest(row["digest"]), row["size"])
                    found[DiffID(Digest(diff_id))] = blob
            return found

        return await self._database.read(read)

    async def sources(self, digests: Iterable[Digest], target: Reference) -> dict[Digest, tuple[str, ...]]:
        """The repositories of a registry, other than *target*, that have blobs, by path."""
        wanted = [str(digest) for digest in digests]

        def read(connection: sqlite3.Connection) -> dict[Digest, tuple[str, ...]]:
            query = (
                "SELECT path FROM layer_place WHERE digest = ? AND domain = ? AND path <> ? ORDER BY rowid DESC LIMIT ?"
            )
            return {
                Digest(digest): tuple(
                    row["path"]
                    for row in connection.execute(query, (digest, target.domain, target.path, _MOST_SOURCES))
                )
                for digest in wanted
            }

        return await self._database.read(read)

    async def seen(self, place: Reference, blobs: Iterable[tuple[DiffID, Descriptor]]) -> None:
        """A repository has these layers in these forms."""
        pairs = list(blobs)
        forms = [(str(i), blob.media_type, str(blob.digest), blob.size) for i, blob in pairs if blob.digest != i]
        places = [(str(blob.digest), place.domain, place.path) for _, blob in pairs]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO layer_form VALUES (?, ?, ?, ?)", forms)
            connection.executemany("INSERT OR REPLACE INTO layer_place VALUES (?, ?, ?)", places)

        await self._database.write(write)

    async def forget_others(self, diff_ids: Iterable[DiffID]) -> None:
        """Keep what is known of these layers alone."""
        kept = [(str(diff_id),) for diff_id in diff_ids]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TEMP TABLE kept (diff_id TEXT PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", kept)
            connection.execute("DELETE FROM layer_form WHERE diff_id NOT IN (SELECT diff_id FROM kept)")
            connection.execute("DELETE FROM layer_place WHERE digest NOT IN (SELECT digest FROM layer_form) "
                               "AND digest NOT IN (SELECT diff_id FROM kept)")  # fmt: skip
            connection.execute("DROP TABLE kept")

        await self._database.write(write)
