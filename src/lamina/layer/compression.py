"""The forms that a tar comes in: plain, gzip, zstd, xz, bzip2, told apart by their first bytes."""

from __future__ import annotations

import bz2
import io
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

from lamina.layer.errors import InvalidLayer

Format = Literal["none", "gzip", "zstd", "xz", "bzip2"]
READ_BYTES = 1 << 20
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)
_LONGEST_MAGIC = 6
_THREADS = 2

Read = Callable[[int], bytes]
"""Up to that many bytes, at least one unless the end is reached."""


def detect(head: bytes) -> Format:
    """The form that these first bytes announce."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


class Peeked:
    """A source whose first bytes were looked at."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._head = b""
        while len(self._head) < _LONGEST_MAGIC and (more := read(READ_BYTES)):
            self._head += more
        self.format = detect(self._head)

    def read(self, size: int) -> bytes:
        """Up to about *size* bytes."""
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._read(size)


def decompressor(format_: Format, read: Read) -> Read:
    """The plain bytes of a compressed source, through all its members or frames.

    The returned function raises InvalidLayer for bytes that are no such form.
    """
    if format_ == "none":
        return read
    source = io.BufferedReader(cast(io.RawIOBase, _Raw(read)), READ_BYTES)
    errors: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, lzma.LZMAError, *_errors(format_))
    stream = _open(format_, cast(BinaryIO, source))

    def read_plain(size: int) -> bytes:
        try:
            return stream.read(size)
        except errors as error:
            raise InvalidLayer(f"damaged {format_} data: {error}") from error

    return read_plain


def compress_file(source: Path, target: Path, format_: Literal["gzip", "zstd"], level: int | None = None) -> None:
    """Write a file's compressed form, the same for the same bytes, and sync it. Blocking.

    *level* is zlib's 1 to 9 or zstd's 1 to 22; by default each library's quick one that is still about as small as others make it.
    """
    with open(target, "xb", buffering=0) as file:
        for _ in compress(source, file, format_, level):
            pass
        os.fsync(file.fileno())


def compress(source: Path, file: BinaryIO, format_: Literal["gzip", "zstd"], level: int | None = None) -> Iterator[int]:
    """As ``compress_file``, into what has a ``write``; yields how much of the source is done after each block."""
    done = 0
    with open(source, "rb", buffering=0) as plain, _compressing(file, format_, level) as stream:
        while data := plain.read(READ_BYTES):
            stream.write(data)
            done += len(data)
            yield done


def _compressing(file: BinaryIO, format_: Literal["gzip", "zstd"], level: int | None) -> BinaryIO:
    if format_ == "zstd":
        import zstandard

        compressor = zstandard.ZstdCompressor(level=level or 3, threads=_THREADS)
        return cast(BinaryIO, compressor.stream_writer(file, closefd=False))
    if level is not None:
        import gzip

        return cast(BinaryIO, gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=level, mtime=0))
    from isal import igzip_threaded

    return cast(BinaryIO, igzip_threaded.open(file, "wb", compresslevel=2, threads=_THREADS, block_size=READ_BYTES))


def open_decompressed(fd: int) -> io.BufferedReader:
    """The plain bytes of what a descriptor holds, as a file object; the descriptor stays the caller's."""
    peeked = Peeked(lambda size: os.read(fd, size))
    return io.BufferedReader(cast(io.RawIOBase, _Raw(decompressor(peeked.format, peeked.read))), READ_BYTES)


def _open(format_: Format, source: BinaryIO) -> BinaryIO:
    if format_ == "gzip":
        from isal import igzip

        return cast(BinaryIO, igzip.IGzipFile(fileobj=source, mode="rb"))
    if format_ == "zstd":
        import zstandard

        return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True))
    if format_ == "xz":
        return cast(BinaryIO, lzma.LZMAFile(source))
    return cast(BinaryIO, bz2.BZ2File(source))


def _errors(format_: Format) -> tuple[type[Exception], ...]:
    if format_ == "gzip":
        from isal import isal_zlib

        return (cast(type[Exception], isal_zlib.error),)
    if format_ == "zstd":
        import zstandard

        return (zstandard.ZstdError,)
    return ()


class _Raw(io.RawIOBase):
    """A read function as a file object."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast(bytearray, buffer))
        if not self._rest:
            self._rest = memoryview(self._read(max(len(target), READ_BYTES)))
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
