"""Scan: the tree that a tar describes, from its headers alone, while the bytes stream by.

The scanner is fed the tar in pieces of any size and skips file contents. It understands ustar, GNU (long names, base-256, sparse) and
pax, and the image format's whiteouts. What could leave the root on extraction, is no proper tar, or could be neither mounted nor
extracted later, is refused by name.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamina.layer.errors import InvalidLayer, LayerTooLarge
from lamina.layer.headers import BLOCK, Extended, Header, parse_header, parse_pax, printable, text
from lamina.layer.sparse import (
    SparseMap,
    choose_chunks,
    extents_of,
    read_gnu_map,
    read_pax_map,
    read_pax_pairs,
)
from lamina.layer.tree import LayerTree, Node, SymlinkLoop

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_MAXIMUM_NAME = 255
_MAXIMUM_PATH = 4095  # PATH_MAX, without its NUL
_MAXIMUM_DEPTH = 2048
_MAXIMUM_XATTR_NAME = 255  # XATTR_NAME_MAX of limits.h
_MAXIMUM_XATTR_VALUE = (1 << 16) - 1  # EROFS counts in 16 bits
_MAXIMUM_XATTRS = 256 << 10  # so it does with what a file's attributes take together, in units of 4 bytes
_XATTR_OVERHEAD = 8
_MAXIMUM_HEADER = 4 << 20
_MAXIMUM_KEPT = 256 << 20
_MAXIMUM_INDEX = 256 << 20
_NOBODY = (1 << 32) - 1  # chown(2) takes this number for "leave it as it is"
_ZERO = bytes(BLOCK)
_READ_BYTES = 4 << 20
_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"1": 0,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_METADATA = (b"x", b"g", b"X", b"L", b"K")
_NOTHING = Extended()


OnFile = Callable[[int, int], None]
"""Told of each regular file when its header was read: where its bytes begin in the tar, and how many there are."""


@dataclass(frozen=True)
class Limits:
    """How large a layer may be: bytes of the uncompressed tar, and entries."""

    tar_bytes: int = 100 << 30
    entries: int = 10_000_000


class Scanner:
    """Reads a tar that is fed to it; ``finish`` gives the tree. Every method raises InvalidLayer for what is refused."""

    def __init__(self, limits: Limits = Limits(), on_file: OnFile | None = None) -> None:
        self._on_file = on_file
        self.tree = LayerTree()
        self.entries = 0
        self._limits = limits
        self._fed = 0
        self._position = 0  # of the first byte of _pieces, in the tar
        self._pieces: list[bytes] = []
        self._held = 0  # bytes of _pieces
        self._needed = BLOCK  # how many must be there before it is worth looking at them
        self._skip = 0
        self._padding = 0  # how many of the bytes to skip a tar's end may lack
        self._zero_blocks = 0
        self._extended: Extended | None = None
        self._directories: dict[bytes, Node] = {b"": self.tree.root}
        self._nodes = 0
        self._kept_bytes = 0
        self._index_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        self._fed += len(data)
        self._check_size(self._fed)
        if self._has_ended:
            return
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._position += skipped
        if skipped == len(data):
            return
        self._pieces.append(data[skipped:] if skipped else data)
        self._held += len(data) - skipped
        if self._held >= self._needed:
            self._take_pieces()

    def finish(self) -> LayerTree:
        """The tree, when all was fed.

        As docker does, a tar is taken that ends without its zero blocks, or without the padding of its last entry.
        """
        if self._held and not self._has_ended:
            self._take_pieces()
        if self._skip > self._padding or (self._held and not self._has_ended):
            raise InvalidLayer("truncated tar")
        return self.tree

    @property
    def _has_ended(self) -> bool:
        return self._zero_blocks >= 2

    def _check_size(self, size: int) -> None:
        if size > self._limits.tar_bytes:
            raise LayerTooLarge(f"more than {self._limits.tar_bytes} bytes")

    def _take_pieces(self) -> None:
        data = b"".join(self._pieces)
        self._needed = BLOCK
        end = self._take_entries(data)
        rest = data[end:]
        self._position += min(end, len(data))
        self._skip = max(0, end - len(data))
        self._pieces, self._held = ([rest], len(rest)) if rest else ([], 0)

    def _take_entries(self, data: bytes) -> int:
        """Handle every entry whose header is complete in *data*; returns where the next one begins, possibly behind the end."""
        start, length = 0, len(data)
        while start + BLOCK <= length and not self._has_ended:
            block = data[start : start + BLOCK]
            if block == _ZERO:
                self._zero_blocks += 1
                start += BLOCK
                continue
            if self._zero_blocks:
                raise InvalidLayer("an entry behind a block of zeros")
            header = parse_header(block)
            used = (
                self._take_metadata(header, data, start)
                if header.kind in _METADATA
                else self._take_entry(header, data, start)
            )
            if used == 0:
                return start
            start += used
        return start

    def _take_metadata(self, header: Header, data: bytes, start: int) -> int:
        """Read an extended header; returns its length with header and padding, or 0 if more of it must be seen first."""
        if header.size > _MAXIMUM_HEADER:
            raise InvalidLayer("extended header is too long", printable(header.name))
        used = BLOCK + _padded(header.size)
        if start + used > len(data):
            self._needed = used
            return 0
        body = data[start + BLOCK : start + BLOCK + header.size]
        if header.kind == b"g":
            parse_pax(body, Extended())  # docker's reader does not apply global records to entries, so neither do we
            return used
        self._extended = self._extended or Extended()
        if header.kind == b"L":
            self._extended.path = text(body)
        elif header.kind == b"K":
            self._extended.link = text(body)
        else:
            parse_pax(body, self._extended)
        return used

    def _take_entry(self, header: Header, data: bytes, start: int) -> int:
        """Add one entry; returns its length with header and padding, or 0 if more of it must be seen first."""
        extended = self._extended or _NOTHING
        kind = header.kind
        size = extended.numbers.get(b"size", header.size) if _TYPES.get(kind, stat.S_IFREG) == stat.S_IFREG else 0
        data_at = start + BLOCK
        found = None
        if kind == b"S" or extended.sparse_version == (1, 0) or extended.sparse_map is not None:
            found = _read_map(kind, extended, data, start, size)
            if found is None:
                # twice as much next time, so that a long map costs no more than its length
                self._needed = 2 * (len(data) - start)
                return 0
            data_at = found.data_at
        # the size that an old GNU header tells leaves its map out, the one of a pax header includes it
        end = (data_at if kind == b"S" else start + BLOCK) + size
        if self._position + end > self._limits.tar_bytes:
            self._check_size(self._position + end)
        node = self._add(header, extended, found.real_size if found else size, self._position + data_at)
        if found is not None and node is not None and node.is_regular:
            self._make_sparse(node, found, end - data_at)
        used = (end - start + BLOCK - 1) // BLOCK * BLOCK
        self._padding = used - (end - start)
        return used

    def _make_sparse(self, node: Node, found: SparseMap, data_size: int) -> None:
        node.extents = extents_of(found.pairs, node.offset, data_size, found.real_size)
        self._index_bytes += choose_chunks(node.size, node.extents).index_bytes
        if self._index_bytes > _MAXIMUM_INDEX:
            raise LayerTooLarge("its sparse files would need too large an index")

    def _add(self, header: Header, extended: Extended, size: int, data_at: int) -> Node | None:
        self._extended = None
        self.entries += 1
        path = extended.path if extended.path is not None else header.name
        if not path:
            return None  # docker takes a name of nothing for the root and leaves that as it is
        kind = _TYPES.get(header.kind)
        if kind is None:
            raise InvalidLayer(f"unknown entry type {header.kind!r}", printable(path))
        if kind == stat.S_IFREG and path.endswith(b"/"):
            kind = stat.S_IFDIR  # ustar before POSIX: a directory is a name with a slash
        link = extended.link if extended.link is not None else header.link
        if kind == 0:
            self._add_hard_link(path, link)
            return None
        node = self._node(header, extended, kind, path)
        if kind == stat.S_IFREG:
            node.size = size
            node.offset = data_at
        elif kind == stat.S_IFLNK:
            node.target = _link_target(link, path)
            self._keep(len(link))
        self._insert(path, node)
        return node

    def _node(self, header: Header, extended: Extended, kind: int, path: bytes) -> Node:
        numbers = extended.numbers
        mtime = extended.mtime_ns if extended.mtime_ns is not None else header.mtime * 1_000_000_000
        uid, gid = numbers.get(b"uid", header.uid), numbers.get(b"gid", header.gid)
        if not (0 <= uid < _NOBODY and 0 <= gid < _NOBODY):
            raise InvalidLayer("owner out of range", printable(path))
        node = Node(kind | (header.mode & 0o7777), uid, gid, mtime)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not (0 <= header.major < 1 << 12 and 0 <= header.minor < 1 << 20):
                raise InvalidLayer("device number out of range", printable(path))
            node.rdev = header.major << 20 | header.minor
        elif kind == stat.S_IFLNK:
            node.mode = kind | 0o777  # what lstat(2) says of every link on Linux, whatever a header has
        if extended.xattrs:
            node.xattrs = _checked_xattrs(extended.xattrs, path)
            self._keep(sum(len(name) + len(value) for name, value in (node.xattrs or {}).items()))
        return node

    def _keep(self, size: int) -> None:
        """Count what the tree holds beside its nodes."""
        self._kept_bytes += size
        if self._kept_bytes > _MAXIMUM_KEPT:
            raise LayerTooLarge(f"more than {_MAXIMUM_KEPT} bytes of link targets and extended attributes")

    def _count_node(self) -> None:
        """Count entries and the directories that they imply: a path may name two thousand of them."""
        self._nodes += 1
        if self._nodes > self._limits.entries:
            raise LayerTooLarge(f"more than {self._limits.entries} entries")

    def _add_hard_link(self, path: bytes, target: bytes) -> None:
        try:
            parts = _checked_parts(target)
        except InvalidLayer as error:
            raise InvalidLayer(f"hard link target {printable(target)!r}: {error.reason}", printable(path)) from None
        if not parts:
            raise InvalidLayer("hard link without a target", printable(path))
        try:
            node = self.tree.lookup(b"/".join(parts), follow=False)
        except SymlinkLoop:
            raise InvalidLayer("hard link through a loop of symbolic links", printable(path)) from None
        if node is None:
            node = Node(0)
            node.link = b"/".join(parts)
            self._keep(len(node.link))
        elif node.is_directory:
            raise InvalidLayer("hard link to a directory", printable(path))
        self._insert(path, node)

    def _insert(self, path: bytes, node: Node) -> None:
        self._count_node()
        parts = _checked_parts(path)
        if not parts:
            self._replace_root(node, path)
            return
        name = parts.pop()
        parent = self._parent(b"/".join(parts), path)
        children = parent.children
        assert children is not None
        if name.startswith(_WHITEOUT):
            _white_out(parent, name, path)
            return
        existing = children.get(name)
        if existing is not None and existing.children is not None and stat.S_ISDIR(node.mode):
            _update_directory(existing, node)
            return
        if existing is not None and (existing.children is not None or existing.is_symlink):
            self._directories = {b"": self.tree.root}  # a path that was remembered may lead elsewhere now
        if stat.S_ISDIR(node.mode):
            node.children = {}
        children[name] = node

    def _replace_root(self, node: Node, path: bytes) -> None:
        if not stat.S_ISDIR(node.mode):
            raise InvalidLayer("the root is no directory", printable(path))
        _update_directory(self.tree.root, node)

    def _parent(self, directory: bytes, path: bytes) -> Node:
        """The directory that an entry goes into, through links, made if missing."""
        node = self._directories.get(directory)
        if node is not None:
            return node
        try:
            parts, _ = self.tree.resolve(directory)
        except SymlinkLoop:
            raise InvalidLayer("its directory is a loop of symbolic links", printable(path)) from None
        if len(parts) > _MAXIMUM_DEPTH:
            raise InvalidLayer(f"more than {_MAXIMUM_DEPTH} directories deep", printable(path))
        node = self.tree.root
        for part in parts:
            assert node.children is not None
            child = node.children.get(part)
            if child is None:
                self._count_node()
                child = node.children[part] = Node.implicit_directory()
            elif child.children is None:
                raise InvalidLayer(f"{printable(part)!r} on its path is no directory", printable(path))
            node = child
        self._directories[directory] = node
        return node


def scan_tar_file(path: Path, limits: Limits = Limits()) -> LayerTree:
    """The tree of a tar on disk. Raises InvalidLayer."""
    scanner = Scanner(limits)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            scanner.feed(data)
    return scanner.finish()


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _read_map(kind: bytes, extended: Extended, data: bytes, start: int, size: int) -> SparseMap | None:
    """A sparse entry's map, and where its data lies; None if more of the map must be seen first."""
    numbers = extended.numbers
    if kind == b"S":
        return read_gnu_map(data, start)
    if extended.sparse_version == (1, 0):
        return read_pax_map(data, start + BLOCK, size, numbers.get(b"GNU.sparse.realsize", size))
    real_size = numbers.get(b"GNU.sparse.size", numbers.get(b"GNU.sparse.realsize", size))
    return SparseMap(read_pax_pairs(extended.sparse_map or b""), real_size, start + BLOCK)


