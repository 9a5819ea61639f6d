"""Snapshots of volumes: copies beside a volume's files that share with them, or with the snapshot before, what has not changed.

``<volume>/snapshots/<name>/data`` are the files, ``snapshot.json`` beside them tells what it is, and ``marks`` by what the next one sees
which files have not changed. A snapshot is made under a name that begins with ``.tmp-`` and renamed when it is whole.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lamina.errors import Conflict, InvalidArgument, NotFound
from lamina.linux.deletion import remove_tree
from lamina.linux.files import sync_directory, temporary_name, write_atomically
from lamina.volume.copying import Copied, Earlier, Mark, copy_tree
from lamina.volume.store import Volume

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_DIRECTORY = "snapshots"
_DATA, _ABOUT, _MARKS = "data", "snapshot.json", "marks"


class SnapshotNotFound(NotFound):
    """A volume has no snapshot of this name."""

    def __init__(self, volume: str, name: str) -> None:
        super().__init__(f"volume {volume} has no snapshot {name}")
        self.volume = volume
        self.name = name


class SnapshotExists(Conflict):
    """A volume has a snapshot of this name."""

    def __init__(self, volume: str, name: str) -> None:
        super().__init__(f"volume {volume} has a snapshot {name} already")
        self.volume = volume
        self.name = name


class VolumeHasSnapshots(Conflict):
    """A volume that is to be removed has snapshots, which would go with it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"remove {name}: volume has snapshots; remove them first, or use --force")
        self.name = name


class InvalidSnapshotName(InvalidArgument):
    """A text cannot name a snapshot."""

    def __init__(self, name: str) -> None:
        super().__init__(f"invalid snapshot name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        self.name = name


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot: when it was made, of which containers' volume, and how large its files are; ``shared`` are the bytes it has in common.

    ``quiesced`` is the container that stood still meanwhile, empty if none did.
    """

    name: str
    created: str
    containers: list[str]
    quiesced: str = ""
    files: int = 0
    size: int = 0
    shared: int = 0


def list_snapshots(volume: Volume) -> list[Snapshot]:
    """The snapshots of a volume, the oldest first. Blocking."""
    found = [
        msgspec.json.decode(path.read_bytes(), type=Snapshot)
        for path in (volume.path.parent / _DIRECTORY).glob(f"*/{_ABOUT}")
        if not path.parent.name.startswith(".")
    ]
    return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.name))


def find_snapshot(volume: Volume, name: str) -> Path:
    """The files of a snapshot. Raises SnapshotNotFound."""
    path = volume.path.parent / _DIRECTORY / name
    if not _NAME.fullmatch(name) or not (path / _ABOUT).exists():
        raise SnapshotNotFound(volume.name, name)
    return path / _DATA


def make_snapshot(volume: Volume, name: str | None, containers: list[str], quiesced: str) -> Snapshot:
    """Make a snapshot, which has the time as its name if it is given none. Blocking, for a worker.

    Raises InvalidSnapshotName, SnapshotExists or OSError; nothing is left then.
    """
    moment = datetime.now(UTC)
    name = name or moment.strftime("%Y%m%dT%H%M%S.%fZ")
    if not _NAME.fullmatch(name):
        raise InvalidSnapshotName(name)
    final = volume.path.parent / _DIRECTORY / name
    if final.exists():
        raise SnapshotExists(volume.name, name)
    final.parent.mkdir(mode=0o700, exist_ok=True)
    scratch = temporary_name(volume.path)
    scratch.mkdir(mode=0o700)
    try:
        copied = copy_tree(volume.path, scratch / _DATA, _latest(volume))
        about = Snapshot(
            name=name,
            created=moment.isoformat().replace("+00:00", "Z"),
            containers=containers,
            quiesced=quiesced,
            files=copied.files,
            size=copied.size,
            shared=copied.shared,
        )
        write_atomically(scratch / _MARKS, msgspec.msgpack.encode(copied.marks))
        write_atomically(scratch / _ABOUT, msgspec.json.encode(about))
        scratch.rename(final)
        sync_directory(final.parent)
    except BaseException:
        remove_tree(scratch)
        raise
    return about


def copy_for_a_moment(volume: Volume, target: Path) -> Copied:
    """Copy a volume's files as *target*, sharing what the latest snapshot has. Blocking, for a worker. Raises OSError."""
    return copy_tree(volume.path, target, _latest(volume))


def remove_snapshot(volume: Volume, name: str) -> None:
    """Remove a snapshot; what others share with it stays theirs. Blocking. Raises SnapshotNotFound."""
    place = find_snapshot(volume, name).parent
    trash = temporary_name(volume.path)
    place.rename(trash)
    remove_tree(trash)


def _latest(volume: Volume) -> Earlier | None:
    snapshots = list_snapshots(volume)
    if not snapshots:
        return None
    place = volume.path.parent / _DIRECTORY / snapshots[-1].name
    try:
        marks = msgspec.msgpack.decode((place / _MARKS).read_bytes(), type=dict[str, Mark])
    except (OSError, msgspec.MsgspecError):
        return None
    return Earlier(place / _DATA, marks)
