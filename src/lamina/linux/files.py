"""Files that are wholly there or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lamina.linux import libc

_SYNC_FILE_RANGE_WRITE = 2
_AT_FDCWD = ctypes.c_int(-100)
_RENAME_EXCHANGE = ctypes.c_uint(2)
_FICLONE = 0x40049409
TEMPORARY_PREFIX = ".tmp-"


def sync_directory(path: Path | str) -> None:
    """Make renames and removals in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def bytes_below(top: Path) -> int:
    """Bytes of all regular files in a directory and below it, each once however many names it has. Blocking."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for path, _, names in os.walk(top):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(f"{path}/{name}")
                if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                    if status.st_nlink > 1:
                        seen.add((status.st_dev, status.st_ino))
                    total += status.st_size
    return total


def exchange(one: Path, other: Path) -> None:
    """Let two files or directories change places, at once (renameat2(2), RENAME_EXCHANGE). Raises OSError."""
    paths = (os.fsencode(one), os.fsencode(other))
    libc.call("renameat2", _AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE, paths=(str(one), str(other)))


def clone_file(source: int, target: int) -> bool:
    """Let a file share the bytes of another until one of them is changed (ioctl_ficlone(2)); False if the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def temporary_name(path: Path) -> Path:
    """A name beside *path* that marks an unfinished file; what bears it after a crash is garbage."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name}"[:250])


@contextmanager
def atomic_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file being written that takes the name *path* when the block ends well, and vanishes when it does not."""
    temporary = temporary_name(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the contents of *path* durably; a reader sees the old bytes or the new ones."""
    with atomic_file(path, mode) as file:
        file.write(data)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Let the disk begin with a range that was written, so that the fsync at the end finds little left (sync_file_range(2)).

    A hint: where the file system does not take it, nothing is lost.
    """
    with suppress(OSError):
        libc.call(
            "sync_file_range",
            ctypes.c_int(fd),
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
            ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
        )


def lock_exclusively(path: Path) -> int | None:
    """Take the lock file *path* for this process and return its descriptor, or None if another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
