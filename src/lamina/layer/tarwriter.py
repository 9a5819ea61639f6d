"""Writing a layer's tar: the same tree gives the same bytes (POSIX pax where ustar has no room, no times of ours, no names of owners).

While it writes, the writer hashes and scans what it wrote, so that a finished layer need not be read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from lamina.layer.headers import BLOCK
from lamina.layer.ingest import IngestedLayer, PipelinedSink
from lamina.layer.scan import Limits, Scanner
from lamina.layer.tree import Node, save

_COPY_BYTES = 1 << 20
_USTAR_MAGIC = b"ustar\x0000"
_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_OCTAL_12 = 8**11
_OCTAL_8 = 8**7

Read = Callable[[int], bytes]


class SourceChanged(Exception):
    """A file became shorter while it was copied into a layer."""


class TarStream:
    """A tar that is given to *write* piece by piece; ``end`` is its end. Blocking.

    With *clamp_ns*, no modification time is later than that (SOURCE_DATE_EPOCH's rule).
    """

    def __init__(self, write: Callable[[bytes], object], *, clamp_ns: int | None = None) -> None:
        self._give = write
        self._clamp_ns = clamp_ns
        self._pieces: list[bytes] = []
        self._held = 0
        self.is_empty = True

    def add(self, path: bytes, node: Node, read: Read | None = None) -> None:
        """Write one file of any kind; *read* gives the bytes of a regular one, up to so many at a time.

        Raises SourceChanged if they are fewer than ``node.size``.
        """
        kind = _KINDS[stat.S_IFMT(node.mode)]
        name = path.rstrip(b"/") + b"/" if node.children is not None or kind == b"5" else path
        size = node.size if kind == b"0" else 0
        self._header(name, node, kind, node.target, size)
        if size:
            assert read is not None
            self._copy(path, read, size)

    def add_hard_link(self, path: bytes, node: Node, target: bytes) -> None:
        """Write a further name of a file that was written as *target*."""
        self._header(path, node, b"1", target, 0)

    def add_whiteout(self, directory: bytes, name: bytes) -> None:
        """Say that *name* of lower layers is gone from *directory*."""
        self.add(_join(directory, b".wh." + name), Node(stat.S_IFREG))

    def add_opaque(self, directory: bytes) -> None:
        """Say that nothing of lower layers is left in *directory*."""
        self.add_whiteout(directory, b".wh..opq")

    def end(self) -> None:
        """Write the tar's end and all that was held back."""
        self._write(bytes(2 * BLOCK))
        self._flush()

    def _copy(self, path: bytes, read: Read, size: int) -> None:
        left = size
        while left:
            data = read(min(left, _COPY_BYTES))
            if not data:
                raise SourceChanged(f"{os.fsdecode(path)} became shorter while it was read")
            self._write(data)
            left -= len(data)
        self._write(bytes(-size % BLOCK))

    def _header(self, name: bytes, node: Node, kind: bytes, link: bytes, size: int) -> None:
        self.is_empty = False
        mtime_ns = node.mtime_ns if self._clamp_ns is None else min(node.mtime_ns, self._clamp_ns)
        records = _pax_records(name, node, kind, link, size, mtime_ns)
        if records:
            body = b"".join(_record(key, records[key]) for key in sorted(records))
            header = _ustar(b"PaxHeaders/" + name[-80:].lstrip(b"/"), 0o644, 0, 0, len(body), 0, b"x", b"", 0)
            self._write(header + body + bytes(-len(body) % BLOCK))
        seconds = mtime_ns // 1_000_000_000
        mode = node.mode & 0o7777
        self._write(_ustar(name, mode, node.uid, node.gid, size, seconds, kind, link, node.rdev))

    def _write(self, data: bytes) -> None:
        # headers and small files together: each hand-over has its price
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= _COPY_BYTES:
            self._flush()

    def _flush(self) -> None:
        block = b"".join(self._pieces)
        self._pieces, self._held = [], 0
        self._give(block)


class TarWriter(TarStream):
    """A layer being written to *tar_path*, hashed and scanned on the way; ``finish`` closes it. Blocking."""

    def __init__(self, tar_path: Path, *, clamp_ns: int | None = None, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        super().__init__(self._take, clamp_ns=clamp_ns)
        self._sink = PipelinedSink(tar_path)
        self._scanner = Scanner(limits)

    def finish(self, tree_path: Path) -> IngestedLayer:
        """End the tar, sync it, and save its tree."""
        self.end()
        tree = self._scanner.finish()
        self._sink.finish()
        save(tree, tree_path)
        digest, size = self._sink.digest, self._sink.size
        return IngestedLayer(digest, size, self._scanner.entries, digest, size, "none")

    def discard(self) -> None:
        """Close without finishing; the file is the caller's to remove."""
        self._sink.discard()

    def _take(self, block: bytes) -> None:
        self._sink.take(block)
        self._scanner.feed(block)


def reader_of(fd: int, offset: int = 0) -> Read:
    """Read a descriptor from *offset* on, without moving its own position."""
    position = offset

    def read(size: int) -> bytes:
        nonlocal position
        data = os.pread(fd, size, position)
        position += len(data)
        return data

    return read


def _pax_records(name: bytes, node: Node, kind: bytes, link: bytes, size: int, mtime_ns: int) -> dict[bytes, bytes]:
    """What the ustar header cannot say."""
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
    if size >= _OCTAL_12:
        records[b"size"] = b"%d" % size
    if node.uid >= _OCTAL_8:
        records[b"uid"] = b"%d" % node.uid
    if node.gid >= _OCTAL_8:
        records[b"gid"] = b"%d" % node.gid
    seconds, nanoseconds = divmod(mtime_ns, 1_000_000_000)
    if nanoseconds or not 0 <= seconds < _OCTAL_12:
        records[b"mtime"] = _decimal_time(mtime_ns)
    if kind != b"1":
        for key, value in (node.xattrs or {}).items():
            records[b"SCHILY.xattr." + key] = value
    return records


def _decimal_time(mtime_ns: int) -> bytes:
    seconds, nanoseconds = divmod(abs(mtime_ns), 1_000_000_000)
    text = b"%d.%09d" % (seconds, nanoseconds)
    return (b"-" if mtime_ns < 0 else b"") + text.rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(
    name: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, kind: bytes, link: bytes, rdev: int
) -> bytes:
    def octal(value: int, width: int) -> bytes:
        return b"%0*o\0" % (width - 1, value if 0 <= value < 1 << 3 * (width - 1) else 0)

    block = bytearray(BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108] = octal(mode, 8)
    block[108:116] = octal(uid, 8)
    block[116:124] = octal(gid, 8)
    block[124:136] = octal(size, 12)
    block[136:148] = octal(seconds, 12)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = _USTAR_MAGIC
    block[329:337] = octal(rdev >> 20, 8)
    block[337:345] = octal(rdev & 0xFFFFF, 8)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def write_layer(
    tar_path: Path,
    tree_path: Path,
    add_all: Callable[[TarWriter], None],
    *,
    clamp_ns: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> IngestedLayer | None:
    """Write the layer of what *add_all* adds; None if that is nothing. No file is left then, nor if it raises.

    Blocking. Raises LayerTooLarge for one that goes beyond the *limits*.
    """
    writer = TarWriter(tar_path, clamp_ns=clamp_ns, limits=limits)
    try:
        add_all(writer)
        if writer.is_empty:
            writer.discard()
            tar_path.unlink()
            return None
        return writer.finish(tree_path)
    except BaseException:
        writer.discard()
        tar_path.unlink(missing_ok=True)
        tree_path.unlink(missing_ok=True)
        raise
