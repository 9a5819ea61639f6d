"""Copying a tree of files: with everything that a file has, sharing bytes where the file system can, and without what is hostile.

Programs may change the source meanwhile: directories are held open on the way down, no link is followed, and what vanishes is left
out. A file that has not changed since the copy before becomes a further name of that copy's file. Whether it has, its inode and its
time of change tell, which no program can set.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lamina.linux.files import clone_file

_BLOCK_BYTES = 1 << 20
_RACY_NS = 2_000_000_000
"""A file that was changed this shortly before it was copied may have been changed once more within the same tick of the clock."""

Mark = tuple[int, int, int]
"""A source file's inode, time of change (ns) and size."""


@dataclass(frozen=True)
class Earlier:
    """A copy that was made before of the same source: where it is, and what its files were then."""

    path: Path
    marks: Mapping[str, Mark]


@dataclass
class Copied:
    """What a copy has. ``marks`` are of the source's files that may be taken over by the next one."""

    files: int = 0
    size: int = 0
    shared: int = 0
    marks: dict[str, Mark] = field(default_factory=dict)


def copy_tree(source: Path, target: Path, earlier: Earlier | None = None) -> Copied:
    """Copy the directory *source* as *target*, which must not exist, and return what was copied (sizes in bytes). Blocking.

    Raises OSError; what was copied until then is the caller's to remove.
    """
    target.mkdir(mode=0o700)
    with _opened(source) as from_fd, _opened(target) as to_fd:
        copy = _Copy(earlier, to_fd)
        copy.take_all(from_fd)
        os.fsync(to_fd)
        return copy.done


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass
class _Open:
    """A directory on the way down: both descriptors, its path, and the names that are still to come."""

    source: int
    target: int
    path: str
    names: list[str]


class _Copy:
    def __init__(self, earlier: Earlier | None, top: int) -> None:
        self._earlier = earlier
        self._began_ns = time.time_ns()
        self._links: dict[tuple[int, int], str] = {}
        self._top = top
        self._open: list[_Open] = []
        self.done = Copied()

    def take_all(self, source: int) -> None:
        """Copy what a directory has, depth first; own attributes come last, as copying into a directory changes its times."""
        self._open.append(_Open(os.dup(source), os.dup(self._top), "", _names(source)))
        try:
            while self._open:
                current = self._open[-1]
                if current.names:
                    name = current.names.pop()
                    with suppress(FileNotFoundError):  # removed since the directory was read
                        self._take(current.source, current.target, name, f"{current.path}{name}")
                    continue
                _give_attributes(current.source, current.target, os.fstat(current.source))
                self._close()
        finally:
            while self._open:
                self._close()

    def _close(self) -> None:
        done = self._open.pop()
        os.close(done.source)
        os.close(done.target)

    def _go_down(self, source: int, target: int, name: str, path: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner = os.open(name, flags, dir_fd=source)
        try:
            names = _names(inner)
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, flags, dir_fd=target)
        except BaseException:
            os.close(inner)
            raise
        self._open.append(_Open(inner, made, f"{path}/", names))

    def _take(self, source: int, target: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._go_down(source, target, name, path)
            return
        if stat.S_ISSOCK(status.st_mode):
            return  # it is of no use without the process that listens
        self.done.files += 1
        known = self._links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if known is not None:
            os.link(known, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            self._take_file(source, target, name, path)
        else:
            self._take_other(source, target, name, status)
        if status.st_nlink > 1:
            self._links[status.st_dev, status.st_ino] = path

    def _take_file(self, source: int, target: int, name: str, path: str) -> None:
        # not blocking: it may have become a FIFO meanwhile, which nobody writes to
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            if not self._is_unchanged(path, status):
                # who has it mapped changes it without a word to its inode until the pages were written: the next change shows then
                os.fdatasync(fd)
                status = os.fstat(fd)
            mark = (status.st_ino, status.st_ctime_ns, status.st_size)
            self.done.size += status.st_size
            if self._shares(target, name, path, mark):
                self.done.marks[path] = mark
                self.done.shared += status.st_size
                return
            made = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
            )
            try:
                if clone_file(fd, made):
                    self.done.shared += status.st_size
                else:
                    _copy_bytes(fd, made, status.st_size)
                _give_attributes(fd, made, status)
                os.fsync(made)
            finally:
                os.close(made)
            if os.fstat(fd).st_ctime_ns == status.st_ctime_ns and status.st_ctime_ns < self._began_ns - _RACY_NS:
                self.done.marks[path] = mark
        finally:
            os.close(fd)

    def _is_unchanged(self, path: str, status: os.stat_result) -> bool:
        mark = (status.st_ino, status.st_ctime_ns, status.st_size)
        return self._earlier is not None and tuple(self._earlier.marks.get(path, ())) == mark

    def _shares(self, target: int, name: str, path: str, mark: Mark) -> bool:
        """Make a file a further name of what it was in the copy before, if it has not changed."""
        if self._earlier is None or tuple(self._earlier.marks.get(path, ())) != mark:
            return False
        try:
            os.link(self._earlier.path / path, name, dst_dir_fd=target, follow_symlinks=False)
        except OSError:  # that copy is damaged, or the file has as many names as it may have
            return False
        return True

    @staticmethod
    def _take_other(source: int, target: int, name: str, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(f"/proc/self/fd/{target}/{name}", stat.S_IMODE(status.st_mode))
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _names(fd: int) -> list[str]:
    """The names in a directory, the first one last."""
    return sorted(os.listdir(fd), reverse=True)


def _copy_bytes(source: int, target: int, size: int) -> None:
    """Copy a file's bytes; its holes stay holes."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        except OSError:  # nothing but a hole is left
            return
        os.lseek(source, at, os.SEEK_SET)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            copied = _copy_block(source, target, min(end - at, _BLOCK_BYTES))
            if not copied:
                return  # it became shorter
            at += copied


def _copy_block(source: int, target: int, count: int) -> int:
    """Copy up to so many bytes from where both files are, in the kernel if it can between these file systems."""
    try:
        return os.copy_file_range(source, target, count)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return os.write(target, os.read(source, count))


def _give_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Owner before mode, since chown clears set-id bits, and capabilities, which are attributes."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        with suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
