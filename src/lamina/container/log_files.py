"""The files of one log: the one that is written, and those before it that were set aside when they had become too long.

``container.log`` is the newest, then come ``container.log.1``, ``.2`` and so on, as with docker; with ``.gz`` behind it, if they are
compressed. A reader sees them as one sequence of bytes that grows at its end, and keeps what it has opened: what is removed meanwhile
it can still read.
"""

from __future__ import annotations

import gzip
import os
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

_MOST_FILES = 256
"""Files that a reader who is behind may hold; their bytes are on disk as long as it does."""
_COPY_BYTES = 1 << 20
_GZIP = ".gz"
_GZIP_LEVEL = 3
"""Logs are so alike from line to line that more work gains little."""


class LogReader:
    """The open files of a log, the oldest first. What it calls an offset counts from the beginning of its oldest file."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = list(fds)
        self._starts = [0]
        for fd in self._fds[:-1]:
            self._starts.append(self._starts[-1] + os.fstat(fd).st_size)

    @property
    def size(self) -> int:
        """Bytes of all files at this moment."""
        return self._starts[-1] + (os.fstat(self._fds[-1]).st_size if self._fds else 0)

    def read(self, size: int, offset: int) -> bytes:
        """*size* bytes from *offset* on, fewer only at the end. Blocking."""
        parts: list[bytes] = []
        for index in range(bisect_right(self._starts, offset) - 1, len(self._fds)):
            while size > 0 and (data := os.pread(self._fds[index], size, offset - self._starts[index])):
                parts.append(data)
                size -= len(data)
                offset += len(data)
        return b"".join(parts)

    def grow(self, fd: int) -> bool:
        """Go on with another file, as nothing more comes into the last one; False, and it is closed, if these are too many."""
        if len(self._fds) >= _MOST_FILES:
            os.close(fd)
            return False
        if self._fds:
            self._starts.append(self._starts[-1] + os.fstat(self._fds[-1]).st_size)
        self._fds.append(fd)
        return True

    def close(self) -> None:
        """Let go of the files."""
        while self._fds:
            os.close(self._fds.pop())


def set_aside(path: Path) -> None:
    """Give the newest file the first place of those before it. Blocking.

    Who writes the log still writes to the file that was set aside, until it is told to open its log again.
    """
    for number, file in _set_aside(path):
        _rename(file, _numbered(path, number + 1, file.suffix))
    _rename(path, _numbered(path, 1))


def trim(path: Path, max_files: int, max_bytes: int) -> None:
    """Remove what is too much of the files that were set aside. Blocking.

    One that grew far beyond its size before anybody looked keeps its end alone, at a line's beginning: all files together have no
    more than *max_files* times *max_bytes*.
    """
    budget = max_bytes * (max_files - 1)
    for number, file in reversed(_set_aside(path)):
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            continue
        if number >= max_files or budget <= 0 or (size > budget and file.suffix == _GZIP):
            file.unlink(missing_ok=True)
        elif size > budget:
            _keep_end(file, budget)
        budget -= size


def compress(path: Path) -> None:
    """Compress the files that were set aside; nobody may write to them any more. Blocking."""
    for number, file in _set_aside(path):
        if file.suffix != _GZIP:
            scratch = file.with_name(f"{file.name}.cut")
            with open(file, "rb") as source, open(scratch, "wb") as target:
                os.fchmod(target.fileno(), 0o600)
                with gzip.GzipFile(fileobj=target, mode="wb", filename="", compresslevel=_GZIP_LEVEL) as compressed:
                    shutil.copyfileobj(source, compressed, _COPY_BYTES)
                target.flush()
                os.fsync(target.fileno())
            scratch.rename(_numbered(path, number, _GZIP))
            file.unlink(missing_ok=True)


def paths(path: Path) -> list[Path]:
    """The files of a log that there are, the oldest first."""
    return [*(file for _, file in _set_aside(path)), *([path] if path.exists() else [])]


def total_bytes(path: Path) -> int:
    """Bytes of all files of a log. Blocking."""
    return sum(file.stat().st_size for file in paths(path))


def open_log(path: Path) -> LogReader:
    """Open all files of a log. Blocking; nobody may set files aside meanwhile."""
    fds: list[int] = []
    try:
        fds.extend(open_file(file) for file in paths(path))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return LogReader(fds)


def open_file(path: Path) -> int:
    """A descriptor for reading what one file says; of a compressed one it is a file without a name. Blocking. Raises OSError."""
    if path.suffix != _GZIP:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with gzip.open(path) as source, open(fd, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _numbered(path: Path, number: int, suffix: str = "") -> Path:
    return path.with_name(f"{path.name}.{number}{suffix if suffix == _GZIP else ''}")


def _set_aside(path: Path) -> list[tuple[int, Path]]:
    """The files that were set aside with their numbers, the oldest first; of two with one number the compressed one, which is whole."""
    prefix = f"{path.name}."
    found: dict[int, Path] = {}
    for file in sorted(path.parent.glob(f"{prefix}*")):
        number = file.name.removeprefix(prefix).removesuffix(_GZIP)
        if number.isdigit():
            found[int(number)] = file
    return sorted(found.items(), reverse=True)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except FileNotFoundError:
        return


def _keep_end(file: Path, size: int) -> None:
    """Replace a file by one that has its last lines, at most *size* bytes of them."""
    scratch = file.with_name(f"{file.name}.cut")
    with open(file, "rb") as source, open(scratch, "wb") as target:
        os.fchmod(target.fileno(), 0o600)
        source.seek(-size, os.SEEK_END)
        source.readline()
        while data := source.read(_COPY_BYTES):
            target.write(data)
    scratch.rename(file)
