"""A tar from the daemon as files of this machine: what ``build --output`` and ``cp`` write.

The tar is hostile: a container or an image made it. Nothing is written outside of the directory, whatever links are in the tar or there.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lamina.cli.grammar import CommandFailed
from lamina.cli.output import go_quoted

_COPY_BYTES = 1 << 20
_MODE = 0o7777


def unpack(
    pieces: Iterable[bytes], directory: Path, *, name_of: Callable[[str], str] = str, as_cp: bool = False
) -> None:
    """Write a tar's files below a directory, over what is there; they are the caller's own, as with BuildKit and docker.

    *name_of* gives an entry's name in the directory. With *as_cp* it is done by docker cp's rules: a directory does not take a file's
    place, nor a link leads out of the directory, even unfollowed. Raises CommandFailed, or OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    root = os.path.realpath(directory)
    directories: list[tuple[str, tarfile.TarInfo]] = []
    stream: Any = _Stream(iter(pieces))
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_COPY_BYTES) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # the library would keep all of them
                member.name, member.linkname = name_of(member.name), _link(member, name_of)
                if member.isdir() and not member.name.strip("./"):
                    continue  # the directory itself
                path = _place(root, member.name)
                if as_cp:
                    _check_copy(member, path, root)
                if member.isdir():
                    _make_directory(path)
                    directories.append((path, member))
                else:
                    _make_file(archive, member, path, root)
    except (
        tarfile.TarError,
        ValueError,
        OverflowError,
    ) as error:  # the latter: a name with a zero byte, a device beyond all
        raise CommandFailed(f"the archive is damaged: {error}") from None
    finally:
        # last, since what is put into a directory changes its time, and may need a right that the directory does not give
        for path, member in reversed(directories):
            os.chmod(path, member.mode & _MODE)
            os.utime(path, ns=_times(member))


def _link(member: tarfile.TarInfo, name_of: Callable[[str], str]) -> str:
    """What a member links to: of a hard link it is a name in the tar."""
    return name_of(member.linkname) if member.islnk() else member.linkname


def _place(root: str, name: str) -> str:
    path = os.path.join(root, name.lstrip("/"))
    parent = os.path.realpath(os.path.dirname(path))
    if os.path.basename(path) in ("", ".", "..") or os.path.commonpath((root, parent)) != root:
        raise CommandFailed(f"{name} leads out of {root}")
    return os.path.join(parent, os.path.basename(path))


def _check_copy(member: tarfile.TarInfo, path: str, root: str) -> None:
    """Raise CommandFailed for what docker cp does not do."""
    if os.path.lexists(path):
        is_directory = os.path.isdir(path) and not os.path.islink(path)
        if is_directory and not member.isdir():
            raise CommandFailed(f"cannot overwrite directory {go_quoted(path)} with non-directory {go_quoted(root)}")
        if member.isdir() and not is_directory:
            raise CommandFailed(f"cannot overwrite non-directory {go_quoted(path)} with directory {go_quoted(root)}")
    if member.issym():
        # as docker reckons: an absolute link is meant for the container, and is none that leads out
        target = os.path.normpath(f"{os.path.dirname(path)}/{member.linkname}")
        if os.path.commonpath((root, target)) != root:
            raise CommandFailed(f"invalid symlink {go_quoted(path)} -> {go_quoted(member.linkname)}")


def _make_directory(path: str) -> None:
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
        os.unlink(path)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o700)


def _make_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, root: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        raise CommandFailed(f"cannot replace the directory {path} by a file")
    if os.path.lexists(path):
        os.unlink(path)
    if member.issym():
        os.symlink(member.linkname, path)
        os.utime(path, ns=_times(member), follow_symlinks=False)
    elif member.islnk():
        os.link(_place(root, member.linkname), path, follow_symlinks=False)
    elif member.isreg():
        _write_file(archive, member, path)
    elif os.geteuid() == 0:  # a device or a pipe
        kind = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}.get(member.type, stat.S_IFIFO)
        os.mknod(path, kind | member.mode & _MODE, os.makedev(member.devmajor, member.devminor))
        os.utime(path, ns=_times(member))


def _write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    import shutil

    source: Any = archive.extractfile(member)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)
        os.fchmod(file.fileno(), member.mode & _MODE)
    os.utime(path, ns=_times(member))


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Time of access and of modification in nanoseconds, for which the library's float has no room; 1970 for what is no time."""
    text = str(member.pax_headers.get("mtime", member.mtime))
    match = re.fullmatch(r"(-?)(\d{1,11})(?:\.(\d*))?", text)
    if match is None:
        return 0, 0
    sign, seconds, fraction = match.groups("")
    nanoseconds = int(seconds + fraction[:9].ljust(9, "0")) * (-1 if sign else 1)
    return nanoseconds, nanoseconds


class _Stream:
    """A body in pieces as a file that can be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to *size* bytes; fewer only at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]
