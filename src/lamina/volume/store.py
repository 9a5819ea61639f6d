"""The ``local`` driver: a volume is a row and a directory ``<root>/volume/<name>/_data``."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lamina.errors import Conflict, InvalidArgument, NotFound
from lamina.state import Database, Schema

SCHEMA = Schema(
    "volume",
    (
        """CREATE TABLE volume (
            name TEXT PRIMARY KEY,
            created TEXT NOT NULL,
            anonymous INTEGER NOT NULL,
            labels BLOB NOT NULL
        ) STRICT""",
    ),
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MAXIMUM_NAME = 200


class VolumeNotFound(NotFound):
    """No volume has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")
        self.name = name


class VolumeInUse(Conflict):
    """A container refers to the volume."""

    def __init__(self, name: str, containers: list[str]) -> None:
        super().__init__(f"remove {name}: volume is in use - [{', '.join(containers)}]")
        self.name = name
        self.containers = containers


class InvalidVolumeName(InvalidArgument):
    """A name has characters that no volume may have."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" '
            "are allowed. If you intended to pass a host directory, use absolute path"
        )
        self.name = name


@dataclass(frozen=True)
class Volume:
    """A volume and the directory that holds its files."""

    name: str
    path: Path
    created: str
    anonymous: bool
    labels: dict[str, str]


class VolumeStore:
    """The volumes of one state root."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root
        self._volumes: dict[str, Volume] = {}

    async def open(self) -> None:
        """Read all rows; directories without a row are what a crash left and go away."""
        self._root.mkdir(mode=0o701, parents=True, exist_ok=True)
        for row in await self._database.read(lambda c: c.execute("SELECT * FROM volume").fetchall()):
            labels = msgspec.json.decode(row["labels"], type=dict[str, str])
            path = self._root / row["name"] / "_data"
            self._volumes[row["name"]] = Volume(row["name"], path, row["created"], bool(row["anonymous"]), labels)
        for directory in self._root.iterdir():
            if directory.name not in self._volumes:
                shutil.rmtree(directory, ignore_errors=True)

    def __iter__(self) -> Iterator[Volume]:
        return iter(list(self._volumes.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._volumes

    def get(self, name: str) -> Volume:
        """The volume called *name*. Raises VolumeNotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise VolumeNotFound(name) from None

    async def create(self, name: str | None = None, labels: dict[str, str] | None = None) -> Volume:
        """Make a volume, an anonymous one without a name; one that exists is returned as it is.

        Raises InvalidVolumeName.
        """
        anonymous = not name
        name = name or secrets.token_hex(32)
        if not _NAME.fullmatch(name) or len(name) > _MAXIMUM_NAME:
            raise InvalidVolumeName(name)
        if name in self._volumes:
            return self._volumes[name]
        path = self._root / name / "_data"
        path.parent.mkdir(mode=0o701, exist_ok=True)
        path.mkdir(mode=0o755, exist_ok=True)
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        volume = Volume(name, path, created, anonymous, dict(labels or {}))
        encoded = msgspec.json.encode(volume.labels)

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO volume VALUES (?, ?, ?, ?)", (name, created, anonymous, encoded))

        await self._database.write(insert)
        return self._volumes.setdefault(name, volume)

    async def remove(self, name: str) -> None:
        """Delete a volume with its files; that nobody uses it is the caller's to know. Raises VolumeNotFound."""
        volume = self.get(name)
        await self._database.write(lambda c: c.execute("DELETE FROM volume WHERE name = ?", (name,)))
        self._volumes.pop(name, None)
        await asyncio.to_thread(shutil.rmtree, volume.path.parent, ignore_errors=True)
