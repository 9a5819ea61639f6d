"""Extract: one layer as a directory that overlayfs can stack, for hosts that cannot mount an index over the tar.

What is extracted is the layer's *tree*, in which every path was resolved already, into a directory of ours: no name in the tar is ever
handed to the kernel as a path, so no link in it can lead anywhere.
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
from lamina.layer.merge import merge
from lamina.layer.scan import scan_tar_file
from lamina.layer.tree import MergedTree, Node

_COPY_BYTES = 1 << 20


def extract_layer(tar_path: Path, target: Path, *, lower: Sequence[Path] = ()) -> None:
    """Write a layer into the empty directory *target*; *lower* are the tars of the layers below it, the lowest first.

    Whiteouts become 0:0 devices and opaque directories get overlayfs' mark. Blocking; not synced.
    Raises InvalidLayer or OSError; what was written by then is the caller's to remove.
    """
    tree = scan_tar_file(tar_path)
    below = merge([scan_tar_file(path) for path in lower])
    fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (*lower, tar_path)]
    root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        extraction = _Extraction(below, fds, root_fd)
        extraction.write_children(tree.root, root_fd, b"")
        _set_attributes(root_fd, tree.root if tree.root.explicit else below.root)
        if tree.root.opaque:
            os.setxattr(root_fd, "trusted.overlay.opaque", b"y")
    finally:
        for fd in (*fds, root_fd):
            os.close(fd)


class _Extraction:
    def __init__(self, below: MergedTree, tar_fds: Sequence[int], root_fd: int) -> None:
        self._below = below
        self._tars = tar_fds
        self._root_fd = root_fd
        self._links: dict[int, bytes] = {}

    def write_children(self, directory: Node, fd: int, path: bytes) -> None:
        """Write a directory's entries into the open directory *fd*, which lies at *path* in the layer."""
        for hidden in sorted(directory.whiteouts or ()):
            if hidden not in (directory.children or {}):
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)
        for name, node in sorted((directory.children or {}).items()):
            here = path + b"/" + name if path else name
            replaced = name in (directory.whiteouts or ())
            if node.children is not None:
                self._write_directory(node, fd, here, name, opaque=node.opaque or replaced)
            else:
                self._write_file(node, fd, here, name)

    def _write_directory(self, node: Node, fd: int, here: bytes, name: bytes, *, opaque: bool) -> None:
        attributes = node
        if not node.explicit and not opaque:
            below = self._below.lookup(here, follow=False)
            if below is not None and below.is_symlink:
                self._write_through_link(node, here)
                return
            attributes = below if below is not None and below.children is not None else node
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=fd)
        child_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            self.write_children(node, child_fd, here)
            if opaque:
                os.setxattr(child_fd, "trusted.overlay.opaque", b"y")
            _set_attributes(child_fd, attributes)
        finally:
            os.close(child_fd)

    def _write_through_link(self, node: Node, here: bytes) -> None:
        """An implied directory that is a link below: its entries go where the link leads, as in a merged index."""
        parts, _ = self._below.resolve(here)
        parent = os.dup(self._root_fd)
        for depth, part in enumerate(parts):
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=parent)
            child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            os.close(parent)
            parent = child
            below = self._below.lookup(b"/".join(parts[: depth + 1]))
            if below is not None:
                _set_attributes(parent, below)
        try:
            self.write_children(node, parent, b"/".join(parts))
        finally:
            os.close(parent)

    def _write_file(self, node: Node, fd: int, here: bytes, name: bytes) -> None:
        tar_fd = self._tars[-1]
        if node.link is not None:
            target = self._below.lookup(node.link, follow=False)
            if target is None or target.children is not None:
                reason = f"hard link to {printable(node.link)!r}, which no lower layer has"
                raise InvalidLayer(reason, printable(here))
            tar_fd = self._tars[target.layer]
            node = target
        first = self._links.setdefault(id(node), here)
        if first != here:
            os.link(first, name, src_dir_fd=self._root_fd, dst_dir_fd=fd, follow_symlinks=False)
            return
        if node.is_regular:
            self._write_regular(node, fd, name, tar_fd)
        elif node.is_symlink:
            os.symlink(node.target, name, dir_fd=fd)
            _set_path_attributes(node, fd, name)
        else:
            device = os.makedev(node.rdev >> 20, node.rdev & 0xFFFFF)
            os.mknod(name, node.mode, device, dir_fd=fd)
            _set_path_attributes(node, fd, name)

    @staticmethod
    def _write_regular(node: Node, fd: int, name: bytes, tar_fd: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file_fd = os.open(name, flags, 0o600, dir_fd=fd)
        try:
            extents = node.extents if node.extents is not None else ((0, node.size, node.offset),)
            for offset, length, position in extents:
                _copy(tar_fd, position, file_fd, offset, length)
            os.ftruncate(file_fd, node.size)
            _set_attributes(file_fd, node)
        finally:
            os.close(file_fd)


def _copy(source: int, position: int, target: int, offset: int, length: int) -> None:
    while length:
        count = os.copy_file_range(source, target, min(length, _COPY_BYTES * 64), position, offset)
        if count == 0:
            raise InvalidLayer("truncated tar")
        position, offset, length = position + count, offset + count, length - count


def _set_attributes(fd: int, node: Node) -> None:
    """Owner before mode, since chown clears set-id bits; time last."""
    os.fchown(fd, node.uid, node.gid)
    os.fchmod(fd, stat.S_IMODE(node.mode))
    for name, value in (node.xattrs or {}).items():
        _set_xattr(fd, name, value)
    os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))


def _set_path_attributes(node: Node, fd: int, name: bytes) -> None:
    """Attributes of a file that cannot be opened: a link or a device."""
    os.chown(name, node.uid, node.gid, dir_fd=fd, follow_symlinks=False)
    if not node.is_symlink:
        os.chmod(name, stat.S_IMODE(node.mode), dir_fd=fd)
    path = b"/proc/self/fd/%d/%s" % (fd, name)
    for key, value in (node.xattrs or {}).items():
        with suppress(OSError):
            os.setxattr(path, key, value, follow_symlinks=False)
    os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=fd, follow_symlinks=False)


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
            raise
