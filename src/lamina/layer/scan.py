"""Scan: the tree that a tar describes, from its headers alone, while the bytes stream by.

The scanner is fed the tar in pieces of any size and skips file contents. It understands ustar, GNU (long names, base-256, sparse) and
pax, and the image format's whiteouts. What could leave the root on extraction, or is no proper tar, is refused by name.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from lamina.layer.errors import InvalidLayer, LayerTooLarge
from lamina.layer.headers import (
    BLOCK,
    Extended,
    Header,
    number,
    parse_header,
    parse_pax,
    printable,
    sparse_extents,
    text,
)
from lamina.layer.tree import LayerTree, Node, SymlinkLoop

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_MAXIMUM_NAME = 255
_MAXIMUM_METADATA = 4 << 20
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


@dataclass(frozen=True)
class Limits:
    """How large a layer may be: bytes of the uncompressed tar, and entries."""

    tar_bytes: int = 100 << 30
    entries: int = 10_000_000


class Scanner:
    """Reads a tar that is fed to it; ``finish`` gives the tree. Every method raises InvalidLayer for what is refused."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.tree = LayerTree()
        self.entries = 0
        self._limits = limits
        self._position = 0  # of the first byte of _held, in the tar
        self._held = b""
        self._skip = 0
        self._ended = False
        self._extended: Extended | None = None
        self._global = Extended()
        self._directories: dict[bytes, Node] = {b"": self.tree.root}

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        if self._ended:
            return
        if self._skip >= len(data):
            self._skip -= len(data)
            self._position += len(data)
            return
        start = self._skip
        self._skip = 0
        if self._held:
            data, start = self._held + data, 0
            self._held = b""
        used = self._take_entries(data, start)
        if used < len(data) and not self._ended:
            self._held = data[used:]
        self._position += min(used, len(data))
        self._skip = max(0, used - len(data))
        if self._position > self._limits.tar_bytes:
            raise LayerTooLarge(f"more than {self._limits.tar_bytes} bytes")

    def finish(self) -> LayerTree:
        """The tree, when all was fed."""
        if self._skip or (self._held and not self._ended):
            raise InvalidLayer("truncated tar")
        if self._extended is not None:
            raise InvalidLayer("truncated tar: an extended header without its entry")
        return self.tree

    def _take_entries(self, data: bytes, start: int) -> int:
        """Handle every entry whose header is complete in *data*; returns where the next one begins, possibly behind the end."""
        length = len(data)
        while start + BLOCK <= length:
            block = data[start : start + BLOCK]
            if block == _ZERO:
                self._ended = True
                return start + BLOCK
            header = parse_header(block)
            padded = (header.size + BLOCK - 1) // BLOCK * BLOCK
            if header.kind in _METADATA:
                if header.size > _MAXIMUM_METADATA:
                    raise InvalidLayer("extended header is too long", printable(header.name))
                if start + BLOCK + padded > length:
                    return start
                self._take_metadata(header.kind, data[start + BLOCK : start + BLOCK + header.size])
                start += BLOCK + padded
                continue
            used = self._take_entry(header, data, start)
            if used == 0:
                return start
            start += used
        return start

    def _take_metadata(self, kind: bytes, body: bytes) -> None:
        if kind == b"g":
            parse_pax(body, self._global)
            return
        if self._extended is None:
            self._extended = Extended(numbers=dict(self._global.numbers), mtime_ns=self._global.mtime_ns)
        if kind == b"L":
            self._extended.path = text(body)
        elif kind == b"K":
            self._extended.link = text(body)
        else:
            parse_pax(body, self._extended)

    def _take_entry(self, header: Header, data: bytes, start: int) -> int:
        """Add one entry; returns its length with header and padding, or 0 if more of it must be seen first."""
        extended = self._extended or self._global
        size = extended.numbers.get(b"size", header.size)
        body = start + BLOCK
        if header.kind == b"S":
            found = _gnu_sparse(data, start)
            if found is None:
                return 0
            body, pairs, real_size = found
        elif extended.sparse_version == (1, 0):
            listed = _pax_sparse_map(data, body, size)
            if listed is None:
                return 0
            pairs, map_bytes = listed
            real_size = extended.numbers.get(b"GNU.sparse.realsize", size)
        elif extended.sparse_map is not None:
            pairs = [int(n) for n in extended.sparse_map.split(b",") if n.isdigit()]
            real_size = extended.numbers.get(b"GNU.sparse.size", extended.numbers.get(b"GNU.sparse.realsize", size))
        else:
            self._add(header, extended, size, body - start, start)
            return self._end_of(header, size, body) - start
        offset = self._position + body + (map_bytes if extended.sparse_version == (1, 0) and header.kind != b"S" else 0)
        node = self._add(header, extended, real_size, body - start, start)
        if node is not None:
            node.extents = sparse_extents(pairs, offset, real_size)
        return self._end_of(header, size, body) - start

    @staticmethod
    def _end_of(header: Header, size: int, body: int) -> int:
        """Where an entry ends. Links, devices and directories carry no data, whatever their size field says."""
        if header.kind not in (b"0", b"\0", b"7", b"S") and header.kind in _TYPES:
            size = 0
        return body + (size + BLOCK - 1) // BLOCK * BLOCK

    def _add(self, header: Header, extended: Extended, size: int, header_bytes: int, start: int) -> Node | None:
        self._extended = None
        self.entries += 1
        if self.entries > self._limits.entries:
            raise LayerTooLarge(f"more than {self._limits.entries} entries")
        path = extended.path if extended.path is not None else header.name
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
            node.offset = self._position + start + header_bytes
        elif kind == stat.S_IFLNK:
            if not link:
                raise InvalidLayer("symbolic link without a target", printable(path))
            node.target = link
        self._insert(path, node)
        return node

    @staticmethod
    def _node(header: Header, extended: Extended, kind: int, path: bytes) -> Node:
        numbers = extended.numbers
        mtime = extended.mtime_ns if extended.mtime_ns is not None else header.mtime * 1_000_000_000
        uid, gid = numbers.get(b"uid", header.uid), numbers.get(b"gid", header.gid)
        if not (0 <= uid < 1 << 32 and 0 <= gid < 1 << 32):
            raise InvalidLayer("owner out of range", printable(path))
        node = Node(kind | (header.mode & 0o7777), uid, gid, mtime)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            if header.major >= 1 << 12 or header.minor >= 1 << 20 or header.major < 0 or header.minor < 0:
                raise InvalidLayer("device number out of range", printable(path))
            node.rdev = header.major << 20 | header.minor
        if extended.xattrs:
            # overlayfs would take its own marks from a layer's files for facts about the stack
            kept = {k: v for k, v in extended.xattrs.items() if not k.startswith(b"trusted.overlay.")}
            node.xattrs = kept or None
        return node

    def _add_hard_link(self, path: bytes, target: bytes) -> None:
        try:
            parts = self._checked_parts(target)
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
        elif node.is_directory:
            raise InvalidLayer("hard link to a directory", printable(path))
        self._insert(path, node)

    def _checked_parts(self, path: bytes) -> list[bytes]:
        parts = [p for p in path.split(b"/") if p and p != b"."]
        for part in parts:
            if part == b"..":
                raise InvalidLayer("'..' in a path", printable(path))
            if len(part) > _MAXIMUM_NAME:
                raise InvalidLayer(f"a name of more than {_MAXIMUM_NAME} bytes", printable(path))
            if b"\0" in part:
                raise InvalidLayer("NUL in a path", printable(path))
        return parts

    def _insert(self, path: bytes, node: Node) -> None:
        parts = self._checked_parts(path)
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
        if existing is not None and existing.children is not None:
            if node.is_directory or stat.S_ISDIR(node.mode):
                _update_directory(existing, node)
                return
            self._directories = {b"": self.tree.root}
        if stat.S_ISDIR(node.mode):
            node.children = {}
        elif existing is not None and existing.is_symlink:
            self._directories = {b"": self.tree.root}
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
        node = self.tree.root
        for part in parts:
            assert node.children is not None
            child = node.children.get(part)
            if child is None:
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


