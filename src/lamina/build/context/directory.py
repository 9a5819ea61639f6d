"""A context that is a directory of this machine: read where it lies, hashed only where it changed.

What a file's bytes hash to is remembered by what stat(2) tells of it, as git's index does. A file that was changed in the moment in which
it was hashed could change again without stat showing it, so that such a one is not remembered.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lamina.build.cache.kept import CacheItem
from lamina.build.context.source import DirectoryContents, FileSource
from lamina.build.errors import BuildFailed
from lamina.dockerfile import IgnoreRules
from lamina.layer.tree import FileTree, Node
from lamina.linux.files import temporary_name

_FORMAT = 1
_RACY_NS = 2_000_000_000
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)

Fingerprint = tuple[int, int, int, int]
"""Inode, size, time of modification and of change (ns)."""


class StatCache:
    """Digests by path and fingerprint, kept in a file; a damaged file counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[bytes, tuple[Fingerprint, bytes]] = {}
        self._changed = False
        with suppress(OSError, ValueError, EOFError, TypeError):
            version, entries = marshal.loads(path.read_bytes())  # noqa: S302 - our own file
            self._entries = entries if version == _FORMAT else {}

    def find(self, path: bytes, fingerprint: Fingerprint) -> bytes | None:
        """The digest of a file that has not changed since it was hashed."""
        known = self._entries.get(path)
        return known[1] if known is not None and known[0] == fingerprint else None

    def put(self, path: bytes, fingerprint: Fingerprint, digest: bytes, hashed_ns: int) -> None:
        """Remember a digest; *hashed_ns* is when the hashing began."""
        if max(fingerprint[2:]) + _RACY_NS < hashed_ns:
            self._entries[path] = (fingerprint, digest)
            self._changed = True

    def save(self, present: frozenset[bytes]) -> None:
        """Write what was learned; files that are no longer there are forgotten. Not synced: it can be found again."""
        if not self._changed and self._entries.keys() <= present:
            return
        kept = {path: entry for path, entry in self._entries.items() if path in present}
        temporary = temporary_name(self._path)
        temporary.write_bytes(marshal.dumps((_FORMAT, kept)))
        temporary.replace(self._path)
        self._changed = False


class ContextDigests:
    """The stat caches of contexts, a file a directory; a file's time is that of the last build."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path_for(self, directory: Path) -> Path:
        """Where a directory's digests are, or would be; they are in use from here on."""
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / hashlib.sha256(os.fsencode(directory)).hexdigest()
        with suppress(FileNotFoundError):
            os.utime(path)
        return path

    async def items(self) -> list[CacheItem]:
        """See Keeper."""
        if not self._root.exists():
            return []
        found = [(path.name, path.stat()) for path in sorted(self._root.iterdir())]
        return [
            CacheItem(
                id=name,
                kind="source.local",
                description="digests of a local context",
                size_bytes=status.st_size,
                created_ns=status.st_mtime_ns,
                used_ns=status.st_mtime_ns,
            )
            for name, status in found
        ]

    async def remove(self, ids: Collection[str], unused_since_ns: int) -> int:
        """See Keeper."""
        freed = 0
        for name in ids:
            path = self._root / name
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_mtime_ns < unused_since_ns:
                    path.unlink()
                    freed += status.st_size
        return freed


class DirectoryContext(FileSource):
    """A directory's files as they were when it was scanned; owners are root, as in a context that is sent."""

    def __init__(
        self, root: Path, tree: FileTree, fingerprints: dict[bytes, Fingerprint], cache: StatCache, rules: IgnoreRules
    ) -> None:
        super().__init__(tree, DirectoryContents(root))
        self.ignore_rules = rules  # applied already
        self._fingerprints = fingerprints
        self._cache = cache

    def known_digest(self, path: bytes, node: Node) -> bytes | None:
        """See FileSource. A file that is not known yet is hashed here. Blocking."""
        fingerprint = self._fingerprints.get(path)
        if fingerprint is None:
            return None
        digest = self._cache.find(path, fingerprint)
        if digest is None:
            hashed_ns = time.time_ns()
            state = hashlib.sha256()
            for piece in self.contents.pieces(path, node):
                state.update(piece)
            digest = state.digest()
            self._cache.put(path, fingerprint, digest, hashed_ns)
        return digest

    def save_digests(self) -> None:
        """Keep what was learned for the next build. Blocking."""
        self._cache.save(frozenset(self._fingerprints))


def scan_directory(
    root: Path, cache_path: Path, *, rules: IgnoreRules | None = None, dockerfile: str = "Dockerfile"
) -> DirectoryContext:
    """Look at everything below *root* that *rules* leave in, by default its .dockerignore's.

    Blocking. Raises BuildFailed if it cannot be read.
    """
    try:
        scan = _Scan(root, _rules(root, dockerfile) if rules is None else rules)
        scan.run()
    except OSError as error:
        raise BuildFailed(f"cannot read the build context: {error.filename}: {error.strerror}") from error
    return DirectoryContext(root, scan.tree, scan.fingerprints, StatCache(cache_path), scan.rules)


def _rules(root: Path, dockerfile: str) -> IgnoreRules:
    """The rules beside the Dockerfile, else those of the directory (as ``sent.ignore_rules`` for a tar)."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        with suppress(FileNotFoundError, NotADirectoryError):
            return IgnoreRules.parse((root / name).read_text(encoding="utf-8", errors="replace"))
    return IgnoreRules(())


class _Scan:
    def __init__(self, root: Path, rules: IgnoreRules) -> None:
        self._root = os.fsencode(root)
        self.rules = rules
        self.tree = FileTree()
        self.fingerprints: dict[bytes, Fingerprint] = {}

    def run(self) -> None:
        pending = [(b"", self.tree.root)]
        excluded: list[tuple[Node, bytes]] = []
        while pending:
            prefix, directory = pending.pop()
            assert directory.children is not None
            with os.scandir(self._root + b"/" + prefix) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    path = prefix + entry.name
                    is_excluded = bool(self.rules) and self.rules.excludes(os.fsdecode(path))
                    if is_excluded and not self._is_to_be_searched(entry, path):
                        continue
                    node = self._node(entry, path)
                    if node is None:
                        continue
                    directory.children[entry.name] = node
                    if node.children is not None:
                        pending.append((path + b"/", node))
                        excluded += [(directory, entry.name)] if is_excluded else []
        for parent, name in reversed(excluded):
            # searched for what an exception takes in again, and nothing was
            if parent.children is not None and not parent.children[name].children:
                del parent.children[name]

    def _is_to_be_searched(self, entry: os.DirEntry[bytes], path: bytes) -> bool:
        return entry.is_dir(follow_symlinks=False) and self.rules.may_contain_included(os.fsdecode(path))

    def _node(self, entry: os.DirEntry[bytes], path: bytes) -> Node | None:
        """One file, None if it is of a kind that no layer holds."""
        status = entry.stat(follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in _KINDS:
            return None
        # whole seconds, as in a context that is sent: the two give the same layer
        node = Node(status.st_mode, 0, 0, int(status.st_mtime) * 1_000_000_000)
        if kind == stat.S_IFDIR:
            node.children = {}
        elif kind == stat.S_IFLNK:
            node.target = os.readlink(entry.path)
        elif kind == stat.S_IFREG:
            node.size = status.st_size
            self.fingerprints[path] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        else:
            node.rdev = os.major(status.st_rdev) << 20 | os.minor(status.st_rdev)
        return node
