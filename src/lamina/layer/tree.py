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

_FORMAT = 1
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
    children = directory.children or {}
    for name in sorted(children):
        node = children[name]
        path = prefix + b"/" + name if prefix else name
        yield path, node
        if node.children:
            yield from walk(node, path)


def save(tree: LayerTree, path: Path) -> None:
    """Write a layer's tree in a form that ``load`` reads in milliseconds. Not synced: it can be made again from the tar."""
    rows: list[Any] = []
    numbers: dict[int, int] = {}
    _flatten(tree.root, rows, numbers)
    with open(path, "wb") as file:
        marshal.dump((_FORMAT, rows), file)


def load(path: Path) -> LayerTree:
    """Read a saved tree. Raises StaleTree if it is of another format or cut short, FileNotFoundError if it is missing."""
    data = path.read_bytes()
    try:
        version, rows = marshal.loads(data)  # noqa: S302 - our own file, of our own format
        if version != _FORMAT:
            raise StaleTree(str(path))
        return LayerTree(_unflatten(rows))
    except (ValueError, EOFError, TypeError, IndexError) as error:
        raise StaleTree(str(path)) from error


def _parts(path: bytes) -> list[bytes]:
    return [p for p in path.split(b"/") if p not in (b"", b".")]


def _flatten(node: Node, rows: list[Any], numbers: dict[int, int]) -> int:
    """Append a node after its children; a hard link's node is written once. Returns its row's number."""
    known = numbers.get(id(node))
    if known is not None:
        return known
    children = node.children
    packed = [(n, _flatten(c, rows, numbers)) for n, c in children.items()] if children is not None else None
    whiteouts = sorted(node.whiteouts) if node.whiteouts else None
    flags = (1 if node.opaque else 0) | (2 if node.explicit else 0)
    rows.append(
        (
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
            packed,
            whiteouts,
            flags,
            node.link,
        )
    )
    numbers[id(node)] = len(rows) - 1
    return len(rows) - 1


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
