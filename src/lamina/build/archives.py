"""ADD's archives: a tar in the source, plain or compressed, seen as the tree that it would extract to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from lamina.build.context import FileSource
from lamina.layer.compression import Read, decompressor, detect
from lamina.layer.errors import InvalidLayer
from lamina.layer.headers import BLOCK, parse_header
from lamina.layer.ingest import IngestedLayer, Limits, ingest
from lamina.layer.tarwriter import reader_of
from lamina.layer.tree import Node, load
from lamina.linux.pipes import feed
from lamina.linux.worker import run_in_worker

_READ_BYTES = 1 << 20


async def open_archive(source: FileSource, node: Node, directory: Path, limits: Limits) -> FileSource | None:
    """The tree in a regular file, whose tar is kept below *directory*; None if the file is no archive.

    Raises InvalidLayer for what begins as a tar and is none that may be extracted.
    """
    if node.extents is not None or not await asyncio.to_thread(_begins_a_tar, source, node):
        return None
    stem = directory / f"archive-{secrets.token_hex(6)}"
    tar, tree = stem.with_suffix(".tar"), stem.with_suffix(".tree")

    async def take(fd: int) -> IngestedLayer:
        return await run_in_worker(ingest, (fd,), fd, tar_path=tar, tree_path=tree, limits=limits)

    await feed(_stored_bytes(source, node), take)
    return FileSource(load(tree), [tar])


def _begins_a_tar(source: FileSource, node: Node) -> bool:
    """Whether the file's first plain bytes are a tar's header. Blocking."""
    with open(source.tars[node.layer], "rb", buffering=0) as file:
        stored = _bounded(reader_of(file.fileno(), node.offset), node.size)
        head = source.read(node, BLOCK)
        try:
            plain = decompressor(detect(head), stored)
            block = b""
            while len(block) < BLOCK and (more := plain(BLOCK - len(block))):
                block += more
            parse_header(block[:BLOCK].ljust(BLOCK, b"\0"))
        except InvalidLayer:
            return False
    return any(block)


def _bounded(read: Read, size: int) -> Read:
    """A source that ends after *size* bytes."""
    left = size

    def bounded(wanted: int) -> bytes:
        nonlocal left
        data = read(min(wanted, left))
        left -= len(data)
        return data

    return bounded


async def _stored_bytes(source: FileSource, node: Node) -> AsyncIterator[bytes]:
    """A regular file's bytes as they lie in its tar, in pieces."""
    with open(source.tars[node.layer], "rb") as file:  # noqa: ASYNC230 - a local file, read in pieces
        read = _bounded(reader_of(file.fileno(), node.offset), node.size)
        while data := read(_READ_BYTES):
            yield data
