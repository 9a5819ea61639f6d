"""Paths that somebody else wrote, resolved inside a root without a way out (openat2(2), RESOLVE_IN_ROOT).

A path inside a container is hostile: any of its parts may be a link to the host, and may become one between check and use. The
kernel resolves it here as chroot would, atomically.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.linux import libc

_SYS_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 0x02
_RETRIES = 128
_MOST_LINKS = 255


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: Path | str | int, path: str, flags: int, mode: int = 0) -> int:
    """Open *path* as if *root* (a path or a directory descriptor) were ``/``; links and ``..`` stay inside.

    The descriptor is close-on-exec. Raises OSError as open(2) does.
    """
    if isinstance(root, int):
        return _openat2(root, path, flags, mode)
    with directory(root) as root_fd:
        return _openat2(root_fd, path, flags, mode)


def read_in_root(root: Path | str | int, path: str, *, limit: int) -> bytes:
    """The first *limit* bytes of a regular file inside *root*. Raises OSError; EINVAL for a device or FIFO, which is not opened."""
    place = open_in_root(root, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        with open(f"/proc/self/fd/{place}", "rb") as file:
            return file.read(limit)
    finally:
        os.close(place)


def resolve_in_root(root: int, path: str) -> str:
    """Where *path* leads in a root when all links are followed, also if there is nothing; a text for showing, not for opening.

    Raises OSError for links without an end.
    """
    done: list[str] = []
    left = [part for part in reversed(path.split("/")) if part]
    followed = 0
    while left:
        part = left.pop()
        if part == "..":
            done = done[:-1]
        elif part != ".":
            target = _link_at(root, "/".join((*done, part)))
            if target is None:
                done.append(part)
                continue
            followed += 1
            if followed > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            done = [] if target.startswith("/") else done
            left += [piece for piece in reversed(target.split("/")) if piece]
    return "/" + "/".join(done)


def _link_at(root: int, path: str) -> str | None:
    """What a symbolic link says; None for anything else, or nothing."""
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def is_directory_in_root(root: Path | str | int, path: str) -> bool:
    """Whether there is a directory at *path*, links followed as the container would follow them."""
    try:
        os.close(open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def make_directories_in_root(root: Path | str | int, path: str, mode: int = 0o755) -> int:
    """Create *path* with its parents inside *root* and return an O_PATH descriptor of it. Existing parts are kept as they are."""
    if not isinstance(root, int):
        with directory(root) as root_fd:
            return make_directories_in_root(root_fd, path, mode)
    done = ""
    for part in (p for p in path.split("/") if p not in ("", ".")):
        done = f"{done}/{part}"
        try:
            os.close(_openat2(root, done, os.O_PATH | os.O_DIRECTORY, 0))
        except FileNotFoundError:
            parent = _openat2(root, os.path.dirname(done), os.O_PATH | os.O_DIRECTORY, 0)
            try:
                os.mkdir(part, mode, dir_fd=parent)
            except FileExistsError:
                pass  # made by somebody else meanwhile; a dangling link is told by the open below
            finally:
                os.close(parent)
    return _openat2(root, done or "/", os.O_PATH | os.O_DIRECTORY, 0)


@contextmanager
def directory(path: Path | str) -> Iterator[int]:
    """A descriptor of a directory for the length of a ``with`` block."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _openat2(root_fd: int, path: str, flags: int, mode: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_RETRIES):
        try:
            return libc.syscall(
                _SYS_OPENAT2, root_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), paths=(path,)
            )
        except BlockingIOError:
            # EAGAIN: a rename somewhere made a ".." unsafe to judge; the manual says to try again
            continue
    raise BlockingIOError(11, "path keeps changing", path)
