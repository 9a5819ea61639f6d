"""Where COPY and ADD take files from: a tree, and where the bytes of its files lie.

A source is a context, a stage, an image or an archive; all of them are layers' tars that are read where they lie, or a directory of this
machine. ``Contents`` is the part that a worker process needs to read a file, without the tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.build.errors import BuildFailed
from lamina.dockerfile import IgnoreRules
from lamina.layer.tree import FileTree, Node, walk
from lamina.linux import paths
from lamina.oci.digest import DiffID

_READ_BYTES = 1 << 20
_MAXIMUM_DOCUMENT = 4 << 20


class Contents(Protocol):
    """Reads the bytes of regular files. Values that can be sent to a worker."""

    def pieces(self, path: bytes, node: Node) -> Iterator[bytes]:
        """A file's bytes, holes as zeros. *path* is where the file lies in its source. Raises BuildFailed if it became shorter."""


@dataclass(frozen=True)
class TarContents:
    """Files in layers' tars, by layer number."""

    tars: tuple[Path, ...]

    def pieces(self, path: bytes, node: Node) -> Iterator[bytes]:
        """See Contents."""
        extents = node.extents if node.extents is not None else ((0, node.size, node.offset),)
        position = 0
        with open(self.tars[node.layer], "rb", buffering=0) as tar:
            for offset, length, start in (*extents, (node.size, 0, 0)):
                while position < offset:
                    gap = min(offset - position, _READ_BYTES)
                    yield bytes(gap)
                    position += gap
                yield from _exactly(tar.fileno(), start, length, path)
                position += length


@dataclass(frozen=True)
class DirectoryContents:
    """Files below a directory of this machine; no link leads out of it."""

    root: Path

    def pieces(self, path: bytes, node: Node) -> Iterator[bytes]:
        """See Contents."""
        fd = paths.open_in_root(self.root, os.fsdecode(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            yield from _exactly(fd, 0, node.size, path)
        finally:
            os.close(fd)


@dataclass(frozen=True)
class StoredFile:
    """One file of this machine, whatever it is called in its source."""

    file: Path

    def pieces(self, path: bytes, node: Node) -> Iterator[bytes]:
        """See Contents."""
        with open(self.file, "rb", buffering=0) as file:
            yield from _exactly(file.fileno(), 0, node.size, path)


class FileSource:
    """A tree with its contents; *place* names it in messages, *ignore* are the rules of .dockerignore that are still to be applied.

    A stage's and an image's have the *diff_ids* of their layers.
    """

    def __init__(
        self,
        tree: FileTree,
        contents: Contents,
        *,
        place: str = "",
        ignore: IgnoreRules | None = None,
        diff_ids: Sequence[DiffID] | None = None,
    ) -> None:
        self.diff_ids = diff_ids
        self.tree = tree
        self.contents = contents
        self.ignore_rules = ignore
        self.place = place
        self._ignore = ignore or IgnoreRules(())

    def is_visible(self, path: bytes) -> bool:
        """Whether .dockerignore leaves a path in."""
        return not self._ignore or not self._ignore.excludes(os.fsdecode(path))

    def is_present(self, path: bytes, node: Node) -> bool:
        """Whether a file counts as there: it is visible itself, or it is a directory with something visible below it."""
        if self.is_visible(path):
            return True
        if node.children is None or not self.may_show_below(path):
            return False
        return any(self.is_visible(below) for below, _ in walk(node, path))

    def may_show_below(self, path: bytes) -> bool:
        """Whether something below a directory may be visible, even if it is not itself."""
        return self.is_visible(path) or self._ignore.may_contain_included(os.fsdecode(path))

    def known_digest(self, path: bytes, node: Node) -> bytes | None:
        """The sha256 of a regular file's bytes, if this source keeps them. May block."""
        return None

    def read(self, path: bytes, node: Node, limit: int = _MAXIMUM_DOCUMENT) -> bytes:
        """The first bytes of a regular file."""
        result = bytearray()
        for piece in self.contents.pieces(path, node):
            result += piece
            if len(result) >= limit:
                break
        return bytes(result[:limit])


def _exactly(fd: int, start: int, length: int, path: bytes) -> Iterator[bytes]:
    end = start + length
    while start < end:
        data = os.pread(fd, min(end - start, _READ_BYTES), start)
        if not data:
            raise BuildFailed(f"{os.fsdecode(path)} became shorter while it was read")
        start += len(data)
        yield data
