"""Diff: what was written to a read-write layer, as a layer's tar.

Overlayfs' upper directory holds exactly that: new and changed files, directories on the way to them, 0:0 devices for what was deleted
and a mark on directories that were replaced. Only the spelling differs from the image format's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.layer.ingest import IngestedLayer
from lamina.layer.tarwriter import TarWriter, reader_of
from lamina.layer.tree import Node

_OVERLAY_XATTR = "trusted.overlay."
_OPAQUE_XATTR = "trusted.overlay.opaque"


def write_diff(
    upper: Path,
    tar_path: Path,
    tree_path: Path,
    *,
    clamp_ns: int | None = None,
    exclude: frozenset[bytes] = frozenset(),
) -> IngestedLayer | None:
    """Write the layer that *upper* amounts to; None, and no file, if nothing was written there.

    *exclude* are paths without a leading slash that belong to the run and not to the image, such as the mount points of
    ``/etc/hosts``. Blocking. Raises OSError, or SourceChanged if a file shrinks meanwhile.
    """
    writer = TarWriter(tar_path, clamp_ns=clamp_ns)
    try:
        _add_tree(writer, upper, exclude)
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


def _add_tree(writer: TarWriter, upper: Path, exclude: frozenset[bytes]) -> None:
    """Write everything below *upper*, depth first.

    Directories are held open on the way down and never reopened by a path: a container may be moving them meanwhile.
    """
    links: dict[int, bytes] = {}
    todo = [_open(os.fsencode(upper), None, b"")]
    try:
        while todo:
            fd, directory, names = todo[-1]
            if not names:
                os.close(todo.pop()[0])
                continue
            name = names.pop()
            path = directory + b"/" + name if directory else name
            if path not in exclude and _add(writer, fd, directory, name, path, links):
                todo.append(_open(name, fd, path))
    finally:
        for fd, _, _ in todo:
            os.close(fd)


def _open(name: bytes, parent_fd: int | None, path: bytes) -> tuple[int, bytes, list[bytes]]:
    """A directory's descriptor, its path, and its names, the first one last."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    return fd, path, sorted(map(os.fsencode, os.listdir(fd)), reverse=True)


def _add(writer: TarWriter, fd: int, directory: bytes, name: bytes, path: bytes, links: dict[int, bytes]) -> bool:
    """Write one entry of the open directory *fd*; returns whether it is a directory to go into."""
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    full = b"/proc/self/fd/%d/%s" % (fd, name)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        writer.add_whiteout(directory, name)
    elif stat.S_ISDIR(status.st_mode):
        writer.add(path, node_of(full, status))
        if _is_opaque(full):
            writer.add_opaque(path)
        return True
    elif not stat.S_ISSOCK(status.st_mode):
        _add_file(writer, full, path, status, links)
    return False


def _add_file(writer: TarWriter, full: bytes, path: bytes, status: os.stat_result, links: dict[int, bytes]) -> None:
    node = node_of(full, status)
    if status.st_nlink > 1:
        first = links.setdefault(status.st_ino, path)
        if first != path:
            writer.add_hard_link(path, node, first)
            return
    if not stat.S_ISREG(status.st_mode):
        writer.add(path, node)
        return
    fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer.add(path, node, reader_of(fd))
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
    """Extended attributes; one that is listed and cannot be read (a damaged ACL of a lower file) is as good as none."""
    found = {}
    with _no_xattrs():
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith(_OVERLAY_XATTR):
                with _no_xattrs():
                    found[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=False)
    return found or None


@contextmanager
def _no_xattrs() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
