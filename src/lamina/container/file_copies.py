"""Files into and out of containers (``docker cp``; Engine API, archive): as tars, of containers that run and of those that do not."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from lamina.container.errors import CannotExtract, CannotWrite, FileNotInContainer
from lamina.container.extraction import ExtractOptions, extract
from lamina.container.record import Record
from lamina.container.root_views import RootViews
from lamina.layer.diff import add_resource
from lamina.layer.tarwriter import TarStream
from lamina.linux import paths, pipes
from lamina.linux.tasks import to_the_end
from lamina.linux.user_namespace import IdMap
from lamina.linux.worker import run_in_worker
from lamina.runtime.users import resolve

_GO_MODES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True)
class PathStat:
    """A file as the API describes it: ``mode`` in the bits of Go's FileMode, ``link_target`` is where a link leads in the container."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


@dataclass(frozen=True)
class _Resource:
    """A path that was asked for: its directory, opened, its name there, the name that it is shown by, and what it is."""

    parent: int
    name: str
    shown: str
    stat: PathStat


class FileCopies:
    """Reads and writes files of containers."""

    def __init__(self, views: RootViews) -> None:
        self._views = views

    async def stat(self, record: Record, path: str) -> PathStat:
        """What is at a path; a link in its last place is not followed. Raises FileNotInContainer, CannotExtract."""
        async with self._views.of(record) as root, _resource(root, record, path) as resource:
            return resource.stat

    @asynccontextmanager
    async def reading(self, record: Record, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """What is at a path, and its tar, whose names begin with the path's last part. Raises as ``stat`` does."""
        async with self._views.of(record) as root, _resource(root, record, path) as resource:
            parent, name, shown = resource.parent, resource.name, resource.shown

            async def write(fd: int) -> None:
                names = (os.fsencode(name), os.fsencode(shown))
                hollow = _mounted_by_runtime(shown) if _normal(path) == "/" else frozenset()
                await run_in_worker(_write_archive, (parent, fd), parent, *names, fd, record.idmap, hollow)

            yield resource.stat, pipes.drain(write)

    async def write(
        self, record: Record, path: str, body: AsyncIterable[bytes], *, keeps_kinds: bool, as_user: bool
    ) -> None:
        """Unpack a tar into the directory at a path. With *as_user* all that is made belongs to the container's user.

        Raises FileNotInContainer, CannotExtract, CannotWrite, or OSError.
        """
        async with self._views.of(record) as root:
            directory = _normal(path)
            await to_the_end(asyncio.to_thread(_check_writable, root, record, directory, path))
            owner = await to_the_end(asyncio.to_thread(_owner, root, record)) if as_user else None
            options = ExtractOptions(keeps_kinds, owner, record.idmap)

            async def take(fd: int) -> None:
                await run_in_worker(extract, (root, fd), root, directory, fd, options)

            try:
                await pipes.feed(body, take)
            except OSError as error:
                raise _in_words(error, record) from None


@asynccontextmanager
async def _resource(root: int, record: Record, path: str) -> AsyncIterator[_Resource]:
    with ExitStack() as opened:
        # in a thread: what a container has mounted may be slow, or may never answer
        yield await to_the_end(asyncio.to_thread(_locate, root, record, path, opened))


def _locate(root: int, record: Record, path: str, opened: ExitStack) -> _Resource:
    """Blocking; what is opened is closed with *opened*. Raises FileNotInContainer, CannotExtract."""
    if not path:
        raise CannotExtract("bad parameter: path cannot be empty")
    directory, name = os.path.split(_normal(path))
    follows = path.endswith(("/", "/.")) or not name or path == "."
    here = "." if follows else name
    try:
        parent = paths.open_in_root(root, _normal(path) if follows else directory, os.O_PATH | os.O_DIRECTORY)
        opened.callback(os.close, parent)
        status = os.stat(here, dir_fd=parent, follow_symlinks=False)
    except NotADirectoryError:
        raise CannotExtract(f"{path}: not a directory") from None
    except OSError:
        raise FileNotInContainer(path, record.id) from None
    try:
        target = paths.resolve_in_root(root, _normal(path)) if stat.S_ISLNK(status.st_mode) else ""
    except OSError as error:
        raise CannotExtract(f"{path}: {(error.strerror or str(error)).lower()}") from None
    shown = "." if path.endswith("/.") else name or "/"
    described = PathStat(
        name=shown,
        size=status.st_size,
        mode=_go_mode(status.st_mode),
        mtime_ns=status.st_mtime_ns,
        link_target=target,
    )
    return _Resource(parent, here, shown, described)


def _owner(root: int, record: Record) -> tuple[int, int] | None:
    """The container's user and group; None if it has none of its own. Blocking. Raises UserNotFound."""
    if not record.config.user:
        return None
    identity = resolve(root, record.config.user)
    return identity.uid, identity.gid


def _check_writable(root: int, record: Record, directory: str, path: str) -> None:
    try:
        fd = paths.open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError:
        raise CannotExtract("extraction point is not a directory") from None
    except OSError:
        raise FileNotInContainer(path, record.id) from None
    try:
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            if os.fstat(fd).st_dev == os.stat(root).st_dev:
                raise CannotWrite("container rootfs is marked read-only")
            raise CannotWrite("mounted volume is marked read-only")
    finally:
        os.close(fd)


def _in_words(error: OSError, record: Record) -> Exception:
    if error.errno == errno.EROFS:
        return CannotWrite("container rootfs is marked read-only")
    if error.errno in (
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EBUSY,
        errno.EISDIR,
        errno.ENOENT,
        errno.EXDEV,
        errno.ENAMETOOLONG,
    ):
        what = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return CannotExtract(f"{what}{(error.strerror or str(error)).lower()}")
    return error


def _normal(path: str) -> str:
    """An absolute path without ``.`` and doubled slashes; ``..`` is taken away as docker does, before any link is followed."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def _mounted_by_runtime(shown: str) -> frozenset[bytes]:
    """What a running container's root has that is no part of its files: the kernel's own file systems, in an archive of all."""
    return frozenset(os.fsencode(f"{shown.rstrip('/')}/{name}") for name in ("dev", "proc", "sys"))


def _write_archive(
    parent: int, name: bytes, shown: bytes, fd: int, idmap: IdMap | None, hollow: frozenset[bytes]
) -> None:
    """In a worker: the tar of a file, with all that lies in it."""
    with open(fd, "wb", buffering=0, closefd=False) as file:

        def write(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]

        stream = TarStream(write)
        add_resource(stream, parent, name, shown, idmap.to_container if idmap is not None else None, hollow)
        stream.end()


def _go_mode(mode: int) -> int:
    """Go's FileMode, as docker's clients read it (io/fs)."""
    kind = _GO_MODES.get(stat.S_IFMT(mode), 0)
    bits = sum(value for bit, value in _GO_BITS.items() if mode & bit)
    return mode & 0o777 | kind | bits
