"""Deleting trees that others made: as deep as they like, with no link followed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Delete a directory with all that is in it; what cannot be deleted stays, and gone already is no error. Blocking.

    Unlike shutil's, this neither recurs nor keeps a descriptor a level: a container may nest thousands of directories. Nobody else
    may be moving directories in there meanwhile.
    """
    with suppress(OSError):
        fd = os.open(path, _OPEN)
        try:
            fd = _empty(fd)
        finally:
            os.close(fd)
        path.rmdir()


def _empty(fd: int) -> int:
    """Delete all that lies in an open directory, going down and up through one descriptor; returns the last one."""
    levels = [_delete_files(fd)]
    names: list[str] = []
    while levels:
        if levels[-1]:
            names.append(levels[-1].pop())
            fd = _move(fd, names[-1])
            levels.append(_delete_files(fd))
            continue
        levels.pop()
        if names:
            fd = _move(fd, "..")
            with suppress(OSError):
                os.rmdir(names.pop(), dir_fd=fd)
    return fd


def _delete_files(fd: int) -> list[str]:
    """Delete what is no directory; returns the names of the directories."""
    nested = []
    with os.scandir(fd) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                nested.append(entry.name)
            else:
                with suppress(OSError):
                    os.unlink(entry.name, dir_fd=fd)
    return nested


def _move(fd: int, name: str) -> int:
    moved = os.open(name, _OPEN, dir_fd=fd)
    os.close(fd)
    return moved
