"""Mount points that a RUN needs and the image lacks: made before the command runs, and no part of what it wrote.

Making them changes the directories around them, too. A directory that the command itself left alone gets back what it had.
"""

from __future__ import annotations

import os
import posixpath
import stat
from contextlib import suppress
from pathlib import Path

from lamina.layer.diff import Attributes, attributes_of
from lamina.linux import paths


class Stubs:
    """The stubs in one root, whose read-write layer is *upper*. Everything here blocks."""

    def __init__(self, rootfs: Path, upper: Path) -> None:
        self._rootfs = rootfs
        self._upper = upper
        self._made: list[str] = []
        self._before: dict[str, Attributes] = {}
        self._after: dict[str, Attributes] = {}

    def make(self, path: str, *, is_directory: bool) -> None:
        """Make what is missing of a path inside the root. What is in the way is the runtime's to complain about."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        with suppress(OSError):
            for depth in range(1, len(parts) + 1):
                self._make(posixpath.join("/", *parts[:depth]), is_directory=is_directory or depth < len(parts))
        for place in self._before:
            self._after[place] = attributes_of(os.lstat(self._upper / place))

    def sweep(self) -> dict[bytes, Attributes]:
        """Take the stubs away that are still empty, once nothing is mounted any more.

        Returns the directories around them that the command left alone, with their attributes (see ``layer.diff.write_diff``).
        """
        untouched = {
            place: before
            for place, before in self._before.items()
            if attributes_of(os.lstat(self._upper / place)) == self._after[place]
        }
        for place in reversed(self._made):
            with suppress(OSError):
                status = os.lstat(self._upper / place)
                if stat.S_ISDIR(status.st_mode):
                    os.rmdir(self._upper / place)
                elif stat.S_ISREG(status.st_mode) and not status.st_size:
                    os.unlink(self._upper / place)
        for place, before in untouched.items():
            os.utime(self._upper / place, ns=(before[3], before[3]))
        return {os.fsencode(place): before for place, before in untouched.items()}

    def _make(self, path: str, *, is_directory: bool) -> None:
        try:
            os.close(paths.open_in_root(self._rootfs, path, os.O_PATH))
        except FileNotFoundError:
            parent = paths.open_in_root(self._rootfs, posixpath.dirname(path), os.O_PATH | os.O_DIRECTORY)
        else:
            return
        try:
            place = os.path.relpath(os.readlink(f"/proc/self/fd/{parent}"), self._rootfs)
            if place not in self._made and place != ".":
                self._before.setdefault(place, attributes_of(os.fstat(parent)))
            name = posixpath.basename(path)
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
            self._made.append(posixpath.normpath(posixpath.join(place, name)))
        finally:
            os.close(parent)
