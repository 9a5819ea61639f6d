"""Unpacking a tar into a container's root: what ``docker cp`` and ``PUT /containers/{id}/archive`` write.

Tar and root are both hostile, and the container may change its files meanwhile. Every path is resolved by the kernel inside the root
(openat2(2)), and a file is made, and given its attributes, through descriptors that were opened without following a link. For a worker
process.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from lamina.container.errors import CannotExtract
from lamina.layer.compression import open_decompressed
from lamina.layer.errors import InvalidLayer
from lamina.linux import paths
from lamina.linux.user_namespace import IdMap

_XATTR = "SCHILY.xattr."
_IMPLIED_MODE = 0o755
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class ExtractOptions:
    """*keeps_kinds*: a directory is not replaced by a file, nor a file by a directory. *owner* (uid, gid) is given all files.

    *idmap* tells whom the container's users are on the host.
    """

    keeps_kinds: bool = False
    owner: tuple[int, int] | None = None
    idmap: IdMap | None = None


def extract(root: int, directory: str, source: int, options: ExtractOptions) -> None:
    """Unpack the tar, compressed or not, that *source* gives, into *directory* of a root. Blocking.

    Raises CannotExtract for a tar that is none or wants what may not be, or OSError.
    """
    os.umask(0)
    try:
        with tarfile.open(fileobj=open_decompressed(source), mode="r|", errorlevel=2) as archive:
            Extraction(root, directory, options).take(archive, archive)
    except (tarfile.TarError, InvalidLayer, EOFError) as error:
        raise CannotExtract(f"archive/tar: invalid tar header: {error}") from None
    while os.read(source, _COPY_BYTES):
        pass  # what comes behind the tar's end is nothing to a client that is still sending it


class Extraction:
    """One tar being unpacked into a directory of a root."""

    def __init__(self, root: int, directory: str, options: ExtractOptions) -> None:
        self._root = root
        self._directory = directory
        self._options = options
        self._parent: tuple[str, int] | None = None
        self._times: list[tuple[str, tuple[int, int]]] = []

    def take(self, archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo]) -> None:
        """Unpack *members* of it; the times of directories come last, as what is put into them changes these."""
        for member in members:
            archive.members = []  # type: ignore[attr-defined] # the library would keep all of them
            path = self._place(member.name)
            if path != self._directory:
                self._take_one(archive, member, path)
            elif not member.isdir():
                raise CannotExtract(f'cannot overwrite directory "{path}" with non-directory "{member.name}"')
        for path, times in reversed(self._times):
            fd = paths.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            os.utime(fd, ns=times)
            os.close(fd)

    def _place(self, name: str) -> str:
        """Where in the root an entry goes. Raises CannotExtract if that would be outside of the directory."""
        parts: list[str] = []
        for part in name.split("/"):
            if part == "..":
                if not parts:
                    raise CannotExtract(f'"{name}" is outside of "{self._directory}"')
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/".join([self._directory.rstrip("/"), *parts]) or "/"

    def _directory_of(self, path: str) -> int:
        """A descriptor of a directory in the root, made with those above it if need be; kept for the next entry."""
        if self._parent is None or self._parent[0] != path:
            fd = paths.make_directories_in_root(self._root, path, _IMPLIED_MODE)
            if self._parent is not None:
                os.close(self._parent[1])
            self._parent = (path, fd)
        return self._parent[1]

    def _take_one(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        parent_path, name = os.path.split(path)
        parent = self._directory_of(parent_path)
        self._make_room(parent, name, path, member)
        if member.isdir():
            self._make_directory(parent, name, path, member)
        elif member.isreg():
            self._make_file(archive, parent, name, member)
        elif member.islnk():
            self._make_hard_link(parent, name, member)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            self._path_attributes(parent, name, member)
        elif member.ischr() or member.isblk() or member.isfifo():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK if member.isblk() else stat.S_IFIFO
            device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            os.mknod(name, kind | stat.S_IMODE(member.mode), device, dir_fd=parent)
            self._path_attributes(parent, name, member)
        else:
            raise CannotExtract(f"unhandled tar header type {member.type!r} of {member.name!r}")

    def _make_room(self, parent: int, name: str, path: str, member: tarfile.TarInfo) -> None:
        """Remove what is in the way; a directory is merged with one that is there."""
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_directory = stat.S_ISDIR(there.st_mode)
        if self._options.keeps_kinds and is_directory and not member.isdir():
            raise CannotExtract(f'cannot overwrite directory "{path}" with non-directory "{self._directory}"')
        if self._options.keeps_kinds and not is_directory and member.isdir():
            raise CannotExtract(f'cannot overwrite non-directory "{path}" with directory "{self._directory}"')
        if is_directory and member.isdir():
            return
        if is_directory:
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def _make_directory(self, parent: int, name: str, path: str, member: tarfile.TarInfo) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, _IMPLIED_MODE, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._attributes(fd, member)
        finally:
            os.close(fd)
        self._times.append((path, _times(member)))

    def _make_file(self, archive: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            content = archive.extractfile(member)
            assert content is not None
            with content:
                shutil.copyfileobj(content, file, _COPY_BYTES)
            if file.tell() != member.size:
                raise CannotExtract("unexpected EOF")
            file.flush()
            self._attributes(file.fileno(), member)
            os.utime(file.fileno(), ns=_times(member))

    def _make_hard_link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        target = self._place(member.linkname)
        target_parent = paths.open_in_root(self._root, os.path.dirname(target), os.O_PATH | os.O_DIRECTORY)
        try:
            source = os.path.basename(target)
            os.link(source, name, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(target_parent)

    def attributes(self, fd: int, member: tarfile.TarInfo) -> None:
        """Make an open file what a member tells of it, its times too."""
        self._attributes(fd, member)
        os.utime(fd, ns=_times(member))

    def _attributes(self, fd: int, member: tarfile.TarInfo) -> None:
        """Owner before mode, since chown clears set-id bits, and capabilities, which are attributes."""
        os.fchown(fd, *self._owner(member))
        os.fchmod(fd, stat.S_IMODE(member.mode))
        for name, value in member.pax_headers.items():
            if name.startswith(_XATTR):
                _set_xattr(fd, name.removeprefix(_XATTR), value)

    def _path_attributes(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        os.chown(name, *self._owner(member), dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def _owner(self, member: tarfile.TarInfo) -> tuple[int, int]:
        owner = self._options.owner or (member.uid, member.gid)
        return owner if self._options.idmap is None else self._options.idmap.to_host(*owner)


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Time of access and of modification in nanoseconds, which the library's float has no room for."""
    mtime_ns = int(Decimal(member.pax_headers.get("mtime", str(member.mtime))) * 1_000_000_000)
    return mtime_ns, mtime_ns


def _set_xattr(fd: int, name: str, value: str) -> None:
    """What the file system, or the kernel, does not take is left out, as docker does."""
    try:
        os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
    except OSError:
        return
