"""EROFS: a merged tree written as a file system of metadata alone, whose file contents lie in the layers' tars.

Block size 512, a tar's own. Device slot *n* is layer *n*'s tar; ``uniaddr`` places the tars one after another behind the index, so that
a file with a single run of bytes is *flat*: one block number in its inode. Sparse files are *chunk based*, with holes. Form and limits
are those of the kernel's fs/erofs/erofs_fs.h; the facts that this rests on are in docs/decisions/erofs.md.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence
from pathlib import Path

from lamina.layer.tree import MergedTree, Node

BLOCK = 512
_MAGIC = 0xE0F5E1E2
_SUPER_OFFSET = 1024
_SLOT_BYTES = 128
_SLOTS_AT = 9
_COMPAT_MTIME = 2
_INCOMPAT_CHUNKED = 0x4
_INCOMPAT_DEVICES = 0x8
_FLAT_PLAIN, _FLAT_INLINE, _CHUNK_BASED = 0 << 1, 2 << 1, 4 << 1
_EXTENDED = 1
_NO_BLOCK = 0xFFFFFFFF
_CHUNK_INDEXES = 0x20

_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBQ")
_COMPACT = struct.Struct("<HHHHIIIIHHI")
_LONG = struct.Struct("<HHHHQIIIIQII16x")
_DIRENT = struct.Struct("<QHBB")
_CHUNK = struct.Struct("<HHI")
_SLOT = struct.Struct("<64sIIHH52x")

_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_XATTR_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_XATTR_WHOLE = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}


def write_image(tree: MergedTree, output_path: Path, *, layer_sizes: Sequence[int], uuid: bytes) -> None:
    """Write the index of a merged tree. *layer_sizes* are the tars' lengths in bytes, in the order of the devices at the mount.

    The same tree gives the same bytes. Blocking; not synced.
    """
    image = _Image(layer_sizes)
    image.place(tree.root)
    with open(output_path, "wb") as file:
        file.write(image.encode(uuid))


class _Inode:
    """A node's place: its number (offset / 32) and what must be known before the bytes can be written."""

    __slots__ = ("data_block", "head", "layout", "links", "nid", "node", "parent", "tail", "xattrs")

    def __init__(self, node: Node, parent: _Inode | None) -> None:
        self.node = node
        self.parent = parent if parent is not None else self
        self.links = 0
        self.nid = 0
        self.layout = _FLAT_PLAIN
        self.head = 0
        self.xattrs = b""
        self.tail = 0
        self.data_block = 0


