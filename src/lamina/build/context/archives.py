"""ADD's archives: a tar in the source, plain or compressed, seen as the tree that it would extract to."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from lamina.build.context.source import Contents, FileSource, TarContents
from lamina.layer.compression import READ_BYTES, Peeked, Read, decompressor
from lamina.layer.errors import InvalidLayer
from lamina.layer.headers import BLOCK, parse_header
from lamina.layer.scan import Limits, Scanner
from lamina.layer.tree import Node, load, save
from lamina.linux.worker import run_in_worker


async def open_archive(
    source: FileSource, path: bytes, node: Node, directory: Path, limits: Limits
) -> FileSource | None:
    """The tree in a regular file, whose tar is kept below *directory*; None if the file is no archive.

    Raises InvalidLayer for what begins as a tar and is none that may be extracted.
    """
    pieces = source.contents.pieces(path, node)
    if not await asyncio.to_thread(_begins_a_tar, pieces):
        return None
    stem = directory / f"archive-{secrets.token_hex(6)}"
    tar, tree = stem.with_suffix(".tar"), stem.with_suffix(".tree")
    await run_in_worker(take_archive, (), source.contents, path, node, tar, tree, limits)
    return FileSource(load(tree), TarContents((tar,)), place=os.fsdecode(path))


def take_archive(contents: Contents, path: bytes, node: Node, tar_path: Path, tree_path: Path, limits: Limits) -> None:
    """Write an archive's plain tar and its tree. Blocking."""
    read = _reader(contents.pieces(path, node))
    peeked = Peeked(read)
    plain = decompressor(peeked.format, peeked.read)
    scanner = Scanner(limits)
    with open(tar_path, "wb") as tar:
        while data := plain(READ_BYTES):
            tar.write(data)
            scanner.feed(data)
    save(scanner.finish(), tree_path)


def _begins_a_tar(pieces: Iterator[bytes]) -> bool:
    """Whether the file's first plain bytes are a tar's header. Blocking."""
    try:
        peeked = Peeked(_reader(pieces))
        plain = decompressor(peeked.format, peeked.read)
        block = b""
        while len(block) < BLOCK and (more := plain(BLOCK - len(block))):
            block += more
        parse_header(block[:BLOCK].ljust(BLOCK, b"\0"))
    except InvalidLayer:
        return False
    return any(block)


def _reader(pieces: Iterator[bytes]) -> Read:
    """Pieces as a function that reads."""
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or next(pieces, b"")
        data, rest = rest[:size], rest[size:]
        return data

    return read
