"""Files of this machine as a tar, in pieces as they are read: what ``build`` sends as a context, and ``cp`` to a container."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator

from lamina.cli.grammar import CommandFailed

_READ_BYTES = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar ends with. No more of it: docker tells the size of what it sent, and pads no further."""


def entries(files: Iterable[tuple[str, str]], change: Callable[[tarfile.TarInfo, str], object]) -> Iterator[bytes]:
    """The entries of files, each a path here and a name in the tar; *change* makes of a file's header, and its path, what is sent.

    A directory's files are not among its entry. Sockets are left out, as no tar has them. Raises OSError, or CommandFailed.
    """
    # only its memory of hard links is wanted
    with tarfile.TarFile(os.devnull, "w") as links:
        for path, name in files:
            header = links.gettarinfo(path, name)
            if header is None:
                continue
            header.uname = header.gname = ""
            change(header, path)
            yield _head(header)
            if header.isreg():
                yield from _contents(path, header.size)


def entry(name: str, data: bytes) -> bytes:
    """The entry of a file that is not on a disk."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(data), 0o600
    return _head(header) + data + _padding(len(data))


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces, of which each is sent by itself."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _READ_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _head(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _contents(path: str, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb", buffering=0) as file:
        while left and (data := file.read(min(left, _READ_BYTES))):
            left -= len(data)
            yield data
    if left:
        raise CommandFailed(f"{path} became shorter while it was read")
    yield _padding(size)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
