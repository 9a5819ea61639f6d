"""EROFS: a merged tree written as a file system of metadata alone, whose file contents lie in the layers' tars.

Block size 512, a tar's own. Device slot *n* is layer *n*'s tar; ``uniaddr`` places the tars one after another behind the index, so that
a file with a single run of bytes is *flat*: one block number in its inode. Sparse files are *chunk based*, with holes; what of them does
not begin at a tar's block is copied behind the index. Form and limits are those of the kernel's fs/erofs/erofs_fs.h; the facts that
this rests on are in docs/decisions/erofs.md.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lamina.layer.sparse import CHUNK_ENTRY_BYTES, COPY, HOLE, Chunks, choose_chunks
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
_HOLE_ENTRY = _CHUNK.pack(0, 0, _NO_BLOCK)
_PIECE_ENTRIES = 8192
_FLUSH_BYTES = 1 << 20
_ACL_HEADER, _ACL_VERSION = 4, 2
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_TAGS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20)

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


def write_image(tree: MergedTree, output_path: Path, *, tars: Sequence[Path], uuid: bytes) -> None:
    """Write the index of a merged tree. *tars* are its layers, in the order of the devices at the mount.

    The same tree gives the same bytes. Memory is bounded by the tree's, however large its files are. Blocking; not synced.
    """
    image = _Image([tar.stat().st_size for tar in tars])
    image.place(tree.root)
    with open(output_path, "wb") as file:
        image.write(file, uuid)
        image.write_copies(file, tars)


class _Inode:
    """A node's place: its number (offset / 32) and what must be known before the bytes can be written."""

    __slots__ = (
        "chunks",
        "copy_block",
        "data_block",
        "head",
        "is_compact",
        "layout",
        "links",
        "nid",
        "node",
        "parent",
        "size",
        "tail",
        "xattrs",
    )

    def __init__(self, node: Node, parent: _Inode | None) -> None:
        self.node = node
        self.parent = parent if parent is not None else self
        self.links = 0
        self.is_compact = False
        self.nid = 0
        self.layout = _FLAT_PLAIN
        self.head = 0
        self.xattrs = b""
        self.size = 0
        self.tail = 0
        self.data_block = 0
        self.chunks: Chunks | None = None
        self.copy_block = 0


