"""COPY and ADD: a layer's tar written straight from the source's tar. No container, no mount, no unpacking.

What is to be copied is decided on trees alone: the source's (context, stage or image) and the stage's own, in which the destination is
resolved as the container would see it, links and all, without a way out.

A destination directory that is made is root's with mode 0755, one that exists keeps what it has; directories below it become what the
source says. Nothing takes the place of a directory but a directory (BuildKit's rules, fsutil's ``copy``).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.build.context.source import Contents, FileSource
from lamina.build.copy.chmod import ModeChange
from lamina.build.copy.finding import Found, find, joined, select
from lamina.build.errors import BuildFailed, SourceNotFound
from lamina.dockerfile.ignore import IgnoreRules, has_wildcard
from lamina.layer.ingest import IngestedLayer
from lamina.layer.scan import Limits
from lamina.layer.tarwriter import TarWriter, write_layer
from lamina.layer.tree import MergedTree, Node, SymlinkLoop, walk


@dataclass(frozen=True)
class Ownership:
    """``--chown`` and ``--chmod`` resolved; None leaves what the source says."""

    uid: int | None = None
    gid: int | None = None
    mode: ModeChange | None = None


@dataclass(frozen=True)
class CopyItem:
    """A file to be written at *path* (no leading slash); a regular one's bytes are *text*, or those of *found* in *contents*.

    *identity* is the same for two names of one file. *digest* is the sha256 of the bytes where it is known. A *kept* directory is one
    that exists and is written only so that it stays what it is.
    """

    path: bytes
    node: Node
    contents: Contents | None = None
    found: bytes = b""
    text: bytes = b""
    identity: int | None = None
    digest: bytes | None = None
    kept: bool = False

    def pieces(self) -> Iterator[bytes]:
        """A regular file's bytes."""
        if self.contents is None:
            yield self.text
        else:
            yield from self.contents.pieces(self.found, self.node)


