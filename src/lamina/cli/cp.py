"""``cp``: files between a container and this machine, as tars of which both ends are the daemon's and this command's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lamina.api.sizes import human_size
from lamina.cli import copy_paths
from lamina.cli.copy_paths import Destination, Source
from lamina.cli.grammar import CommandFailed, Options, Parser
from lamina.cli.output import stderr
from lamina.client.client import Client, quoted
from lamina.errors import LaminaError

if TYPE_CHECKING:
    import tarfile

_STREAM = "-"
_READ_BYTES = 1 << 20
_CAPABILITY = "security.capability"
# of Go's FileMode (io/fs), which the API speaks
_DIRECTORY, _LINK, _DEVICE = 1 << 31, 1 << 27, 1 << 26


def cp(client: Client, argv: list[str]) -> int:
    """``lamina cp``."""
    options = _options(argv)
    if not options.source:
        raise CommandFailed("source can not be empty")
    if not options.destination:
        raise CommandFailed("destination can not be empty")
    giver, source = copy_paths.container_and_path(options.source)
    taker, destination = copy_paths.container_and_path(options.destination)
    if giver and taker:
        raise CommandFailed("copying between containers is not supported")
    if giver:
        _Copy(client, giver, options).out(source, destination)
    elif taker:
        _Copy(client, taker, options).into(source, destination)
    else:
        raise CommandFailed("must specify at least one container source")
    return 0


def _options(argv: list[str]) -> Options:
    usage = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tlamina cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
    parser = Parser("cp", usage)
    parser.flag("-a", "--archive", help="Give what is copied into a container to the container's user")
    parser.flag("-L", "--follow-link", help="Copy what a link in SRC_PATH leads to")
    # without a terminal there is nobody to be told, unless that is asked for
    parser.flag("-q", "--quiet", default=not sys.stdout.isatty(), help="Do not tell how much was copied")
    parser.add_argument("source")
    parser.add_argument("destination")
    return parser.parse(argv)


class _Copy:
    """One copy out of a container or into it."""

    def __init__(self, client: Client, container: str, options: Options) -> None:
        self._client = client
        self._container = container
        self._url = f"/containers/{quoted(container)}/archive"
        self._follows = options.follow_link
        self._as_user = options.archive
        self._is_quiet = options.quiet

    def out(self, path: str, typed: str) -> None:
        """Copy a path of the container to one of this machine, or as a tar to standard output."""
        where = typed if typed == _STREAM else copy_paths.absolute(typed)
        if where != _STREAM:
            copy_paths.check_host_destination(where)
        found = self._link_target(path) if self._follows else path
        response = self._client.request("GET", self._url, {"path": found})
        if where == _STREAM:
            for piece in response:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        is_directory = bool(_described_path(response.headers)["mode"] & _DIRECTORY)
        source = Source(found, copy_paths.parent_and_name(path)[1], is_directory)
        directory, name = copy_paths.placed(source, copy_paths.host_destination(where))
        base = copy_paths.parent_and_name(found)[1]
        counted = _Counted(response)
        self._unpack(counted, directory, base, name)
        self._tell(counted.size, where)

    def into(self, path: str, where: str) -> None:
        """Copy a path of this machine, or standard input's tar, to one of the container."""
        destination = self._destination(where)
        if path == _STREAM:
            if not destination.is_directory:
                raise CommandFailed(f'destination "{self._container}:{where}" must be a directory')
            self._write(destination.path, iter(lambda: sys.stdin.buffer.read(_READ_BYTES), b""))
            self._tell(0, f"{self._container}:{destination.path}")
            return
        source = copy_paths.host_source(copy_paths.absolute(path), follow=self._follows)
        directory, name = copy_paths.placed(source, destination)
        counted = _Counted(_packed(source.path, name))
        self._write(directory, counted)
        self._tell(counted.size, f"{self._container}:{destination.path}")

    def _destination(self, path: str) -> Destination:
        """What is at the container's path. One that cannot be looked at is taken for a new one: the copy will tell what is wrong."""
        try:
            there = self._stat(path)
        except LaminaError:
            return Destination(path, exists=False, is_directory=False)
        found = path
        if there["mode"] & _LINK:
            found = _target(path, there["linkTarget"])
            try:
                there = self._stat(found)
            except LaminaError:
                return Destination(found, exists=False, is_directory=False)
        if there["mode"] & _DEVICE:
            raise CommandFailed(
                f'destination "{self._container}:{path}" must be a directory or a regular file: got a device'
            )
        return Destination(found, exists=True, is_directory=bool(there["mode"] & _DIRECTORY))

    def _link_target(self, path: str) -> str:
        """The path that a link of the container leads to; of anything else the path itself."""
        try:
            there = self._stat(path)
        except LaminaError:
            return path
        return copy_paths.with_end_of(_target(path, there["linkTarget"]), path) if there["mode"] & _LINK else path

    def _stat(self, path: str) -> dict[str, Any]:
        return _described_path(self._client.request("HEAD", self._url, {"path": path}).headers)

    def _write(self, directory: str, pieces: Iterable[bytes]) -> None:
        query = {"path": directory, "noOverwriteDirNonDir": "true", "copyUIDGID": "true" if self._as_user else ""}
        self._client.request("PUT", self._url, query, chunks=pieces).read()

    def _unpack(self, pieces: Iterable[bytes], directory: str, base: str, name: str) -> None:
        from pathlib import Path

        from lamina.cli.unpacking import unpack

        unpack(pieces, Path(directory), name_of=lambda entry: copy_paths.renamed(entry, base, name), as_cp=True)
        for _ in pieces:
            pass  # an answer that was cut off behind the tar's end is a failure, too

    def _tell(self, size: int, where: str) -> None:
        if not self._is_quiet:
            stderr(f"Successfully copied {human_size(size)} to {where}")


class _Counted:
    """Pieces, and how many bytes they were so far."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            yield piece


def _target(path: str, link: str) -> str:
    """Where a link at a path of a container leads to."""
    return link if link.startswith("/") else copy_paths.clean(f"{copy_paths.parent_and_name(path)[0]}/{link}")


def _described_path(headers: dict[str, str]) -> dict[str, Any]:
    """What the daemon says of a path. Raises CommandFailed if it says nothing that can be read."""
    import base64
    import json

    try:
        described: dict[str, Any] = json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
    except (KeyError, ValueError) as error:
        raise CommandFailed(f"unable to decode container path stat header: {error}") from None
    return described


def _packed(path: str, name: str) -> Iterator[bytes]:
    """A file, with all that is in it, as a tar of *name*; owners are kept, times by the second as docker's."""
    from lamina.cli.packing import END, entries, gathered

    yield from gathered(entries(_below(path, name), _as_copy))
    yield END


def _as_copy(header: tarfile.TarInfo, path: str) -> None:
    header.mtime = int(header.mtime)
    try:
        capability = os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return
    header.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": capability.decode("utf-8", "surrogateescape")}


def _below(path: str, name: str) -> Iterator[tuple[str, str]]:
    """(path, name in the tar) of a file and all that is in it, in order."""
    pending = [(path, name)]
    while pending:
        path, name = pending.pop()
        yield path, name
        if os.path.isdir(path) and not os.path.islink(path):
            below = sorted(os.listdir(path), reverse=True)
            pending += [(os.path.join(path, entry), f"{name.rstrip('/')}/{entry}") for entry in below]


COMMANDS = {"cp": cp}