class _Image:
    """Two passes: place everything (sizes are known before contents), then write it in the order of its places."""

    def __init__(self, layer_sizes: Sequence[int]) -> None:
        self._layer_blocks = [(size + BLOCK - 1) // BLOCK for size in layer_sizes]
        self._whole_ends = [size // BLOCK * BLOCK for size in layer_sizes]
        slots_end = _SUPER_OFFSET + 128 + _SLOT_BYTES * len(self._layer_blocks)
        self._position = (slots_end + 31) // 32 * 32
        self._inodes: list[_Inode] = []
        self._of_node: dict[int, _Inode] = {}
        self._entries: dict[int, list[tuple[bytes, _Inode]]] = {}

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
        self._blocks = -(-self._position // BLOCK)
        for inode in self._inodes:
            self._place_contents(inode)
        for inode in self._inodes:
            if inode.chunks is not None:
                inode.copy_block = self._blocks
                self._blocks += (len(inode.chunks.copied) << inode.chunks.bits) // BLOCK
        self._starts = self._device_starts(self._blocks)

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
        inode.xattrs = _encode_xattrs(node)
        size = _directory_size(self._entries[id(inode)]) if node.children is not None else len(node.target)
        inode.size = size or node.size
        inode.is_compact = _fits_compact(inode)
        base = (_COMPACT.size if inode.is_compact else _LONG.size) + len(inode.xattrs)
        inline = 0
        inode.chunks = self._chunks(node) if node.is_regular and node.size else None
        if inode.chunks is not None:
            inode.layout = _CHUNK_BASED
            base = (base + 7) // 8 * 8
            inline = CHUNK_ENTRY_BYTES * inode.chunks.count
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

    def _chunks(self, node: Node) -> Chunks | None:
        """How a file is shown that is no single run of a tar's whole blocks."""
        whole_end = self._whole_ends[node.layer]
        if node.extents is None and node.offset + node.size <= whole_end:
            return None
        extents = node.extents if node.extents is not None else ((0, node.size, node.offset),)
        return choose_chunks(node.size, extents, whole_end)

    def _place_contents(self, inode: _Inode) -> None:
        """Give what a directory or link has outside its inode its blocks."""
        if inode.node.children is None and not inode.node.is_symlink:
            return
        outside = inode.size - _inline_bytes(inode)
        inode.data_block = self._blocks if outside else (_NO_BLOCK if inode.layout == _FLAT_INLINE else 0)
        self._blocks += -(-outside // BLOCK)

    def write(self, file: BinaryIO, uuid: bytes) -> None:
        """Write everything but the copies."""
        output = _Output(file)
        output.put(_SUPER_OFFSET, self._super(uuid))
        for number, inode in enumerate(self._inodes):
            at = inode.nid * 32
            output.put(at, self._encode_inode(inode, number + 1))
            if inode.chunks is not None:
                for piece in self._chunk_table(inode, inode.chunks):
                    output.put(at + inode.head, piece)
                    at += len(piece)
            elif inode.layout == _FLAT_INLINE:
                output.put(at + inode.head, self._contents(inode)[-inode.tail :])
        for inode in self._inodes:
            inline = _inline_bytes(inode)
            if inode.data_block != _NO_BLOCK and inode.data_block:
                output.put(inode.data_block * BLOCK, self._contents(inode)[: inode.size - inline])
        output.finish(self._blocks * BLOCK)

    def write_copies(self, file: BinaryIO, tars: Sequence[Path]) -> None:
        """Write the chunks of sparse files that the tars cannot show as they lie."""
        for inode in self._inodes:
            if inode.chunks is None or not inode.chunks.copied:
                continue
            with open(tars[inode.node.layer], "rb") as tar:
                for place, length, position in inode.chunks.copies():
                    at = inode.copy_block * BLOCK + place
                    while length:
                        count = os.copy_file_range(tar.fileno(), file.fileno(), length, position, at)
                        if count == 0:
                            raise EOFError("a layer's tar is shorter than its tree says")
                        at, position, length = at + count, position + count, length - count

    def _contents(self, inode: _Inode) -> bytes:
        return self._directory(inode) if inode.node.children is not None else inode.node.target

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

    def _encode_inode(self, inode: _Inode, number: int) -> bytes:
        """An inode and its extended attributes."""
        node = inode.node
        union = self._union(inode)
        xattr_count = (len(inode.xattrs) - 12) // 4 + 1 if inode.xattrs else 0
        seconds, nanoseconds = divmod(node.shown_mtime_ns, 1_000_000_000)
        if inode.is_compact:
            head = _COMPACT.pack(
                inode.layout, xattr_count, node.mode, inode.links, inode.size, seconds, union, number, node.uid, node.gid, 0
            )  # fmt: skip
        else:
            head = _LONG.pack(
                inode.layout | _EXTENDED, xattr_count, node.mode, 0, inode.size, union, number, node.uid, node.gid,
                seconds, nanoseconds, inode.links,
            )  # fmt: skip
        return head + inode.xattrs

    def _chunk_table(self, inode: _Inode, chunks: Chunks) -> Iterator[bytes]:
        """A sparse file's chunks, in pieces: device 0 is the index itself, where the copies lie."""
        step = (1 << chunks.bits) // BLOCK
        copy_block = inode.copy_block
        for count, where in chunks.runs():
            if where == HOLE:
                for done in range(0, count, _PIECE_ENTRIES):
                    yield _HOLE_ENTRY * min(_PIECE_ENTRIES, count - done)
                continue
            device, first = (0, copy_block) if where == COPY else (inode.node.layer + 1, where // BLOCK)
            copy_block += step * count if where == COPY else 0
            for done in range(0, count, _PIECE_ENTRIES):
                blocks = range(first + done * step, first + min(done + _PIECE_ENTRIES, count) * step, step)
                yield b"".join([_CHUNK.pack(block >> 32, device, block & 0xFFFFFFFF) for block in blocks])

    def _union(self, inode: _Inode) -> int:
        node = inode.node
        if inode.chunks is not None:
            return _CHUNK_INDEXES | (inode.chunks.bits - 9)
        if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            major, minor = node.rdev >> 20, node.rdev & 0xFFFFF
            return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
        if node.is_regular:
            return self._starts[node.layer] + node.offset // BLOCK if node.size else 0
        return inode.data_block

    def _super(self, uuid: bytes) -> bytes:
        """The superblock and the device slots behind it."""
        chunked = any(inode.chunks is not None for inode in self._inodes)
        incompatible = _INCOMPAT_DEVICES | (_INCOMPAT_CHUNKED if chunked else 0)
        result = _SUPER.pack(
            _MAGIC, 0, _COMPAT_MTIME, 9, 0, self._inodes[0].nid, len(self._inodes), 0, 0, self._blocks, 0, 0,
            uuid, bytes(16), incompatible, 0, len(self._layer_blocks), _SLOTS_AT, 0, 0, 0,
        ).ljust(_SLOT_BYTES, b"\0")  # fmt: skip
        for index, (length, start) in enumerate(zip(self._layer_blocks, self._starts, strict=True)):
            low, high = length & 0xFFFFFFFF, length >> 32
            result += _SLOT.pack(b"layer %d" % index, low, start & 0xFFFFFFFF, high, start >> 32)
        return result


class _Output:
    """A file that is written from its beginning to its end, with gaps of zeros between what is put."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = bytearray()
        self._flushed = 0

    def put(self, position: int, data: bytes) -> None:
        """Write at a position behind all that was written."""
        self._buffer += bytes(position - self._flushed - len(self._buffer))
        self._buffer += data
        if len(self._buffer) >= _FLUSH_BYTES:
            self._flush()

    def finish(self, size: int) -> None:
        """End the file at *size*, with a hole where nothing was put."""
        self._flush()
        self._file.truncate(size)

    def _flush(self) -> None:
        self._file.write(self._buffer)
        self._file.flush()
        self._flushed += len(self._buffer)
        self._buffer.clear()


def _inline_bytes(inode: _Inode) -> int:
    return inode.tail if inode.layout == _FLAT_INLINE else 0


def _fits_compact(inode: _Inode) -> bool:
    node = inode.node
    seconds, nanoseconds = divmod(node.shown_mtime_ns, 1_000_000_000)
    return (
        nanoseconds == 0
        and seconds < 1 << 32
        and node.uid < 1 << 16
        and node.gid < 1 << 16
        and inode.size < 1 << 32
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


def _encode_xattrs(node: Node) -> bytes:
    """Extended attributes as they stand behind an inode; those that EROFS cannot hold, or that Linux would not show, are left out."""
    result = bytearray()
    for name, value in sorted((node.xattrs or {}).items()):
        index, rest = _xattr_index(name)
        if index and _is_shown(node, name, value):
            entry = struct.pack("<BBH", len(rest), index, len(value)) + rest + value
            result += entry + bytes(-len(entry) % 4)
    return bytes(12) + bytes(result) if result else b""


def _is_shown(node: Node, name: bytes, value: bytes) -> bool:
    """xattr(7): user attributes are for files and directories; an ACL that the kernel cannot parse makes listing fail."""
    if name.startswith(b"user."):
        return node.is_regular or node.children is not None
    if name in _XATTR_WHOLE:
        return not node.is_symlink and _is_acl(value)
    return True


def _is_acl(value: bytes) -> bool:
    """Whether the kernel can parse an access control list (posix_acl_xattr.h)."""
    if len(value) < _ACL_HEADER or (len(value) - _ACL_HEADER) % _ACL_ENTRY.size:
        return False
    entries = _ACL_ENTRY.iter_unpack(value[_ACL_HEADER:])
    return int.from_bytes(value[:_ACL_HEADER], "little") == _ACL_VERSION and all(
        tag in _ACL_TAGS for tag, _, _ in entries
    )


def _xattr_index(name: bytes) -> tuple[int, bytes]:
    if name in _XATTR_WHOLE:
        return _XATTR_WHOLE[name], b""
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    return 0, b""
