"""What docker puts into every container's root beside the image: the places of mounts, and the mark by which programs know a container.

docker has these in a layer between the image and the container's own (daemon/initlayer/setup_unix.go). Here they are made in the
container's own layer: the mark when its root is first mounted, the places, which the runtime makes too as far as it needs them, when
somebody wants to see them. All of it is empty, and none of it is a change that the container made.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lamina.linux import paths

_MARKS = (".dockerenv", "etc/mtab")
_DIRECTORIES = ("dev/pts", "dev/shm", "proc", "sys")
_FILES = ("dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_LINKS = {"etc/mtab": "/proc/mounts"}
_MODE = 0o755
_INITS = ("sbin/docker-init", "usr/sbin/docker-init", "usr/bin/docker-init")

PATHS = frozenset((*_MARKS, *_FILES, *_INITS))
"""Files that are in a container's layer without its doing."""
DIRECTORIES = tuple(sorted({*_DIRECTORIES, *(os.path.dirname(path) for path in PATHS)} - {""}))
"""Directories that may be there for the places of mounts alone."""


def mark(rootfs: Path) -> None:
    """Make a mounted root known as a container's; what the image has there already stays."""
    with paths.directory(rootfs) as root:
        for path in _MARKS:
            with suppress(OSError):
                _make_entry(root, path)


def make_places(rootfs: Path) -> None:
    """Make the places of mounts that are missing in a mounted root; where the image has something else in the way, there is none."""
    with paths.directory(rootfs) as root:
        for path in _DIRECTORIES:
            with suppress(OSError):
                os.close(paths.make_directories_in_root(root, path, _MODE))
        for path in _FILES:
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