class CopyPlan:
    """What a COPY or ADD writes, in order. Directories and texts that it makes itself bear *now_ns* (Unix nanoseconds)."""

    def __init__(self, root: MergedTree, ownership: Ownership, *, now_ns: int | None = None) -> None:
        self._root = root
        self._ownership = ownership
        self._now_ns = time.time_ns() if now_ns is None else now_ns
        self.items: list[CopyItem] = []
        self._directories: set[bytes] = set()
        self._files: dict[bytes, int] = {}
        self._identities: dict[tuple[int, int], int] = {}
        self._sources = 0
        self._looked_up: dict[bytes, Node | None] = {}

    def add_from(
        self, source: FileSource, found: Sequence[Found], destination: str, *, into_directory: bool, keep_owner: bool,
        exclude: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Copy what was *found*: of a directory what it contains, a file itself. Raises BuildFailed for what cannot be copied there.

        *exclude* has patterns for paths below such a directory, and for the names of such files.
        """
        rules = IgnoreRules.of(exclude)
        several = into_directory or len(found) > 1
        for file in found:
            self._sources += 1
            if file.node.children is not None:
                target = self._resolve(destination)
                self._make_top(target)
                for below, node in select(source, file, [rules]):
                    self._add(joined(target, below), node, source, joined(file.path, below), keep_owner=keep_owner)
            elif not rules.excludes(os.fsdecode(file.name)):
                target = self._file_target(destination, file.name, several=several)
                self._add(target, file.node, source, file.path, keep_owner=keep_owner)

    def add_with_parents(
        self, source: FileSource, pattern: str, destination: str, *, keyword: str, keep_owner: bool,
        exclude: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Copy what *pattern* names with the directories above it (``--parents``), those behind ``/./`` if there is one.

        The pattern is .dockerignore's kind, and no link in it is followed. Directories that are made are as the source has them; one
        that exists gets the source's mode alone (fsutil's ``copy``). Raises SourceNotFound if a plain path is not there.
        """
        base, pivot, below = pattern.partition("/./")
        if not pivot:
            base, below = "", pattern
        rules = [IgnoreRules.of(exclude), IgnoreRules.only(below)]
        target = self._resolve(destination)
        is_there = has_wildcard(pattern)
        for start in find(source, base, keyword):
            self._sources += 1
            for path, node in select(source, start, rules):
                is_there = True
                self._make_top(target)
                here, found = joined(target, path), joined(start.path, path)
                self._add(here, node, source, found, keep_owner=keep_owner, keep_existing=True)
        if not is_there:
            raise SourceNotFound(keyword, pattern, source.place)

    def add_tree(self, source: FileSource, destination: str) -> None:
        """Copy a whole tree, owners included: an archive that ADD extracts."""
        self._sources += 1
        target = self._resolve(destination)
        self._make_top(target)
        for path, node in walk(source.tree.root, b""):
            self._add(joined(target, path), node, source, path, keep_owner=True)

    def add_text(self, name: str, text: str, destination: str, *, into_directory: bool) -> None:
        """Write a here-document as a file."""
        node = Node(stat.S_IFREG | 0o644, mtime_ns=self._now_ns)
        node.size = len(text.encode())
        target = self._file_target(destination, name.encode(), several=into_directory)
        self._claim_file(target)
        self._put(CopyItem(target, self._owned(node, keep_owner=False), text=text.encode()))

    def make_directory(self, path: str) -> None:
        """A directory with its parents, where they are missing (WORKDIR). Raises BuildFailed if a file is in the way."""
        target = self._resolve(path)
        existing = self._existing(target)
        if existing is None or existing.children is None:
            self._make_top(target)

    def _file_target(self, destination: str, name: bytes, *, several: bool) -> bytes:
        """Where a file goes: under its own name into a directory, or as the destination itself."""
        resolved = self._resolve(destination)
        existing = self._existing(resolved)
        is_directory = destination.endswith("/") or several or (existing is not None and existing.children is not None)
        return joined(resolved, name) if is_directory else resolved

    def _resolve(self, path: str) -> bytes:
        """A destination inside the stage's root, links followed, without a leading slash. Raises BuildFailed for a loop of links."""
        try:
            parts, _ = self._root.resolve(os.fsencode(path))
        except SymlinkLoop:
            raise BuildFailed(f"cannot copy to {path}: too many links") from None
        return b"/".join(parts)

    def _existing(self, path: bytes) -> Node | None:
        """What is at a resolved path in the root: no link is followed."""
        if not path:
            return self._root.root
        above, _, name = path.rpartition(b"/")
        if above not in self._looked_up:
            self._looked_up[above] = self._root.lookup(above)
        directory = self._looked_up[above]
        return directory.children.get(name) if directory is not None and directory.children is not None else None

    def _add(
        self,
        path: bytes,
        node: Node,
        source: FileSource,
        found: bytes,
        *,
        keep_owner: bool,
        keep_existing: bool = False,
    ) -> None:
        if node.children is not None:
            self._add_directory(path, node, keep_owner=keep_owner, keep_existing=keep_existing)
            return
        self._claim_file(path)
        owned = self._owned(node, keep_owner=keep_owner)
        if not node.is_regular:
            self._put(CopyItem(path, owned))
            return
        digest = source.known_digest(found, node)
        self._put(CopyItem(path, owned, source.contents, found, identity=self._identity(node), digest=digest))

    def _identity(self, node: Node) -> int:
        """Tells the names of one file: those of one source alone, as a link between two would be of the builder's making."""
        return self._identities.setdefault((self._sources, id(node)), len(self._identities))

    def _put(self, item: CopyItem) -> None:
        """A later file of the same path takes the place of an earlier one."""
        position = self._files.get(item.path)
        if position is None:
            self._files[item.path] = len(self.items)
            self.items.append(item)
        else:
            self.items[position] = item

    def _claim_file(self, path: bytes) -> None:
        existing = self._existing(path)
        if path in self._directories or (existing is not None and existing.children is not None):
            raise BuildFailed(f"cannot copy to /{os.fsdecode(path)}: it is a directory")
        self._make_parents(path)

    def _claim_directory(self, path: bytes) -> Node | None:
        """The directory that is at *path* now, None if there is nothing. Raises BuildFailed if something else is."""
        existing = self._existing(path)
        if path in self._files or (existing is not None and existing.children is None):
            raise BuildFailed(f"cannot copy to non-directory: /{os.fsdecode(path)}")
        self._directories.add(path)
        return existing

    def _make_top(self, path: bytes) -> None:
        """The destination itself, or a directory above it: kept as it is if it exists, else root's (or whose was asked for)."""
        if not path or path in self._directories:
            return
        self._make_parents(path)
        existing = self._claim_directory(path)
        fresh = existing.copy_of_directory() if existing is not None else self._owned(self._fresh(), keep_owner=False)
        self.items.append(CopyItem(path, fresh, kept=existing is not None))

    def _add_directory(self, path: bytes, node: Node, *, keep_owner: bool, keep_existing: bool) -> None:
        """A directory below the destination: as the source has it, or with *keep_existing* its mode alone if it is there."""
        if path in self._directories:
            return
        self._make_parents(path)
        existing = self._claim_directory(path)
        if existing is not None and keep_existing:
            written = existing.copy_of_directory()
            written.mode = node.mode
        else:
            written = self._owned(node, keep_owner=keep_owner)
        self.items.append(CopyItem(path, written))

    def _make_parents(self, path: bytes) -> None:
        """Every directory above *path*: those that exist with their attributes, for readers who would else take them for new."""
        missing = []
        above = path.rpartition(b"/")[0]
        while above and above not in self._directories:
            missing.append(above)
            above = above.rpartition(b"/")[0]
        for directory in reversed(missing):
            self._make_top(directory)

    def _fresh(self) -> Node:
        node = Node(stat.S_IFDIR | 0o755, mtime_ns=self._now_ns)
        node.children = {}
        return node

    def _owned(self, node: Node, *, keep_owner: bool) -> Node:
        """The node as it is written: with the owner and mode that were asked for; children are written by themselves."""
        copy = node.copy_without_children()
        if not keep_owner:
            copy.uid = copy.gid = 0
        own = self._ownership
        copy.uid = own.uid if own.uid is not None else copy.uid
        copy.gid = own.gid if own.gid is not None else copy.gid
        if own.mode is not None and not node.is_symlink:
            copy.mode = stat.S_IFMT(copy.mode) | own.mode.apply(copy.mode)
        return copy


def plan_digest(items: Sequence[CopyItem]) -> str:
    """Names a plan by what it writes: paths, kinds, owners, modes and bytes. Blocking: reads the files whose digest is not known.

    Times do not count, but those of directories that are there already and would be set back.
    """
    state = hashlib.sha256()
    links: dict[int, bytes] = {}
    for item in items:
        node = item.node
        first = links.setdefault(item.identity, item.path) if item.identity is not None else item.path
        time_ns = node.mtime_ns if item.kept else 0
        xattrs = sorted((node.xattrs or {}).items())
        state.update(
            repr((item.path, node.mode, node.uid, node.gid, node.rdev, node.target, xattrs, first, time_ns)).encode()
        )
        if node.is_regular and first == item.path:
            state.update(item.digest if item.digest is not None else digest_of(item.pieces()))
    return state.hexdigest()


def write_plan(
    items: Sequence[CopyItem],
    tar_path: Path,
    tree_path: Path,
    clamp_ns: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> IngestedLayer | None:
    """Write a plan's layer; None if there is nothing to write.

    Blocking. Raises BuildFailed if a file is not what its digest says, LayerTooLarge.
    """

    def add_all(writer: TarWriter) -> None:
        _write_items(writer, items)

    return write_layer(tar_path, tree_path, add_all, clamp_ns=clamp_ns, limits=limits)


def bytes_to_read(items: Sequence[CopyItem], *, unknown_only: bool = False) -> int:
    """How many bytes of files a plan has, all of them or those without a known digest."""
    return sum(i.node.size for i in items if i.node.is_regular and not (unknown_only and i.digest is not None))


def _write_items(writer: TarWriter, items: Sequence[CopyItem]) -> None:
    """Write the items in order; a file's further names as hard links."""
    links: dict[int, bytes] = {}
    for item in items:
        first = links.setdefault(item.identity, item.path) if item.identity is not None else item.path
        if first != item.path:
            writer.add_hard_link(item.path, item.node, first)
        elif item.node.is_regular:
            _write_file(writer, item)
        else:
            writer.add(item.path, item.node)


def _write_file(writer: TarWriter, item: CopyItem) -> None:
    pieces = item.pieces()
    state = hashlib.sha256()
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or next(pieces, b"")
        data, rest = rest[:size], rest[size:]
        if item.digest is not None:
            state.update(data)
        return data

    writer.add(item.path, item.node, read)
    if item.digest is not None and item.node.size and state.digest() != item.digest:
        raise BuildFailed(f"{os.fsdecode(item.found)} changed while it was built from")


def digest_of(pieces: Iterable[bytes]) -> bytes:
    """The sha256 of a file's bytes."""
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece)
    return state.digest()
