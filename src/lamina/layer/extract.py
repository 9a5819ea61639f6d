"""Extract: one layer as a directory that overlayfs can stack, for hosts that cannot mount an index over the tar.

What is extracted is the difference that the layer makes to the *tree* below it (``merge.difference``), so that both drivers go by the
same rules, and every path is resolved already: no name in the tar is ever handed to the kernel as a path, no link in it leads anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lamina.layer.errors import InvalidLayer
from lamina.layer.headers import printable
from lamina.layer.merge import apply_layer, copy_of_directories, difference, merge
from lamina.layer.tree import LayerTree, Node, load

_COPY_BYTES = 64 << 20


def extract_layer(tars: Sequence[Path], trees: Sequence[Path], target: Path) -> None:
    """Write the topmost of some layers, the lowest first, into the empty directory *target*.

    Whiteouts become 0:0 devices. Blocking; not synced. Raises InvalidLayer, StaleTree or OSError; what was written by then is the
    caller's to remove.
    """
    *lower, upper = [load(tree) for tree in trees]
    merged = merge(lower)
    below = copy_of_directories(merged)
    apply_layer(merged, upper, len(lower))
    _write(difference(below, merged), tars, target)


def _write(layer: LayerTree, tars: Sequence[Path], target: Path) -> None:
    fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in tars]
    root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _Extraction(fds, root_fd).write(layer.root)
    finally:
        for fd in (*fds, root_fd):
            os.close(fd)


class _Extraction:
    def __init__(self, tar_fds: Sequence[int], root_fd: int) -> None:
        self._tars = tar_fds
        self._root_fd = root_fd
        self._links: dict[int, bytes] = {}

    def write(self, root: Node) -> None:
        """Write a tree, going down and up through one descriptor: a tree may be deeper than descriptors are many."""
        path: list[bytes] = []
        fd = os.dup(self._root_fd)
        above = [(root, self._write_files(root, fd, path))]
        try:
            while above:
                directory, nested = above[-1]
                if nested:
                    name, child = nested.pop()
                    os.mkdir(name, 0o700, dir_fd=fd)
                    path.append(name)
                    fd = _move(fd, name)
                    above.append((child, self._write_files(child, fd, path)))
                    continue
                _set_attributes(fd, directory)
                above.pop()
                if above:
                    path.pop()
                    fd = _move(fd, b"..")
        finally:
            os.close(fd)

    def _write_files(self, directory: Node, fd: int, path: list[bytes]) -> list[tuple[bytes, Node]]:
        """Write what is no directory into the open directory *fd*; returns the directories that lie in it."""
        nested = []
        for name in sorted(directory.whiteouts or ()):
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)
        for name, node in sorted((directory.children or {}).items(), reverse=True):
            if node.children is not None:
                nested.append((name, node))
            else:
                self._write_file(node, fd, b"/".join((*path, name)), name)
        return nested

    def _write_file(self, node: Node, fd: int, here: bytes, name: bytes) -> None:
        first = self._links.setdefault(id(node), here)
        if first != here:
            os.link(first, name, src_dir_fd=self._root_fd, dst_dir_fd=fd, follow_symlinks=False)
        elif node.is_regular:
            self._write_regular(node, fd, name)
        elif node.is_symlink:
            os.symlink(node.target, name, dir_fd=fd)
            _set_path_attributes(node, fd, name)
        else:
            device = os.makedev(node.rdev >> 20, node.rdev & 0xFFFFF)
            os.mknod(name, node.mode, device, dir_fd=fd)
            _set_path_attributes(node, fd, name)

    def _write_regular(self, node: Node, fd: int, name: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file_fd = os.open(name, flags, 0o600, dir_fd=fd)
        try:
            extents = node.extents if node.extents is not None else ((0, node.size, node.offset),)
            for offset, length, position in extents:
                _copy(self._tars[node.layer], position, file_fd, offset, length)
            os.ftruncate(file_fd, node.size)
            _set_attributes(file_fd, node)
        finally:
            os.close(file_fd)


def _move(fd: int, name: bytes) -> int:
    """Go from an open directory of ours to one in it, or to the one that it lies in."""
    moved = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    os.close(fd)
    return moved


def _copy(source: int, position: int, target: int, offset: int, length: int) -> None:
    while length:
        count = os.copy_file_range(source, target, min(length, _COPY_BYTES), position, offset)
        if count == 0:
            raise InvalidLayer("truncated tar")
        position, offset, length = position + count, offset + count, length - count


def _set_attributes(fd: int, node: Node) -> None:
    """Owner before mode, since chown clears set-id bits; time last."""
    os.fchown(fd, node.uid, node.gid)
    os.fchmod(fd, stat.S_IMODE(node.mode))
    for name, value in (node.xattrs or {}).items():
        _set_xattr(fd, name, value)
    os.utime(fd, ns=(node.shown_mtime_ns, node.shown_mtime_ns))


def _set_path_attributes(node: Node, fd: int, name: bytes) -> None:
    """Attributes of a file that cannot be opened: a link or a device."""
    os.chown(name, node.uid, node.gid, dir_fd=fd, follow_symlinks=False)
    if not node.is_symlink:
        os.chmod(name, stat.S_IMODE(node.mode), dir_fd=fd)
    path = b"/proc/self/fd/%d/%s" % (fd, name)
    for key, value in (node.xattrs or {}).items():
        with suppress(OSError):
            os.setxattr(path, key, value, follow_symlinks=False)
    os.utime(name, ns=(node.shown_mtime_ns, node.shown_mtime_ns), dir_fd=fd, follow_symlinks=False)


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
            reason = f"extended attribute {printable(name)!r} is larger than this file system takes"
            raise InvalidLayer(reason) from error
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
            raise