class _Image:
    """Two passes: place every inode (sizes are known before contents), then encode."""

    def __init__(self, layer_sizes: Sequence[int]) -> None:
        self._layer_blocks = [(size + BLOCK - 1) // BLOCK for size in layer_sizes]
        slots_end = _SUPER_OFFSET + 128 + _SLOT_BYTES * len(self._layer_blocks)
        self._position = (slots_end + 31) // 32 * 32
        self._inodes: list[_Inode] = []
        self._of_node: dict[int, _Inode] = {}
        self._entries: dict[int, list[tuple[bytes, _Inode]]] = {}
        self._chunked = False

    def place(self, root: Node) -> None:
        """Give every node its place, the root first (its number must fit 16 bits), breadth by breadth."""
        start = self._inode(root, None)
        start.links += 1
        queue = [start]
        for directory in queue:
            children = directory.node.children or {}
            entries = [(name, self._inode(child, directory)) for name, child in children.items()]
            self._entries[id(directory)] = entries
            for _, child in entries:
                child.links += 1
                if child.node.children is not None:
                    directory.links += 1
                    child.links += 1
                    queue.append(child)
        start.links += 1
        for inode in self._inodes:
            self._layout(inode)

    def _inode(self, node: Node, parent: _Inode | None) -> _Inode:
        known = self._of_node.get(id(node))
        if known is not None:
            return known
        inode = _Inode(node, parent)
        self._of_node[id(node)] = inode
        self._inodes.append(inode)
        return inode

    def _layout(self, inode: _Inode) -> None:
        """Choose form and place of one inode; a tail behind it may not cross a block's end."""
        node = inode.node
        inode.xattrs = _encode_xattrs(node.xattrs)
        size = _directory_size(self._entries[id(inode)]) if node.children is not None else len(node.target)
        base = (_COMPACT.size if _fits_compact(inode, size or node.size) else _LONG.size) + len(inode.xattrs)
        inline = 0
        if node.is_regular and node.extents is not None and node.size:
            inode.layout = _CHUNK_BASED
            self._chunked = True
            base = (base + 7) // 8 * 8
            inline = _CHUNK.size * len(_chunks(node)[1])
        elif size:
            inode.tail = size % BLOCK
            fits = inode.tail and base + inode.tail <= BLOCK and (node.children is not None or size == inode.tail)
            if fits:
                inode.layout = _FLAT_INLINE
                inline = inode.tail
        inode.head = base
        if inode.layout == _FLAT_INLINE:
            start = self._position + base
            if start // BLOCK != (start + inline - 1) // BLOCK:
                self._position = (self._position + BLOCK - 1) // BLOCK * BLOCK
        inode.nid = self._position // 32
        self._position = (self._position + base + inline + 31) // 32 * 32

    def encode(self, uuid: bytes) -> bytes:
        """The whole file."""
        position = (self._position + BLOCK - 1) // BLOCK * BLOCK
        contents: list[tuple[_Inode, bytes]] = []
        for inode in self._inodes:
            node = inode.node
            if node.children is None and not node.is_symlink:
                continue
            data = self._directory(inode) if node.children is not None else node.target
            contents.append((inode, data))
            outside = len(data) - (inode.tail if inode.layout == _FLAT_INLINE else 0)
            inode.data_block = position // BLOCK if outside else (_NO_BLOCK if inode.layout == _FLAT_INLINE else 0)
            position += (outside + BLOCK - 1) // BLOCK * BLOCK
        blocks = position // BLOCK
        buffer = bytearray(position)
        starts = self._device_starts(blocks)
        sizes = {id(inode): len(data) for inode, data in contents}
        for number, inode in enumerate(self._inodes):
            self._write_inode(buffer, inode, number + 1, sizes.get(id(inode), inode.node.size), starts)
        for inode, data in contents:
            _write_contents(buffer, inode, data)
        self._write_super(buffer, uuid, blocks, starts)
        return bytes(buffer)

    def _device_starts(self, blocks: int) -> list[int]:
        """Where each tar begins in the unified address space."""
        starts = []
        for length in self._layer_blocks:
            starts.append(blocks)
            blocks += length
        return starts

    def _directory(self, inode: _Inode) -> bytes:
        """A directory's blocks: dirents, then names, sorted over the whole directory with ``.`` and ``..``."""
        entries = self._entries[id(inode)]
        listed = [(b".", inode.nid, 2), (b"..", inode.parent.nid, 2)]
        listed += [(name, child.nid, _FILE_TYPES[stat.S_IFMT(child.node.mode)]) for name, child in entries]
        listed.sort()
        result = bytearray()
        for group in _dirent_blocks([name for name, _, _ in listed]):
            name_at = _DIRENT.size * len(group)
            heads, names = [], []
            for name, nid, kind in listed[group.start : group.stop]:
                heads.append(_DIRENT.pack(nid, name_at, kind, 0))
                names.append(name)
                name_at += len(name)
            block = b"".join(heads) + b"".join(names)
            result += block if group.stop == len(listed) else block.ljust(BLOCK, b"\0")
        return bytes(result)

    def _write_inode(self, buffer: bytearray, inode: _Inode, number: int, size: int, starts: list[int]) -> None:
        node = inode.node
        at = inode.nid * 32
        union = self._union(inode, starts)
        xattr_count = (len(inode.xattrs) - 12) // 4 + 1 if inode.xattrs else 0
        compact = _fits_compact(inode, size)
        if compact:
            _COMPACT.pack_into(
                buffer, at, inode.layout, xattr_count, node.mode, inode.links, size, node.mtime_ns // 1_000_000_000,
                union, number, node.uid, node.gid, 0,
            )  # fmt: skip
        else:
            seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
            _LONG.pack_into(
                buffer, at, inode.layout | _EXTENDED, xattr_count, node.mode, 0, size, union, number, node.uid, node.gid,
                seconds & 0xFFFFFFFFFFFFFFFF, nanoseconds, inode.links,
            )  # fmt: skip
        head = _COMPACT.size if compact else _LONG.size
        buffer[at + head : at + head + len(inode.xattrs)] = inode.xattrs
        if inode.layout == _CHUNK_BASED:
            for index, block in enumerate(_chunks(node)[1]):
                high, low = (0, _NO_BLOCK) if block is None else (block >> 32, block & 0xFFFFFFFF)
                device = 0 if block is None else node.layer + 1
                _CHUNK.pack_into(buffer, at + inode.head + index * _CHUNK.size, high, device, low)

    def _union(self, inode: _Inode, starts: list[int]) -> int:
        node = inode.node
        if inode.layout == _CHUNK_BASED:
            return _CHUNK_INDEXES | (_chunks(node)[0] - 9)
        if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            major, minor = node.rdev >> 20, node.rdev & 0xFFFFF
            return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
        if node.is_regular:
            return starts[node.layer] + node.offset // BLOCK if node.size else 0
        return inode.data_block

    def _write_super(self, buffer: bytearray, uuid: bytes, blocks: int, starts: list[int]) -> None:
        incompatible = _INCOMPAT_DEVICES | (_INCOMPAT_CHUNKED if self._chunked else 0)
        _SUPER.pack_into(
            buffer, _SUPER_OFFSET, _MAGIC, 0, _COMPAT_MTIME, 9, 0, self._inodes[0].nid, len(self._inodes), 0, 0, blocks, 0, 0,
            uuid, bytes(16), incompatible, 0, len(self._layer_blocks), _SLOTS_AT, 0, 0, 0,
        )  # fmt: skip
        for index, (length, start) in enumerate(zip(self._layer_blocks, starts, strict=True)):
            at = _SUPER_OFFSET + 128 + index * _SLOT_BYTES
            low, high = length & 0xFFFFFFFF, length >> 32
            _SLOT.pack_into(buffer, at, b"layer %d" % index, low, start & 0xFFFFFFFF, high, start >> 32)


def _fits_compact(inode: _Inode, size: int) -> bool:
    node = inode.node
    seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
    return (
        nanoseconds == 0
        and 0 <= seconds < 1 << 32
        and node.uid < 1 << 16
        and node.gid < 1 << 16
        and size < 1 << 32
        and inode.links < 1 << 16
    )


def _dirent_blocks(names: list[bytes]) -> list[range]:
    """Which names share a block: as many as fit, in order."""
    groups = []
    start, used = 0, 0
    for index, name in enumerate(names):
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            groups.append(range(start, index))
            start, used = index, 0
        used += need
    groups.append(range(start, len(names)))
    return groups


def _directory_size(entries: list[tuple[bytes, _Inode]]) -> int:
    names = sorted([b".", b"..", *(name for name, _ in entries)])
    groups = _dirent_blocks(names)
    last = sum(_DIRENT.size + len(names[i]) for i in groups[-1])
    return (len(groups) - 1) * BLOCK + last


def _write_contents(buffer: bytearray, inode: _Inode, data: bytes) -> None:
    tail = inode.tail if inode.layout == _FLAT_INLINE else 0
    outside = data[: len(data) - tail]
    if outside:
        at = inode.data_block * BLOCK
        buffer[at : at + len(outside)] = outside
    if tail:
        at = inode.nid * 32 + inode.head
        buffer[at : at + tail] = data[-tail:]


def _chunks(node: Node) -> tuple[int, list[int | None]]:
    """A sparse file's chunk size as a power of two, and for each chunk its block in the tar, or None for a hole.

    The largest chunk that every extent's bounds allow; the last extent may end inside its chunk at the file's end.
    """
    bits = max(9, (node.size - 1).bit_length())
    for offset, length, _ in node.extents or ():
        bits = min(bits, _alignment(offset))
        if offset + length < node.size:
            bits = min(bits, _alignment(offset + length))
    bits = max(9, min(bits, 9 + 31))
    chunks: list[int | None] = [None] * -(-node.size // (1 << bits))
    for offset, length, position in node.extents or ():
        for index in range(offset >> bits, -(-(offset + length) // (1 << bits))):
            chunks[index] = (position - offset + (index << bits)) // BLOCK
    return bits, chunks


def _alignment(offset: int) -> int:
    return (offset & -offset).bit_length() - 1 if offset else 63


def _encode_xattrs(xattrs: dict[bytes, bytes] | None) -> bytes:
    """Extended attributes as they stand behind an inode; names of a kind that EROFS cannot hold are left out."""
    if not xattrs:
        return b""
    result = bytearray()
    for name in sorted(xattrs):
        index, rest = _xattr_index(name)
        value = xattrs[name]
        if index and len(rest) < 256 and len(value) < 1 << 16:
            entry = struct.pack("<BBH", len(rest), index, len(value)) + rest + value
            result += entry + bytes(-len(entry) % 4)
    return bytes(12) + bytes(result) if result else b""


def _xattr_index(name: bytes) -> tuple[int, bytes]:
    if name in _XATTR_WHOLE:
        return _XATTR_WHOLE[name], b""
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    return 0, b""