def _link_target(target: bytes, path: bytes) -> bytes:
    if not target:
        raise InvalidLayer("symbolic link without a target", printable(path))
    if len(target) > _MAXIMUM_PATH or b"\0" in target:
        raise InvalidLayer("symbolic link whose target no file system takes", printable(path))
    return target


def _checked_xattrs(xattrs: dict[bytes, bytes], path: bytes) -> dict[bytes, bytes] | None:
    """The attributes that a file keeps. Raises InvalidLayer for such as no file system takes."""
    # overlayfs would take its own marks from a layer's files for facts about the stack
    kept = {k: v for k, v in xattrs.items() if not k.startswith(b"trusted.overlay.")}
    for name, value in kept.items():
        if len(name) > _MAXIMUM_XATTR_NAME or len(value) > _MAXIMUM_XATTR_VALUE or b"\0" in name:
            raise InvalidLayer(f"extended attribute {printable(name[:80])!r} is too long", printable(path))
    if sum(len(name) + len(value) + _XATTR_OVERHEAD for name, value in kept.items()) > _MAXIMUM_XATTRS:
        raise InvalidLayer(f"more than {_MAXIMUM_XATTRS} bytes of extended attributes", printable(path))
    return kept or None


def _checked_parts(path: bytes) -> list[bytes]:
    """The names on a path, ``a/..`` taken out as docker does. Raises InvalidLayer for one that leaves the root."""
    if len(path) > _MAXIMUM_PATH:
        raise InvalidLayer(f"a path of more than {_MAXIMUM_PATH} bytes", printable(path))
    parts = [part for part in path.split(b"/") if part and part != b"."]
    if b".." in parts:
        parts = _without_parents(parts, path)
    if len(path) > _MAXIMUM_NAME and any(len(part) > _MAXIMUM_NAME for part in parts):
        raise InvalidLayer(f"a name of more than {_MAXIMUM_NAME} bytes", printable(path))
    if b"\0" in path:
        raise InvalidLayer("NUL in a path", printable(path))
    return parts


def _without_parents(parts: list[bytes], path: bytes) -> list[bytes]:
    result: list[bytes] = []
    for part in parts:
        if part != b"..":
            result.append(part)
        elif result:
            result.pop()
        else:
            raise InvalidLayer("'..' in a path leads out of the root", printable(path))
    return result


def _update_directory(existing: Node, new: Node) -> None:
    existing.mode, existing.uid, existing.gid = new.mode, new.uid, new.gid
    existing.mtime_ns, existing.xattrs, existing.explicit = new.mtime_ns, new.xattrs, True


def _white_out(parent: Node, name: bytes, path: bytes) -> None:
    if name == _OPAQUE:
        parent.opaque = True
        return
    if name.startswith(_WHITEOUT + _WHITEOUT):
        return  # other marks of aufs, which mean nothing to a reader
    hidden = name[len(_WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise InvalidLayer("whiteout of nothing", printable(path))
    if parent.whiteouts is None:
        parent.whiteouts = set()
    parent.whiteouts.add(hidden)
