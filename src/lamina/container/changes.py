"""What a container has changed in its image's files (``docker diff``), and which files in its layer are not its doing.

Overlayfs' upper directory tells it: what lies there was written, 0:0 devices stand for what was removed. What lamina and the runtime
put there for every container, as the places of mounts, is none of the container's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from lamina.container import init_layer
from lamina.linux import paths
from lamina.linux.user_namespace import IdMap

_OPAQUE = "trusted.overlay.opaque"


class ChangeKind(IntEnum):
    """What happened to a file, in the API's numbers."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True)
class Change:
    """One changed path, absolute."""

    path: str
    kind: ChangeKind


class LayerBelow:
    """The image's files: directories that overlayfs stacks, the topmost first."""

    def __init__(self, lowers: Sequence[int], idmap: IdMap | None = None) -> None:
        """*idmap* tells whom the container's users are on the host, where what it writes is theirs."""
        self._lowers = lowers
        self._idmap = idmap

    def has_owner(self, before: os.stat_result, now: os.stat_result) -> bool:
        """Whether a file of the container's layer belongs to whom it belongs in the image."""
        owner = (before.st_uid, before.st_gid)
        return (now.st_uid, now.st_gid) == (self._idmap.to_host(*owner) if self._idmap is not None else owner)

    def stat(self, path: str) -> os.stat_result | None:
        """What the image has at a path without links on the way, None if nothing."""
        for lower in self._lowers:
            found, is_last = _in_one(lower, path)
            if found is not None or is_last:
                return found
        return None

    def names(self, path: str) -> set[str]:
        """What the image has in a directory."""
        found: set[str] = set()
        for lower in self._lowers:
            with suppress(OSError):
                fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=lower)
                try:
                    found.update(os.listdir(fd))
                finally:
                    os.close(fd)
        return {name for name in found if self.stat(f"{path}/{name}" if path else name) is not None}


def _in_one(lower: int, path: str) -> tuple[os.stat_result | None, bool]:
    """What one of the directories has at a path, and whether those below it have no say."""
    is_last = False
    done = ""
    status: os.stat_result | None = None
    for part in path.split("/"):
        done = f"{done}/{part}" if done else part
        try:
            status = os.stat(done, dir_fd=lower, follow_symlinks=False)
        except OSError:
            return None, is_last
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return None, True
        if not stat.S_ISDIR(status.st_mode):
            return (status, True) if done == path else (None, True)
        is_last = is_last or _is_opaque(lower, done)
    return status, is_last


def _is_opaque(directory: int, path: str) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{directory}/{path}", _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def changes(upper: Path, below: LayerBelow) -> list[Change]:
    """All changes, directories before what lies in them, names in order. Blocking."""
    with paths.directory(upper) as top:
        return list(_changes_in(top, "", below, not_own(upper, below)))


def _changes_in(top: int, directory: str, below: LayerBelow, not_ours: frozenset[str]) -> Iterator[Change]:
    for name, status in _entries(top, directory):
        path = f"{directory}/{name}" if directory else name
        if path in not_ours:
            continue
        before = below.stat(path)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if before is not None:
                yield Change(f"/{path}", ChangeKind.DELETED)
            continue
        yield Change(f"/{path}", ChangeKind.ADDED if before is None else ChangeKind.MODIFIED)
        if stat.S_ISDIR(status.st_mode):
            yield from _changes_in(top, path, below, not_ours)
            if _is_opaque(top, path):
                gone = below.names(path) - {name for name, _ in _entries(top, path)}
                yield from (Change(f"/{path}/{name}", ChangeKind.DELETED) for name in sorted(gone))


def not_own(upper: Path, below: LayerBelow) -> frozenset[str]:
    """Paths in a layer, without a leading slash, that are not the container's doing: marks, places of mounts, and the directories that
    are there for these alone. Blocking."""
    found = set(init_layer.PATHS)
    with paths.directory(upper) as top:
        for directory in init_layer.DIRECTORIES:
            path = directory
            while path and _is_hollow(top, path, found, below):
                found.add(path)
                path = os.path.dirname(path)
    return frozenset(found)


def _is_hollow(top: int, path: str, not_ours: set[str], below: LayerBelow) -> bool:
    """Whether a directory has nothing of its own in it, and, if the image has it, the attributes that it has there, but for times."""
    try:
        status = os.stat(path, dir_fd=top, follow_symlinks=False)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if any(f"{path}/{name}" not in not_ours for name, _ in _entries(top, path)):
        return False
    before = below.stat(path)
    if before is None:
        return True
    return before.st_mode == status.st_mode and below.has_owner(before, status) and not _is_opaque(top, path)


def _entries(top: int, directory: str) -> list[tuple[str, os.stat_result]]:
    fd = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        found = []
        for name in sorted(os.listdir(fd)):
            with suppress(FileNotFoundError):
                found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        return found
    finally:
        os.close(fd)
