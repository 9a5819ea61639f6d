"""File trees: what one layer says, and what a stack of layers shows.

A ``Node`` is a file of any kind, its metadata and where its bytes lie in a layer's tar. Hard links are one Node under several names.
A layer's tree also says what it takes away: names that are whited out, directories that are opaque, and hard links to files that only
a lower layer has. A merged tree has none of these left.
"""

from __future__ import annotations

import marshal
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FORMAT = b"lamina tree 2\n"
"""What a saved tree begins with. The number rises whenever the rows change, or what may be relied on about them."""

_MAXIMUM_LINKS = 40

Extents = tuple[tuple[int, int, int], ...]
"""Of a sparse file: (offset in the file, length, offset in the tar), in bytes, ascending."""


class StaleTree(Exception):
    """A saved tree is of another format; it is to be made again from the tar."""


class SymlinkLoop(Exception):
    """A path goes through too many symbolic links."""


class Node:
    """One file. ``mode`` is st_mode with the type; ``offset`` is where the bytes begin in the tar of layer number ``layer``.

    ``explicit`` is false for a directory that the tar does not list but that some entry lies in. ``link`` is the path of a hard
    link's target that this layer does not have; such a node has no other meaning, and mode 0.
    """

    __slots__ = (
        "children",
        "explicit",
        "extents",
        "gid",
        "layer",
        "link",
        "mode",
        "mtime_ns",
        "offset",
        "opaque",
        "rdev",
        "size",
        "target",
        "uid",
        "whiteouts",
        "xattrs",
    )

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime_ns: int = 0) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.size = 0
        self.rdev = 0
        self.offset = 0
        self.layer = 0
        self.target = b""
        self.xattrs: dict[bytes, bytes] | None = None
        self.extents: Extents | None = None
        self.children: dict[bytes, Node] | None = None
        self.whiteouts: set[bytes] | None = None
        self.opaque = False
        self.explicit = True
        self.link: bytes | None = None

    @classmethod
    def implicit_directory(cls) -> Node:
        """A directory that nothing is known of but that it exists."""
        node = cls(stat.S_IFDIR | 0o755)
        node.children = {}
        node.explicit = False
        return node

    @property
    def is_directory(self) -> bool:
        """Whether this has children."""
        return self.children is not None

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def shown_mtime_ns(self) -> int:
        """The time that the file gets in a mounted tree: the epoch for times that file systems do not agree on, as docker does."""
        return self.mtime_ns if 0 <= self.mtime_ns < 1 << 63 else 0

    @property
    def is_regular(self) -> bool:
        """Whether this has bytes of its own."""
        return stat.S_ISREG(self.mode)

    def copy_of_directory(self) -> Node:
        """This directory's attributes with no children."""
        node = Node(self.mode, self.uid, self.gid, self.mtime_ns)
        node.xattrs = self.xattrs
        node.explicit = self.explicit
        node.children = {}
        return node

    def copy_without_children(self) -> Node:
        """This file as it is, a directory with nothing in it."""
        node = Node(self.mode, self.uid, self.gid, self.mtime_ns)
        node.size = self.size
        node.rdev = self.rdev
        node.offset = self.offset
        node.layer = self.layer
        node.target = self.target
        node.xattrs = self.xattrs
        node.extents = self.extents
        node.children = None if self.children is None else {}
        return node

    def has_attributes_of(self, other: Node) -> bool:
        """Whether two directories differ in nothing but what lies in them."""
        return (self.mode, self.uid, self.gid, self.mtime_ns, self.xattrs) == (
            other.mode,
            other.uid,
            other.gid,
            other.mtime_ns,
            other.xattrs,
        )


class FileTree:
    """A root directory and ways to look into it. Paths are bytes, with or without a leading slash."""

    def __init__(self, root: Node | None = None) -> None:
        self.root = root or Node.implicit_directory()

    def lookup(self, path: bytes, *, follow: bool = True) -> Node | None:
        """The node at *path*; links on the way are followed inside the root, the last one only with *follow*.

        None if there is none. Raises SymlinkLoop.
        """
        found = self.resolve(path, follow=follow)
        return found[1]

    def resolve(self, path: bytes, *, follow: bool = True) -> tuple[tuple[bytes, ...], Node | None]:
        """Where *path* really leads: its parts without any link, and the node there, if there is one.

        Parts behind a missing one are taken as they are. Raises SymlinkLoop.
        """
        todo = _parts(path)[::-1]
        done: list[tuple[bytes, Node | None]] = []
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                if done:
                    done.pop()
                continue
            parent = done[-1][1] if done else self.root
            node = parent.children.get(name) if parent is not None and parent.children is not None else None
            if node is not None and node.is_symlink and (todo or follow):
                links += 1
                if links > _MAXIMUM_LINKS:
                    raise SymlinkLoop(os.fsdecode(path))
                if node.target.startswith(b"/"):
                    done.clear()
                todo.extend(_parts(node.target)[::-1])
                continue
            done.append((name, node))
        return tuple(name for name, _ in done), done[-1][1] if done else self.root

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path (without a leading slash; the root is empty) with its node, parents first, names in byte order."""
        yield b"", self.root
        yield from walk(self.root, b"")


class LayerTree(FileTree):
    """What one layer's tar says."""


