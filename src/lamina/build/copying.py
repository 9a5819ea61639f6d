"""COPY and ADD: a layer's tar written straight from the source's tar. No container, no mount, no unpacking.

What is to be copied is decided on trees alone: the source's (context, stage or image) and the stage's own, in which the destination is
resolved as the container would see it, links and all, without a way out.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lamina.build.context import FileSource
from lamina.build.errors import BuildFailed, SourceNotFound
from lamina.dockerfile.ignore import IgnoreRules, has_wildcard, match_wildcard
from lamina.layer.ingest import IngestedLayer
from lamina.layer.tarwriter import Read, TarWriter, reader_of
from lamina.layer.tree import FileTree, MergedTree, Node, walk

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Ownership:
    """``--chown`` and ``--chmod`` resolved; None leaves what the source says."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


@dataclass(frozen=True)
class CopyItem:
    """A file to be written at *path* (no leading slash), taken from *source*; text of a here-document has no source."""

    path: bytes
    node: Node
    source: FileSource | None = None
    text: bytes = b""


class CopyPlan:
    """What a COPY or ADD writes, in order."""

    def __init__(self, root: MergedTree, ownership: Ownership) -> None:
        self._root = root
        self._ownership = ownership
        self.items: list[CopyItem] = []
        self._made: set[bytes] = set()

    def add_from(
        self, source: FileSource, pattern: str, destination: str, *, keyword: str, into_directory: bool, keep_owner: bool,
        exclude: Sequence[str] = (), parents: bool = False,
    ) -> None:  # fmt: skip
        """Copy what *pattern* names. A directory's contents are copied, a file itself.

        Raises SourceNotFound if nothing matches, SymlinkLoop's kinds for a hopeless path.
        """
        excluded = IgnoreRules.parse("\n".join(exclude))
        found = list(_find(source, pattern))
        if not found:
            raise SourceNotFound(keyword, pattern, source.place)
        several = into_directory or len(found) > 1
        for path, node in found:
            target = self._target(destination, path, node, several=several, parents=parents)
            if node.children is None:
                self._add(target, node, source, keep_owner=keep_owner)
                continue
            self._make_directory(target, node if target else None, keep_owner=keep_owner)
            for below, child in walk(node, path):
                relative = below[len(path) :].lstrip(b"/")
                if source.is_visible(below) and not excluded.excludes(os.fsdecode(relative)):
                    here = target + b"/" + relative if target else relative
                    self._add(here, child, source, keep_owner=keep_owner)

    def add_tree(self, source: FileSource, destination: str) -> None:
        """Copy a whole tree, owners included: an archive that ADD extracts."""
        target = self._resolve(destination)
        self._make_directory(target, None, keep_owner=True)
        for path, node in walk(source.tree.root, b""):
            self._add(target + b"/" + path if target else path, node, source, keep_owner=True)

    def add_text(self, name: str, text: str, destination: str, *, into_directory: bool) -> None:
        """Write a here-document as a file."""
        node = Node(stat.S_IFREG | 0o644)
        node.size = len(text.encode())
        target = self._target(destination, name.encode(), node, several=into_directory, parents=False)
        self._make_parents(target)
        self.items.append(CopyItem(target, self._owned(node, keep_owner=False), None, text.encode()))

    def make_directory(self, path: str) -> None:
        """A directory with its parents, where they are missing (WORKDIR)."""
        target = self._resolve(path)
        if self._root.lookup(target) is None:
            self._make_parents(target)
            self._made.add(target)
            self.items.append(CopyItem(target, self._owned(_directory(), keep_owner=False)))

    def digest(self) -> str:
        """Names the plan by what it writes: paths, kinds, owners, modes and bytes, never times. Blocking: reads every file."""
        state = hashlib.sha256()
        with ExitStack() as stack:
            opened: dict[Path, int] = {}
            for item in self.items:
                node = item.node
                head = (
                    item.path,
                    node.mode,
                    node.uid,
                    node.gid,
                    node.rdev,
                    node.target,
                    sorted((node.xattrs or {}).items()),
                )
                state.update(repr(head).encode())
                if node.is_regular:
                    state.update(b"%d:" % node.size)
                    for data in _contents(item, opened, stack):
                        state.update(data)
        return state.hexdigest()

    def write(self, tar_path: Path, tree_path: Path) -> IngestedLayer | None:
        """Write the layer; None if there is nothing to write. Blocking."""
        if not self.items:
            return None
        writer = TarWriter(tar_path)
        links: dict[int, bytes] = {}
        try:
            with ExitStack() as stack:
                opened: dict[Path, int] = {}
                for item in self.items:
                    self._write_item(writer, item, links, opened, stack)
            return writer.finish(tree_path)
        except BaseException:
            writer.discard()
            tar_path.unlink(missing_ok=True)
            tree_path.unlink(missing_ok=True)
            raise

    @staticmethod
    def _write_item(
        writer: TarWriter, item: CopyItem, links: dict[int, bytes], opened: dict[Path, int], stack: ExitStack
    ) -> None:
        if not item.node.is_regular:
            writer.add(item.path, item.node)
            return
        chunks = _contents(item, opened, stack)
        rest = b""

        def read(size: int) -> bytes:
            nonlocal rest
            rest = rest or next(chunks, b"")
            data, rest = rest[:size], rest[size:]
            return data

        writer.add(item.path, item.node, read)

    def _target(self, destination: str, path: bytes, node: Node, *, several: bool, parents: bool) -> bytes:
        """Where one source goes: under its own name into a directory, or as the destination itself."""
        if parents:
            pivot = path.partition(b"/./")[2] or path
            return self._resolve(posixpath.join(destination, os.fsdecode(pivot)))
        existing = self._root.lookup(self._resolve(destination))
        is_directory = destination.endswith("/") or several or (existing is not None and existing.children is not None)
        if node.children is None and is_directory:
            destination = posixpath.join(destination, os.fsdecode(path.rpartition(b"/")[2]))
        return self._resolve(destination)

    def _resolve(self, path: str) -> bytes:
        """A destination inside the stage's root, links followed, without a leading slash."""
        parts, _ = self._root.resolve(os.fsencode(path))
        return b"/".join(parts)

    def _add(self, path: bytes, node: Node, source: FileSource, *, keep_owner: bool) -> None:
        if node.children is not None:
            self._make_directory(path, node, keep_owner=keep_owner)
            return
        existing = self._root.lookup(path, follow=False)
        if existing is not None and existing.children is not None:
            raise BuildFailed(f"cannot copy to non-directory: /{os.fsdecode(path)} is a directory")
        self._make_parents(path)
        self.items.append(CopyItem(path, self._owned(node, keep_owner=keep_owner), source))

    def _make_directory(self, path: bytes, node: Node | None, *, keep_owner: bool) -> None:
        if not path or path in self._made:
            return
        self._make_parents(path)
        self._made.add(path)
        existing = self._root.lookup(path)
        if existing is not None and existing.children is not None:
            self.items.append(CopyItem(path, existing.copy_of_directory()))
        else:
            self.items.append(CopyItem(path, self._owned(node or _directory(), keep_owner=keep_owner)))

    def _make_parents(self, path: bytes) -> None:
        """Every directory above *path*: those that exist with their attributes, for readers who would else take them for new."""
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = b"/".join(parts[:depth])
            if above in self._made:
                continue
            self._made.add(above)
            existing = self._root.lookup(above)
            if existing is not None and existing.children is None:
                raise BuildFailed(f"cannot copy to /{os.fsdecode(path)}: /{os.fsdecode(above)} is not a directory")
            node = existing.copy_of_directory() if existing is not None else self._owned(_directory(), keep_owner=False)
            self.items.append(CopyItem(above, node))

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
            copy.mode = stat.S_IFMT(copy.mode) | own.mode
        return copy