def _gnu_sparse(data: bytes, start: int) -> tuple[int, list[int], int] | None:
    """Old GNU sparse header and its extensions: where the data begins in *data*, offset/length pairs, real size."""
    block = data[start : start + BLOCK]
    pairs = _sparse_pairs(block[386:482])
    extended, body = block[482], start + BLOCK
    while extended:
        if body + BLOCK > len(data):
            return None
        more = data[body : body + BLOCK]
        pairs += _sparse_pairs(more[:504])
        extended = more[504]
        body += BLOCK
    return body, pairs, number(block[483:495])


def _sparse_pairs(raw: bytes) -> list[int]:
    pairs = []
    for position in range(0, len(raw), 24):
        if not raw[position]:
            break
        pairs += [number(raw[position : position + 12]), number(raw[position + 12 : position + 24])]
    return pairs


def _pax_sparse_map(data: bytes, body: int, size: int) -> tuple[list[int], int] | None:
    """The decimal map before the data of a pax 1.0 sparse file: offset/length pairs, and the map's length with its padding."""
    numbers: list[int] = []
    position = body
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        end = data.find(b"\n", position, min(len(data), body + size))
        if end < 0:
            if len(data) >= body + min(size, _MAXIMUM_METADATA):
                raise InvalidLayer("malformed sparse map")
            return None
        if not data[position:end].isdigit():
            raise InvalidLayer("malformed sparse map")
        numbers.append(int(data[position:end]))
        position = end + 1
    return numbers[1:], (position - body + BLOCK - 1) // BLOCK * BLOCK
