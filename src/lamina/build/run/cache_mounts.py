"""Cache mounts: directories that outlive builds (``RUN --mount=type=cache``), by the ID that steps know them by.

One ID is a cache for each owner and mode that steps ask for, as with BuildKit, so that everybody can use what he asked for. A directory
is called by the hash of all that, a further one for ``sharing=private`` with a number. Beside it a file holds the ID, and its times are
those of the first use and the last.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import stat
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from lamina.build.cache.kept import CacheItem
from lamina.build.run.mounts import RunMount
from lamina.linux.deletion import remove_tree

_NAME = ".id"
_PLAIN = (0, 0, 0o755)
"""Owner, group and mode of a cache if nobody says otherwise, which its name says nothing of."""
_TRASH = ".gone-"


class CacheMounts:
    """The directories below *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[Path] = Counter()

    @asynccontextmanager
    async def use(self, mount: RunMount) -> AsyncIterator[Path]:
        """A cache's directory: shared by all who ask, one of one's own, or waited for (``sharing``)."""
        name = _name(mount)
        path = self._free(name) if mount.sharing == "private" else self._root / name
        self._users[path] += 1
        try:
            if mount.sharing == "locked":
                async with self._locks.setdefault(name, asyncio.Lock()):
                    yield self._made(path, mount)
            else:
                yield self._made(path, mount)
        finally:
            self._users[path] -= 1

    async def items(self) -> list[CacheItem]:
        """See Keeper."""
        return await asyncio.to_thread(self._items)

    async def remove(self, ids: Collection[str], unused_since_ns: int) -> int:
        """See Keeper. One that a step uses stays, whatever its times."""
        gone = []
        for name in ids:
            path = self._root / name
            if self._users[path] or not path.is_dir() or _used_ns(path) >= unused_since_ns:
                continue
            trash = self._root / f"{_TRASH}{secrets.token_hex(6)}"
            path.rename(trash)  # from here on the next step makes a new one
            _name_file(path).unlink(missing_ok=True)
            gone.append(trash)
        return await asyncio.to_thread(_delete, gone)

    def sweep(self) -> None:
        """Remove what an earlier daemon threw away. Blocking."""
        for path in self._root.glob(f"{_TRASH}*"):
            remove_tree(path)

    def _free(self, name: str) -> Path:
        number = 0
        while self._users[path := self._root / (f"{name}.{number}" if number else name)]:
            number += 1
        return path

    def _made(self, path: Path, mount: RunMount) -> Path:
        if not path.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
            os.chown(path, mount.uid, mount.gid)
            path.chmod(mount.mode)
        name_file = _name_file(path)
        if name_file.exists():
            os.utime(name_file)
        else:
            name_file.write_text(mount.id, encoding="utf-8", errors="surrogateescape")
        return path

    def _items(self) -> list[CacheItem]:
        if not self._root.exists():
            return []
        paths = [path for path in self._root.iterdir() if path.is_dir() and not path.name.startswith(_TRASH)]
        return [self._item(path) for path in sorted(paths)]

    def _item(self, path: Path) -> CacheItem:
        name_file = _name_file(path)
        known = name_file.read_text("utf-8", "replace") if name_file.exists() else path.name[:12]
        used_ns = _used_ns(path)
        return CacheItem(
            id=path.name,
            kind="exec.cachemount",
            description=f"cached mount {known}",
            size_bytes=tree_bytes(path),
            created_ns=min(used_ns, path.stat().st_mtime_ns),
            used_ns=used_ns,
            in_use=self._users[path] > 0,
        )


def tree_bytes(root: Path) -> int:
    """What the files below a directory take on the disk, each once; those that vanish meanwhile do not count. Blocking."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, files in os.walk(root):
        for name in files:
            try:
                status = os.lstat(os.path.join(directory, name))
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def _name(mount: RunMount) -> str:
    owner = (mount.uid, mount.gid, mount.mode)
    text = mount.id if owner == _PLAIN else f"{mount.id}\0{owner}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _used_ns(path: Path) -> int:
    """When a directory was used last; of one without a name, when something in it was made or removed."""
    name_file = _name_file(path)
    return (name_file if name_file.exists() else path).stat().st_mtime_ns


def _name_file(path: Path) -> Path:
    return path.with_name(path.name + _NAME)


def _delete(paths: Collection[Path]) -> int:
    freed = 0
    for path in paths:
        freed += tree_bytes(path)
        remove_tree(path)
    return freed
