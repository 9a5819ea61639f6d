"""Diff: what was written to a read-write layer, as a layer's tar.

Overlayfs' upper directory holds exactly that: new and changed files, directories on the way to them, 0:0 devices for what was deleted
and a mark on directories that were replaced. Only the spelling differs from the image format's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from lamina.layer.ingest import IngestedLayer
from lamina.layer.scan import Limits
from lamina.layer.tarwriter import TarStream, TarWriter, reader_of, write_layer
from lamina.layer.tree import Node
from lamina.linux.paths import directory

_OVERLAY_XATTR = "trusted.overlay."
_OPAQUE_XATTR = "trusted.overlay.opaque"

OwnerIn = Callable[[int, int], tuple[int, int]]
"""A user and a group of the host as those of a container."""

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
    limits: Limits = Limits(),  # noqa: B008 - frozen
    owner_in: OwnerIn | None = None,
) -> IngestedLayer | None:
    """Write the layer that *upper* amounts to; None, and no file, if nothing was written there.

    *exclude* are paths without a leading slash that belong to the run and not to the image, such as the mount points of
    ``/etc/hosts``; *untouched* are directories that hold such paths, with the attributes that they had before the run: one that still
    has them and holds nothing else is none of the layer's. Blocking. Raises OSError, SourceChanged if a file shrinks meanwhile, or
    LayerTooLarge.
    """

    def add_all(writer: TarWriter) -> None:
        with directory(upper) as fd:
            _Walk(writer, fd, b"", exclude, untouched, owner_in).add_all()

    return write_layer(tar_path, tree_path, add_all, clamp_ns=clamp_ns, limits=limits)


def add_resource(
    stream: TarStream,
    parent_fd: int,
    name: bytes,
    shown: bytes,
    owner_in: OwnerIn | None = None,
    hollow: frozenset[bytes] = frozenset(),
    *,
    as_is: bool = False,
) -> None:
    """Write a file of any kind as *shown*, and all that lies in it if it is a directory, but for what lies in *hollow* ones.

    With *as_is* overlayfs' marks are files and attributes like others: what they stand for is somebody else's.
    A link in the last place, *name* in *parent_fd*, is not followed. Blocking. Raises OSError, or SourceChanged.
    """
    full = b"/proc/self/fd/%d/%s" % (parent_fd, name)
    status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        _Walk(stream, parent_fd, b"", owner_in=owner_in, as_is=as_is).add_file(full, shown, status)
        return
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        stream.add(shown, node_of(full, status, owner_in, as_is=as_is))
        _Walk(stream, fd, shown, owner_in=owner_in, hollow=hollow, as_is=as_is).add_all()
    finally:
        os.close(fd)


def attributes_of(status: os.stat_result) -> Attributes:
    """What of a directory changes when somebody changes it."""
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def node_of(path: bytes, status: os.stat_result, owner_in: OwnerIn | None = None, *, as_is: bool = False) -> Node:
    """A file of this machine as a tree's node, with its extended attributes but, unless it is to be *as_is*, for overlayfs' own."""
    uid, gid = status.st_uid, status.st_gid
    if owner_in is not None:
        uid, gid = owner_in(uid, gid)
    node = Node(status.st_mode, uid, gid, status.st_mtime_ns)
    if stat.S_ISREG(status.st_mode):
        node.size = status.st_size
    elif stat.S_ISLNK(status.st_mode):
        node.target = os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        node.children = {}
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        node.rdev = os.major(status.st_rdev) << 20 | os.minor(status.st_rdev)
    node.xattrs = _xattrs(path, as_is=as_is)
    return node


class _Walk:
    """One walk through an upper directory.

    Directories are held open on the way down and never reopened by a path: a container may be moving them meanwhile.
    """

    def __init__(
        self,
        writer: TarStream,
        top_fd: int,
        prefix: bytes,
        exclude: frozenset[bytes] = frozenset(),
        untouched: Mapping[bytes, Attributes] = MappingProxyType({}),
        owner_in: OwnerIn | None = None,
        hollow: frozenset[bytes] = frozenset(),
        *,
        as_is: bool = False,
    ) -> None:
        """*prefix* is what all paths begin with."""
        self._as_is = as_is
        self._writer = writer
        self._top_fd = top_fd
        self._prefix = prefix
        self._exclude = exclude
        self._untouched = untouched
        self._owner_in = owner_in
        self._hollow = hollow
        self._links: dict[tuple[int, int], bytes] = {}
        self._opened: list[tuple[int, bytes, list[bytes]]] = []

    def add_all(self) -> None:
        """Write every entry, depth first, names in byte order."""
        self._opened.append(self._open(b".", self._top_fd, self._prefix))
        try:
            while self._opened:
                fd, directory, names = self._opened[-1]
                if names:
                    self._add(fd, directory, names.pop())
                else:
                    self._opened.pop()
                    os.close(fd)
        finally:
            for fd, _, _ in self._opened:
                os.close(fd)

    def _open(self, name: bytes, parent_fd: int, path: bytes) -> tuple[int, bytes, list[bytes]]:
        """A directory's descriptor, its path, and its names, the first one last."""
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        names = map(os.fsencode, os.listdir(fd))
        return fd, path, sorted((n for n in names if _join(path, n) not in self._exclude), reverse=True)

    def _add(self, fd: int, directory: bytes, name: bytes) -> None:
        path = _join(directory, name)
        full = b"/proc/self/fd/%d/%s" % (fd, name)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # removed since the directory was read
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 and not self._as_is:
            self._writer.add_whiteout(directory, name)
        elif path in self._hollow:
            self._writer.add(path, self._node(full, status))
        elif stat.S_ISDIR(status.st_mode):
            opened = self._open(name, fd, path)
            self._opened.append(opened)
            if self._untouched.get(path) == attributes_of(status) and not opened[2]:
                return
            self._writer.add(path, self._node(full, status))
            if not self._as_is and _is_opaque(full):
                self._writer.add_opaque(path)
        elif not stat.S_ISSOCK(status.st_mode):
            self.add_file(full, path, status)

    def _node(self, full: bytes, status: os.stat_result) -> Node:
        return node_of(full, status, self._owner_in, as_is=self._as_is)

    def add_file(self, full: bytes, path: bytes, status: os.stat_result) -> None:
        """Write what is no directory."""
        node = self._node(full, status)
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                self._writer.add_hard_link(path, node, first)
                return
        if not stat.S_ISREG(status.st_mode):
            self._writer.add(path, node)
            return
        # not blocking: it may have become a FIFO meanwhile, which nobody writes to
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._writer.add(path, node, reader_of(fd))
        finally:
            os.close(fd)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name if directory else name


def _is_opaque(path: bytes) -> bool:
    try:
        return os.getxattr(path, _OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def _xattrs(path: bytes, *, as_is: bool) -> dict[bytes, bytes] | None:
    """Extended attributes; one that is listed and cannot be read (a damaged ACL of a lower file) is as good as none."""
    found = {}
    with _no_xattrs():
        for name in os.listxattr(path, follow_symlinks=False):
            if as_is or not name.startswith(_OVERLAY_XATTR):
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
