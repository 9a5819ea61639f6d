"""COPY and ADD: a layer's tar written straight from the source's tar. No container, no mount, no unpacking.

What is to be copied is decided on trees alone: the source's (context, stage or image) and the stage's own, in which the destination is
resolved as the container would see it, links and all, without a way out.

A destination directory that is made is root's with mode 0755, one that exists keeps what it has; directories below it become what the
source says. Nothing takes the place of a directory but a directory (BuildKit's rules, fsutil's ``copy``).
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.build.chmod import ModeChange
from lamina.build.errors import BuildFailed, SourceNotFound
from lamina.build.source import Contents, FileSource
from lamina.dockerfile.ignore import IgnoreRules, has_wildcard, match_wildcard
from lamina.layer.ingest import IngestedLayer
from lamina.layer.tarwriter import TarWriter
from lamina.layer.tree import MergedTree, Node, SymlinkLoop, walk

Found = tuple[bytes, Node]
"""A file of a source: its path without a leading slash, and its node."""


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

    def add_from(
        self, source: FileSource, found: Sequence[Found], destination: str, *, into_directory: bool, keep_owner: bool,
        exclude: Sequence[str] = (), parents: bool = False,
    ) -> None:  # fmt: skip
        """Copy what was *found*: of a directory what it contains, a file itself. Raises BuildFailed for what cannot be copied there."""
        excluded = IgnoreRules.parse("\n".join(exclude))
        several = into_directory or len(found) > 1
        for path, node in found:
            target = self._target(destination, path, node, several=several, parents=parents)
            if node.children is None:
                self._add(target, node, source, path, keep_owner=keep_owner)
                continue
            self._make_top(target)
            for below, child in walk(node, path):
                relative = below[len(path) :].lstrip(b"/")
                if source.is_present(below, child) and not excluded.excludes(os.fsdecode(relative)):
                    here = target + b"/" + relative if target else relative
                    self._add(here, child, source, below, keep_owner=keep_owner)

    def add_tree(self, source: FileSource, destination: str) -> None:
        """Copy a whole tree, owners included: an archive that ADD extracts."""
        target = self._resolve(destination)
        self._make_top(target)
        for path, node in walk(source.tree.root, b""):
            self._add(target + b"/" + path if target else path, node, source, path, keep_owner=True)

    def add_text(self, name: str, text: str, destination: str, *, into_directory: bool) -> None:
        """Write a here-document as a file."""
        node = Node(stat.S_IFREG | 0o644, mtime_ns=self._now_ns)
        node.size = len(text.encode())
        target = self._target(destination, name.encode(), node, several=into_directory, parents=False)
        self._claim_file(target)
        self._put(CopyItem(target, self._owned(node, keep_owner=False), text=text.encode()))

    def make_directory(self, path: str) -> None:
        """A directory with its parents, where they are missing (WORKDIR). Raises BuildFailed if a file is in the way."""
        target = self._resolve(path)
        existing = self._existing(target)
        if existing is None or existing.children is None:
            self._make_top(target)

    def _target(self, destination: str, path: bytes, node: Node, *, several: bool, parents: bool) -> bytes:
        """Where one source goes: under its own name into a directory, or as the destination itself."""
        if parents:
            pivot = path.partition(b"/./")[2] or path
            return self._resolve(posixpath.join(destination, os.fsdecode(pivot)))
        existing = self._existing(self._resolve(destination))
        is_directory = destination.endswith("/") or several or (existing is not None and existing.children is not None)
        if node.children is not None or not is_directory:
            return self._resolve(destination)
        name = path.rpartition(b"/")[2]
        directory = self._resolve(destination)
        return directory + b"/" + name if directory else name

    def _resolve(self, path: str) -> bytes:
        """A destination inside the stage's root, links followed, without a leading slash. Raises BuildFailed for a loop of links."""
        try:
            parts, _ = self._root.resolve(os.fsencode(path))
        except SymlinkLoop:
            raise BuildFailed(f"cannot copy to {path}: too many links") from None
        return b"/".join(parts)

    def _existing(self, path: bytes) -> Node | None:
        """What is at a resolved path in the root: no link is followed."""
        return self._root.lookup(path, follow=False)

    def _add(self, path: bytes, node: Node, source: FileSource, found: bytes, *, keep_owner: bool) -> None:
        if node.children is not None:
            self._add_directory(path, node, keep_owner=keep_owner)
            return
        self._claim_file(path)
        owned = self._owned(node, keep_owner=keep_owner)
        if not node.is_regular:
            self._put(CopyItem(path, owned))
            return
        digest = source.known_digest(found, node)
        self._put(CopyItem(path, owned, source.contents, found, identity=id(node), digest=digest))

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

    def _add_directory(self, path: bytes, node: Node, *, keep_owner: bool) -> None:
        """A directory below the destination: as the source has it."""
        if path in self._directories:
            return
        self._make_parents(path)
        self._claim_directory(path)
        self.items.append(CopyItem(path, self._owned(node, keep_owner=keep_owner)))

    def _make_parents(self, path: bytes) -> None:
        """Every directory above *path*: those that exist with their attributes, for readers who would else take them for new."""
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = b"/".join(parts[:depth])
            if above not in self._directories:
                self._make_top(above)

    def _fresh(self) -> Node:
        node = Node(stat.S_IFDIR | 0o755, mtime_ns=self._now_ns)
        node.children = {}
        return node

    def _owned(self, node: Node, *, keep_owner: bool) -> Node:
        """The node as it is written: with the owner and mode that were asked for; children are written by themselves."""
        copy = Node(node.mode, node.uid, node.gid, node.mtime_ns)
        for name in ("size", "rdev", "offset", "layer", "target", "xattrs", "extents"):
            setattr(copy, name, getattr(node, name))
        if node.children is not None:
            copy.children = {}
        if not keep_owner:
            copy.uid = copy.gid = 0
        own = self._ownership
        copy.uid = own.uid if own.uid is not None else copy.uid
        copy.gid = own.gid if own.gid is not None else copy.gid
        if own.mode is not None and not node.is_symlink:
            copy.mode = stat.S_IFMT(copy.mode) | own.mode.apply(copy.mode)
        return copy


