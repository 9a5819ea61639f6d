"""The build context that a client sends: its tar is kept as it is and indexed, never unpacked, each file hashed while it streams by."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import AsyncIterable, Mapping
from contextlib import suppress
from pathlib import Path

from lamina.build.context.source import FileSource, TarContents
from lamina.build.errors import DockerfileNotFound
from lamina.dockerfile import IgnoreRules
from lamina.layer.compression import READ_BYTES, Peeked, decompressor
from lamina.layer.pipeline import Stage
from lamina.layer.scan import Limits, Scanner
from lamina.layer.tree import FileTree, Node, load, save
from lamina.linux.pipes import feed
from lamina.linux.worker import run_in_worker

_IGNORE = ".dockerignore"


class TarContext(FileSource):
    """A context's tar, whose files' digests are known by where they lie in it."""

    def __init__(self, tree: FileTree, tar: Path, digests: Mapping[int, bytes], ignore: IgnoreRules | None) -> None:
        super().__init__(tree, TarContents((tar,)), ignore=ignore)
        self._digests = digests

    def known_digest(self, path: bytes, node: Node) -> bytes | None:
        """See FileSource."""
        return self._digests.get(node.offset) if node.size else hashlib.sha256().digest()


async def receive_context(
    body: AsyncIterable[bytes], directory: Path, limits: Limits, rules: IgnoreRules | None, dockerfile: str
) -> TarContext:
    """Store and index the context's tar below *directory*, applying *rules*, else its .dockerignore. Raises InvalidLayer."""
    tar, tree_path = directory / "context.tar", directory / "context.tree"

    async def take(fd: int) -> dict[int, bytes]:
        return await run_in_worker(take_context, (fd,), fd, tar, tree_path, limits)

    digests = await feed(body, take)
    tree = load(tree_path)
    source = TarContext(tree, tar, digests, None)
    return TarContext(tree, tar, digests, ignore_rules(source, dockerfile) if rules is None else rules)


def take_context(source_fd: int, tar_path: Path, tree_path: Path, limits: Limits) -> dict[int, bytes]:
    """Write a context's plain tar and its tree; returns each file's sha256 by its offset in the tar. Blocking; nothing is synced."""
    source = Peeked(lambda size: os.read(source_fd, size))
    plain = decompressor(source.format, source.read)
    hasher = _FileHasher()
    scanner = Scanner(limits, on_file=hasher.expect)
    with open(tar_path, "wb") as tar, Stage(tar.write) as writing, Stage(hasher.take) as hashing:
        while data := plain(READ_BYTES):
            writing.put(data)
            scanner.feed(data)
            hashing.put(data)
    save(scanner.finish(), tree_path)
    return hasher.digests


class _FileHasher:
    """Hashes the files of a tar that streams by, told of each by the scanner.

    One that it is told of too late, as the scanner had to look ahead, has no digest here and is hashed when somebody asks for it.
    """

    def __init__(self) -> None:
        self.digests: dict[int, bytes] = {}
        self._expected: deque[tuple[int, int]] = deque()
        self._position = 0
        self._state = hashlib.sha256()

    def expect(self, offset: int, size: int) -> None:
        """A file's bytes lie there."""
        if size and offset >= self._position:
            self._expected.append((offset, offset + size))

    def take(self, data: bytes) -> None:
        """The next bytes of the tar."""
        start, end = self._position, self._position + len(data)
        view = memoryview(data)
        while self._expected and self._expected[0][0] < end:
            first, last = self._expected[0]
            self._state.update(view[max(first - start, 0) : last - start])
            if last > end:
                break
            self.digests[first] = self._state.digest()
            self._state = hashlib.sha256()
            self._expected.popleft()
        self._position = end


def ignore_rules(source: FileSource, dockerfile: str) -> IgnoreRules | None:
    """The rules beside the Dockerfile (``NAME.dockerignore``), else those of the context's .dockerignore."""
    for name in (f"{dockerfile}{_IGNORE}", _IGNORE):
        path = os.fsencode(name)
        node = source.tree.lookup(path)
        if node is not None and node.is_regular:
            return IgnoreRules.parse(source.read(path, node).decode("utf-8", "replace"))
    return None


def read_dockerfile(context: FileSource, name: str) -> bytes:
    """The Dockerfile's bytes. Raises DockerfileNotFound."""
    for path in map(os.fsencode, _names(name)):
        parts, node = context.tree.resolve(path)
        if node is not None and node.is_regular:
            return context.read(b"/".join(parts), node)
    raise DockerfileNotFound(name)


def read_local_dockerfile(directory: Path, name: str) -> bytes:
    """The Dockerfile of a directory of this machine, also one that .dockerignore leaves out. Raises DockerfileNotFound."""
    for candidate in _names(name):
        with suppress(OSError):
            return (directory / candidate).read_bytes()
    raise DockerfileNotFound(name)


def _names(name: str) -> tuple[str, ...]:
    return (name, "dockerfile") if name == "Dockerfile" else (name,)
