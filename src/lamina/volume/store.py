"""The ``local`` driver: a volume is a row and a directory ``<root>/volume/<name>/_data``.

What is in a volume is somebody's data, so a directory is never garbage for want of a row: it is made under a name that begins with
``.tmp-``, and goes by one that begins with ``.trash-``, and the start removes those alone. A directory that has no row, as the
database was lost, becomes a volume again.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lamina.errors import Conflict, InvalidArgument, NotFound
from lamina.linux import mount
from lamina.linux.deletion import remove_tree
from lamina.linux.files import TEMPORARY_PREFIX, exchange, sync_directory, temporary_name
from lamina.state import Database, Schema
from lamina.state.database import Change
from lamina.volume.driver_options import MountArguments

SCHEMA = Schema(
    "volume",
    (
        """CREATE TABLE volume (
            name TEXT PRIMARY KEY,
            created TEXT NOT NULL,
            anonymous INTEGER NOT NULL,
            labels BLOB NOT NULL
        ) STRICT""",
        "ALTER TABLE volume ADD COLUMN options BLOB NOT NULL DEFAULT x'7B7D'",  # an empty JSON object
    ),
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_MAXIMUM_NAME = 200
_DATA = "_data"
_DIRECTORY_MODE = 0o701
_TRASH = ".trash-"


Tell = Callable[[str, str], None]
"""(create or destroy, the volume's name): tells the world, which is above this package."""


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


class VolumeDriverNotFound(NotFound):
    """There is no driver but ``local``."""

    def __init__(self, name: str, driver: str) -> None:
        super().__init__(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        self.driver = driver


class VolumeBeingUsed(VolumeInUse):
    """A container that is being made is about to refer to the volume."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ["a container that is being created"])


@dataclass(frozen=True)
class Volume:
    """A volume and the directory that holds its files."""

    name: str
    path: Path
    created: str
    anonymous: bool
    labels: dict[str, str]
    options: dict[str, str] = field(default_factory=dict)
    """The driver's; see ``driver_options``."""


class VolumeStore:
    """The volumes of one state root."""

    def __init__(
        self, database: Database, root: Path, tell: Tell = lambda action, name: None, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """New volumes belong to *owner*, a user and a group."""
        self._database = database
        self._root = root
        self._tell = tell
        self._volumes: dict[str, Volume] = {}
        self._held: Counter[str] = Counter()
        self._owner = owner

    async def open(self) -> None:
        """Read all rows, and bring the directories in line with them: see the top."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
        for row in await self._database.read(lambda c: c.execute("SELECT * FROM volume").fetchall()):
            labels, options = (msgspec.json.decode(row[c], type=dict[str, str]) for c in ("labels", "options"))
            path = self._path(row["name"])
            self._show(Volume(row["name"], path, row["created"], bool(row["anonymous"]), labels, options))
        await asyncio.to_thread(self._clear)
        for directory in self._root.iterdir():
            if directory.name not in self._volumes and _is_valid(directory.name) and (directory / _DATA).is_dir():
                created = datetime.fromtimestamp(directory.stat().st_mtime, UTC)
                is_anonymous = _ANONYMOUS.fullmatch(directory.name) is not None
                await self._record(Volume(directory.name, directory / _DATA, _written(created), is_anonymous, {}))

    @property
    def root(self) -> Path:
        """Where all volumes are."""
        return self._root

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

    def hold(self) -> Hold:
        """A context that keeps volumes from being removed for its length: those that are created through it."""
        return Hold(self, self._held)

    def is_held(self, name: str) -> bool:
        """Whether somebody at work needs the volume."""
        return self._held[name] > 0

    async def create(
        self, name: str | None = None, labels: dict[str, str] | None = None, options: dict[str, str] | None = None
    ) -> Volume:
        """Make a volume, an anonymous one without a name; one that exists is returned as it is.

        Raises InvalidVolumeName, InvalidVolumeOption.
        """
        MountArguments.of(options or {})
        anonymous = not name
        name = name or secrets.token_hex(32)
        if not _is_valid(name):
            raise InvalidVolumeName(name)
        if name in self._volumes:
            return self._volumes[name]
        await asyncio.to_thread(self._make_directory, name)
        made = Volume(
            name, self._path(name), _written(datetime.now(UTC)), anonymous, dict(labels or {}), dict(options or {})
        )
        shown = await self._record(made)
        if shown is made:
            self._tell("create", name)
        return shown

    def scratch(self) -> Path:
        """A new directory beside the volumes, for files that are to become one; what is left of it is garbage."""
        place = temporary_name(self._root / "volume")
        place.mkdir(mode=_DIRECTORY_MODE)
        return place

    async def fill(
        self, name: str, scratch: Path, labels: dict[str, str] | None = None, options: dict[str, str] | None = None
    ) -> Volume:
        """Let ``_data`` in a scratch directory be a volume's files: a new one's, or at once in place of those that it has.

        Raises InvalidVolumeName, InvalidVolumeOption.
        """
        if not _is_valid(name):
            raise InvalidVolumeName(name)
        MountArguments.of(options or {})
        if name in self._volumes:
            await asyncio.to_thread(exchange, scratch / _DATA, self._volumes[name].path)
            await asyncio.to_thread(remove_tree, scratch)
            return self._volumes[name]
        scratch.rename(self._path(name).parent)
        sync_directory(self._root)
        made = Volume(
            name, self._path(name), _written(datetime.now(UTC)), False, dict(labels or {}), dict(options or {})
        )
        shown = await self._record(made)
        self._tell("create", name)
        return shown

    async def remove(self, name: str) -> None:
        """Delete a volume with its files; that no container refers to it is the caller's to know.

        Raises VolumeNotFound, or VolumeInUse if it is held.
        """
        with self.removing([self.get(name).name]) as removal:
            await self._database.write(removal.change, frees=True)
        await removal.finish()

    @contextmanager
    def removing(self, names: Sequence[str]) -> Iterator[Removal]:
        """Take volumes away; the block commits their rows' deletion (``change``), maybe with more. If it fails they are there again.

        From the beginning of the block they are no volumes any more, so that nobody comes to refer to them. Names without a
        volume are passed over. Raises VolumeInUse if one is held.
        """
        volumes = [self._volumes[name] for name in names if name in self._volumes]
        for volume in volumes:
            if self.is_held(volume.name):
                raise VolumeBeingUsed(volume.name)
        removal = Removal(tuple((volume, self._to_trash(volume)) for volume in volumes))
        try:
            yield removal
        except BaseException:
            for volume, trash in removal.parts:
                with suppress(OSError):
                    trash.rename(volume.path.parent)
                self._show(volume)
            raise
        for volume in volumes:
            self._tell("destroy", volume.name)

    def _to_trash(self, volume: Volume) -> Path:
        del self._volumes[volume.name]
        if volume.options:
            mount.unmount_all(str(volume.path))  # what is mounted there is not the volume's to delete
        trash = self._root / f"{_TRASH}{secrets.token_hex(8)}-{volume.name}"
        with suppress(FileNotFoundError):
            volume.path.parent.rename(trash)
        return trash

    def _clear(self) -> None:
        """Remove what was on its way in or out. A removal whose rows are still there did not come about; it is undone."""
        for path in self._root.glob(f"{_TRASH}*"):
            name = path.name.removeprefix(_TRASH).partition("-")[2]
            if name in self._volumes and not self._path(name).parent.exists():
                path.rename(self._path(name).parent)
        for prefix in (TEMPORARY_PREFIX, _TRASH):
            for path in (*self._root.glob(f"{prefix}*"), *self._root.glob(f"*/{prefix}*")):
                remove_tree(path)
        for volume in self._volumes.values():
            if not volume.path.exists():  # a power failure came before its directory was on the disk
                self._make_directory(volume.name)

    def _make_directory(self, name: str) -> None:
        target = self._path(name).parent
        temporary = temporary_name(target)
        temporary.mkdir(mode=_DIRECTORY_MODE)
        (temporary / _DATA).mkdir()
        (temporary / _DATA).chmod(0o755)
        os.chown(temporary / _DATA, *self._owner)
        try:
            temporary.rename(target)
        except OSError:  # somebody else was quicker
            remove_tree(temporary)
            if not target.exists():
                raise
        sync_directory(self._root)

    async def _record(self, volume: Volume) -> Volume:
        encoded = (msgspec.json.encode(volume.labels), msgspec.json.encode(volume.options))
        row = (volume.name, volume.created, volume.anonymous, *encoded)

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO volume VALUES (?, ?, ?, ?, ?)", row)

        await self._database.write(insert)
        return self._show(volume)

    def _show(self, volume: Volume) -> Volume:
        return self._volumes.setdefault(volume.name, volume)

    def _path(self, name: str) -> Path:
        return self._root / name / _DATA


class Hold:
    """Volumes that must not be removed while their user is at work."""

    def __init__(self, store: VolumeStore, counts: Counter[str]) -> None:
        self._store = store
        self._counts = counts
        self._names: list[str] = []
        self.made_anonymous: list[str] = []
        """The volumes without a name of a user's that were made through this, which nobody else knows at first."""

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    async def create(
        self, name: str | None = None, labels: dict[str, str] | None = None, options: dict[str, str] | None = None
    ) -> Volume:
        """As ``VolumeStore.create``; the volume is held from the moment at which it is known."""
        volume = await self._store.create(name, labels, options)
        self._names.append(volume.name)
        if not name:
            self.made_anonymous.append(volume.name)
        self._counts[volume.name] += 1
        return volume

    def release(self) -> None:
        """Let go of all."""
        self._counts.subtract(self._names)
        for name in self._names:
            if not self._counts[name]:
                del self._counts[name]
        self._names = []


@dataclass(frozen=True)
class Removal:
    """Volumes on their way out, each with where its files are meanwhile."""

    parts: tuple[tuple[Volume, Path], ...]

    @property
    def change(self) -> Change:
        """The deletion of their rows."""
        names = [(volume.name,) for volume, _ in self.parts]
        return lambda connection: connection.executemany("DELETE FROM volume WHERE name = ?", names)

    async def finish(self) -> None:
        """Delete the files; the rows are gone."""
        for _, trash in self.parts:
            await asyncio.to_thread(remove_tree, trash)


def _is_valid(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and len(name) <= _MAXIMUM_NAME


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
