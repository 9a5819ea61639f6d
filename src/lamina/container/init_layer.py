"""What docker puts into every container's root beside the image: the places of mounts, and the mark by which programs know a container.

docker has these in a layer between the image and the container's own (daemon/initlayer/setup_unix.go). Here they are made in the
container's own layer when its root is first shown; all of it is empty, and none of it is a change that the container made.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lamina.linux import paths

_DIRECTORIES = ("dev/pts", "dev/shm", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_LINKS = {"etc/mtab": "/proc/mounts"}
_MODE = 0o755


def make(rootfs: Path) -> None:
    """Make what is missing in a mounted root; where the image has something else in its way, it is left out."""
    with paths.directory(rootfs) as root:
        for path in _DIRECTORIES:
            with suppress(OSError):
                os.close(paths.make_directories_in_root(root, path, _MODE))
        for path in (*_FILES, *_LINKS):
            with suppress(OSError):
                _make_entry(root, path)


def _make_entry(root: int, path: str) -> None:
    parent = paths.make_directories_in_root(root, os.path.dirname(path), _MODE)
    name = os.path.basename(path)
    try:
        if path in _LINKS:
            os.symlink(_LINKS[path], name, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE, dir_fd=parent))
    finally:
        os.close(parent)
