"""A stack of layers as one: all of them as a plain tar of the root that they make, or the upper ones as a single layer.

It is written from the layers' trees and tars; nothing is mounted and nothing unpacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from lamina.build.context.source import TarContents
from lamina.image.intake import LayerIntake
from lamina.layer.ingest import IngestedLayer
from lamina.layer.merge import apply_layer, copy_of_directories, difference, merge
from lamina.layer.tarwriter import Read, TarWriter, write_layer
from lamina.layer.tree import FileTree, load
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import DiffID

_READ_BYTES = 1 << 20


async def root_tar(diff_ids: Sequence[DiffID], intake: LayerIntake) -> AsyncIterator[bytes]:
    """The tar of what a stack of layers shows. Raises BlobNotFound before the first byte if a layer is missing.

    It is written whole before its first byte is given, so that a failure leaves no half of one.
    """
    tar, tree = intake.content.temporary_path(), intake.trees.temporary_path()
    try:
        with intake.content.lease(diff_ids):
            await write_flat(diff_ids, intake, tar, tree)
        if not tar.exists():
            yield bytes(1024)
            return
        with open(tar, "rb") as file:  # noqa: ASYNC230 - opening a local file does not wait
            tar.unlink()
            while data := await asyncio.to_thread(file.read, _READ_BYTES):
                yield data
    finally:
        tar.unlink(missing_ok=True)
        tree.unlink(missing_ok=True)


async def write_flat(
    diff_ids: Sequence[DiffID], intake: LayerIntake, tar_path: Path, tree_path: Path, *, base: int = 0
) -> IngestedLayer | None:
    """Write the layers above the lowest *base* as one layer; None, and no file, if they change nothing.

    The caller has a lease on the layers. Raises BlobNotFound.
    """
    trees = await intake.trees.paths(list(diff_ids))
    contents = TarContents(tuple(intake.content.path(d) for d in diff_ids))
    return await run_in_worker(flatten, (), trees, contents, base, tar_path, tree_path)


def flatten(
    trees: Sequence[Path], contents: TarContents, base: int, tar_path: Path, tree_path: Path
) -> IngestedLayer | None:
    """See ``write_flat``. Blocking."""
    merged = merge([load(path) for path in trees[:base]])
    below = copy_of_directories(merged)
    for number, path in enumerate(trees[base:], base):
        apply_layer(merged, load(path), number)
    return write_layer(tar_path, tree_path, lambda writer: _write(writer, difference(below, merged), contents))


def _write(writer: TarWriter, tree: FileTree, contents: TarContents) -> None:
    """Write a layer's tree: what a directory loses before what it gets; a file's further names as hard links."""
    first: dict[int, bytes] = {}
    for path, node in tree.walk():
        if node.children is None:
            target = first.setdefault(id(node), path)
            if target != path:
                writer.add_hard_link(path, node, target)
            else:
                writer.add(path, node, _reader(contents.pieces(path, node)) if node.is_regular else None)
            continue
        if path:
            writer.add(path, node)
        for name in sorted(node.whiteouts or ()):
            writer.add_whiteout(path, name)


def _reader(pieces: Iterator[bytes]) -> Read:
    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or memoryview(next(pieces, b""))
        data, rest = rest[:size], rest[size:]
        return bytes(data)

    return read