class MergedTree(FileTree):
    """What a stack of layers shows; each regular file's ``layer`` is the number of the layer that holds its bytes."""


def walk(directory: Node, prefix: bytes) -> Iterator[tuple[bytes, Node]]:
    """Every path below a directory with its node, parents first, names in byte order."""
    todo = _entries_backwards(directory, prefix)
    while todo:
        path, node = todo.pop()
        yield path, node
        if node.children:
            todo += _entries_backwards(node, path)


def directories(root: Node) -> list[Node]:
    """A directory and every one below it, parents first. Trees may be thousands of levels deep, so nothing here recurs."""
    found = [root]
    for directory in found:
        found += [child for child in (directory.children or {}).values() if child.children is not None]
    return found


def save(tree: LayerTree, path: Path) -> None:
    """Write a layer's tree in a form that ``load`` reads in milliseconds. Not synced: it can be made again from the tar."""
    with open(path, "wb") as file:
        file.write(_FORMAT)
        marshal.dump(_flatten(tree.root), file)


def load(path: Path) -> LayerTree:
    """Read a saved tree. Raises StaleTree if it is of another format or cut short, FileNotFoundError if it is missing."""
    data = path.read_bytes()
    if not data.startswith(_FORMAT):
        raise StaleTree(str(path))
    try:
        return LayerTree(_unflatten(marshal.loads(data[len(_FORMAT) :])))  # noqa: S302 - our own file, of our own format
    except (ValueError, EOFError, TypeError, IndexError) as error:
        raise StaleTree(str(path)) from error


def is_current(path: Path) -> bool:
    """Whether a saved tree is there and of the present format."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_FORMAT)) == _FORMAT
    except FileNotFoundError:
        return False


def _parts(path: bytes) -> list[bytes]:
    return [p for p in path.split(b"/") if p not in (b"", b".")]


def _entries_backwards(directory: Node, prefix: bytes) -> list[tuple[bytes, Node]]:
    children = directory.children or {}
    return [(prefix + b"/" + name if prefix else name, children[name]) for name in sorted(children, reverse=True)]


def _flatten(root: Node) -> list[Any]:
    """A row for every node, each directory's after its children's, the root's last; a hard link's node is written once."""
    rows: list[Any] = []
    numbers: dict[int, int] = {}
    for directory in reversed(directories(root)):
        packed = []
        for name, child in (directory.children or {}).items():
            number = numbers.get(id(child))
            if number is None:
                number = numbers[id(child)] = len(rows)
                rows.append(_row(child, None))
            packed.append((name, number))
        numbers[id(directory)] = len(rows)
        rows.append(_row(directory, packed))
    return rows


def _row(node: Node, children: list[tuple[bytes, int]] | None) -> tuple[Any, ...]:
    return (
        node.mode,
        node.uid,
        node.gid,
        node.mtime_ns,
        node.size,
        node.rdev,
        node.offset,
        node.target,
        node.xattrs,
        node.extents,
        children,
        sorted(node.whiteouts) if node.whiteouts else None,
        (1 if node.opaque else 0) | (2 if node.explicit else 0),
        node.link,
    )


def _unflatten(rows: list[Any]) -> Node:
    nodes: list[Node] = []
    for mode, uid, gid, mtime_ns, size, rdev, offset, target, xattrs, extents, packed, whiteouts, flags, link in rows:
        node = Node(mode, uid, gid, mtime_ns)
        node.size = size
        node.rdev = rdev
        node.offset = offset
        node.target = target
        node.xattrs = xattrs
        node.extents = extents
        if packed is not None:
            node.children = {name: nodes[number] for name, number in packed}
        if whiteouts:
            node.whiteouts = set(whiteouts)
        node.opaque = bool(flags & 1)
        node.explicit = bool(flags & 2)
        node.link = link
        nodes.append(node)
    return nodes[-1]