def find(source: FileSource, pattern: str, keyword: str) -> list[Found]:
    """The files that a source of COPY or ADD names, in order of their paths; links are followed.

    A wildcard may match nothing. Raises SourceNotFound for a path that is not there, or that .dockerignore leaves out.
    """
    wanted = posixpath.normpath("/" + pattern).lstrip("/")
    try:
        if has_wildcard(wanted):
            return list(_match(source, wanted.split("/")))
        parts, node = source.tree.resolve(os.fsencode(wanted))
    except SymlinkLoop:
        raise BuildFailed(f"{keyword} failed: {pattern}: too many links") from None
    path = b"/".join(parts)
    if node is None or (path and not source.is_present(path, node)):
        raise SourceNotFound(keyword, pattern, source.place)
    # a file that a link led to is copied under the link's name, a directory's files are judged by where they are
    return [(os.fsencode(wanted) if node.children is None else path, node)]


def _match(source: FileSource, parts: list[str]) -> Iterator[Found]:
    level: list[Found] = [(b"", source.tree.root)]
    for part in parts:
        level = [
            (path + b"/" + name if path else name, child)
            for path, node in level
            for name, child in sorted((node.children or {}).items())
            if match_wildcard(part, os.fsdecode(name))
        ]
    for path, node in level:
        if source.is_present(path, node):
            _, real = source.tree.resolve(path) if node.is_symlink else ((), node)
            if real is not None:
                yield path, real


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
            state.update(item.digest if item.digest is not None else _digest_of(item))
    return state.hexdigest()


def write_plan(
    items: Sequence[CopyItem], tar_path: Path, tree_path: Path, clamp_ns: int | None = None
) -> IngestedLayer | None:
    """Write a plan's layer; None if there is nothing to write. Blocking. Raises BuildFailed if a file is not what its digest says."""
    if not items:
        return None
    writer = TarWriter(tar_path, clamp_ns=clamp_ns)
    links: dict[int, bytes] = {}
    try:
        for item in items:
            first = links.setdefault(item.identity, item.path) if item.identity is not None else item.path
            if first != item.path:
                writer.add_hard_link(item.path, item.node, first)
            elif item.node.is_regular:
                _write_file(writer, item)
            else:
                writer.add(item.path, item.node)
        return writer.finish(tree_path)
    except BaseException:
        writer.discard()
        tar_path.unlink(missing_ok=True)
        tree_path.unlink(missing_ok=True)
        raise


def bytes_to_read(items: Sequence[CopyItem], *, unknown_only: bool = False) -> int:
    """How many bytes of files a plan has, all of them or those without a known digest."""
    return sum(i.node.size for i in items if i.node.is_regular and not (unknown_only and i.digest is not None))


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


def _digest_of(item: CopyItem) -> bytes:
    state = hashlib.sha256()
    for piece in item.pieces():
        state.update(piece)
    return state.digest()
