"""The build context: the tar that the client sent, kept as it is and indexed, never unpacked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable
from pathlib import Path

from lamina.build.errors import DockerfileNotFound
from lamina.dockerfile import IgnoreRules
from lamina.layer.ingest import Limits, ingest
from lamina.layer.tree import FileTree, Node, load, walk
from lamina.linux.pipes import feed
from lamina.linux.worker import run_in_worker

_MAXIMUM_DOCUMENT = 4 << 20


class FileSource:
    """Where COPY takes files from: a tree, and the tars that hold the bytes of its files by layer number."""

    def __init__(self, tree: FileTree, tars: list[Path], *, place: str = "", ignore: IgnoreRules | None = None) -> None:
        self.tree = tree
        self.tars = tars
        self.place = place
        self._ignore = ignore or IgnoreRules(())

    def is_visible(self, path: bytes) -> bool:
        """Whether .dockerignore leaves a path in."""
        return not self._ignore or not self._ignore.excludes(os.fsdecode(path))

    def is_present(self, path: bytes, node: Node) -> bool:
        """Whether a file counts as there: it is visible itself, or it is a directory with something visible below it."""
        if self.is_visible(path):
            return True
        if node.children is None or not self._ignore.may_contain_included(os.fsdecode(path)):
            return False
        return any(self.is_visible(below) for below, _ in walk(node, path))

    def read(self, node: Node, limit: int = _MAXIMUM_DOCUMENT) -> bytes:
        """The first bytes of a regular file."""
        extents = node.extents if node.extents is not None else ((0, node.size, node.offset),)
        result = bytearray(min(node.size, limit))
        with open(self.tars[node.layer], "rb") as tar:
            for offset, length, position in extents:
                if offset < limit:
                    tar.seek(position)
                    data = tar.read(min(length, limit - offset))
                    result[offset : offset + len(data)] = data
        return bytes(result)


async def receive_context(body: AsyncIterable[bytes], directory: Path, limits: Limits) -> FileSource:
    """Store and index the context's tar below *directory*, applying its .dockerignore. Raises InvalidLayer."""
    tar, tree_path = directory / "context.tar", directory / "context.tree"

    async def take(fd: int) -> None:
        await run_in_worker(ingest, (fd,), fd, tar_path=tar, tree_path=tree_path, limits=limits)

    await feed(body, take)
    source = FileSource(load(tree_path), [tar])
    ignored = source.tree.lookup(b".dockerignore")
    rules = (
        IgnoreRules.parse(source.read(ignored).decode("utf-8", "replace")) if ignored and ignored.is_regular else None
    )
    return FileSource(source.tree, [tar], ignore=rules)


def read_dockerfile(context: FileSource, name: str) -> bytes:
    """The Dockerfile's bytes. Raises DockerfileNotFound."""
    node = context.tree.lookup(os.fsencode(name))
    if node is None and name == "Dockerfile":
        node = context.tree.lookup(b"dockerfile")
    if node is None or not node.is_regular:
        raise DockerfileNotFound(name)
    return context.read(node)
