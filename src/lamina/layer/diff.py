"""Diff: what was written to a read-write layer, as a layer's tar.

Overlayfs' upper directory holds exactly that: new and changed files, directories on the way to them, 0:0 devices for what was deleted
and a mark on directories that were replaced. Only the spelling differs from the image format's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lamina.layer.ingest import IngestedLayer
from lamina.layer.tarwriter import TarWriter, reader_of
from lamina.layer.tree import Node

_OVERLAY_XATTR = "trusted.overlay."
_OPAQUE_XATTR = "trusted.overlay.opaque"

Attributes = tuple[int, int, int, int]
"""A directory's mode, owner, group and time of modification (ns)."""


def write_diff(
    upper: Path,
    tar_path: Path,
    tree_path: Path,
    *,
    clamp_ns: int | None = None,
    exclude: frozenset[bytes] = frozenset(),
    untouched: Mapping[bytes, Attributes] = MappingProxyType({}),
) -> IngestedLayer | None:
    """Write the layer that *upper* amounts to; None, and no file, if nothing was written there.

    *exclude* are paths without a leading slash that belong to the run and not to the image, such as the mount points of
    ``/etc/hosts``; *untouched* are directories that hold such paths, with the attributes that they had before the run: one that still
    has them and holds nothing else is none of the layer's. Blocking. Raises OSError, or SourceChanged if a file shrinks meanwhile.
    """
    writer = TarWriter(tar_path, clamp_ns=clamp_ns)
    try:
        _Walk(writer, os.fsencode(upper), exclude, untouched).add_directory(b"")
        if writer.is_empty:
            writer.discard()
            tar_path.unlink()
            return None
        return writer.finish(tree_path)
    except BaseException:
        writer.discard()
        tar_path.unlink(missing_ok=True)
        tree_path.unlink(missing_ok=True)
        raise


def attributes_of(status: os.stat_result) -> Attributes:
    """What of a directory changes when somebody changes it."""
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def node_of(path: bytes, status: os.stat_result) -> Node:
    """A file of this machine as a tree's node, with its extended attributes but for overlayfs' own."""
    node = Node(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    if stat.S_ISREG(status.st_mode):
        node.size = status.st_size
    elif stat.S_ISLNK(status.st_mode):
        node.target = os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        node.children = {}
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        node.rdev = os.major(status.st_rdev) << 20 | os.minor(status.st_rdev)
    node.xattrs = _xattrs(path)
    return node


class _Walk:
    """One walk through an upper directory."""

    def __init__(
        self, writer: TarWriter, upper: bytes, exclude: frozenset[bytes], untouched: Mapping[bytes, Attributes]
    ) -> None:
        self._writer = writer
        self._upper = upper
        self._exclude = exclude
        self._untouched = untouched
        self._links: dict[int, bytes] = {}

    def add_directory(self, directory: bytes) -> None:
        """What lies in a directory, names in byte order, and below it."""
        for name in self._names(directory):
            path = directory + b"/" + name if directory else name
            full = self._upper + b"/" + path
            status = os.lstat(full)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                self._writer.add_whiteout(directory, name)
            elif stat.S_ISDIR(status.st_mode):
                if self._untouched.get(path) == attributes_of(status) and not self._names(path):
                    continue
                self._writer.add(path, node_of(full, status))
                if _is_opaque(full):
                    self._writer.add_opaque(path)
                self.add_directory(path)
            elif not stat.S_ISSOCK(status.st_mode):
                self._add_file(full, path, status)

    def _names(self, directory: bytes) -> list[bytes]:
        prefix = directory + b"/" if directory else b""
        names = os.listdir(self._upper + b"/" + directory)
        return sorted(name for name in names if prefix + name not in self._exclude)

    def _add_file(self, full: bytes, path: bytes, status: os.stat_result) -> None:
        node = node_of(full, status)
        if status.st_nlink > 1:
            first = self._links.setdefault(status.st_ino, path)
            if first != path:
                self._writer.add_hard_link(path, node, first)
                return
        if not stat.S_ISREG(status.st_mode):
            self._writer.add(path, node)
            return
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._writer.add(path, node, reader_of(fd))
        finally:
            os.close(fd)


def _is_opaque(path: bytes) -> bool:
    try:
        return os.getxattr(path, _OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def _xattrs(path: bytes) -> dict[bytes, bytes] | None:
    try:
        names = [n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith(_OVERLAY_XATTR)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return None
        raise
    return {os.fsencode(n): os.getxattr(path, n, follow_symlinks=False) for n in names} or None