def _find(source: FileSource, pattern: str) -> Iterator[tuple[bytes, Node]]:
    """The files that a source of COPY names, in order of their paths."""
    wanted = posixpath.normpath("/" + pattern).lstrip("/")
    if not has_wildcard(wanted):
        parts, node = source.tree.resolve(os.fsencode(wanted))
        path = b"/".join(parts)
        if node is not None and (not path or source.is_visible(path)):
            yield os.fsencode(wanted), node
        return
    yield from _match(source.tree, source, wanted.split("/"))


def _match(tree: FileTree, source: FileSource, parts: list[str]) -> Iterator[tuple[bytes, Node]]:
    level: list[tuple[bytes, Node]] = [(b"", tree.root)]
    for part in parts:
        level = [
            (path + b"/" + name if path else name, child)
            for path, node in level
            for name, child in sorted((node.children or {}).items())
            if match_wildcard(part, os.fsdecode(name))
        ]
    yield from ((path, node) for path, node in level if source.is_visible(path))


def _contents(item: CopyItem, opened: dict[Path, int], stack: ExitStack) -> Iterator[bytes]:
    """A file's bytes in pieces, holes as zeros."""
    if item.source is None:
        yield item.text
        return
    tar = item.source.tars[item.node.layer]
    if tar not in opened:
        opened[tar] = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, opened[tar])
    node = item.node
    position = 0
    extents = node.extents if node.extents is not None else ((0, node.size, node.offset),)
    for offset, length, start in (*extents, (node.size, 0, 0)):
        while position < offset:
            gap = min(offset - position, _READ_BYTES)
            yield bytes(gap)
            position += gap
        yield from _pieces(reader_of(opened[tar], start), length)
        position += length


def _pieces(read: Read, length: int) -> Iterator[bytes]:
    while length:
        data = read(min(length, _READ_BYTES))
        if not data:
            raise BuildFailed("the build context is shorter than its index says")
        length -= len(data)
        yield data


def _directory() -> Node:
    node = Node(stat.S_IFDIR | 0o755)
    node.children = {}
    return node
