"""Backups of volumes as tars, and volumes out of them. For worker processes.

A backup is a tar in one zstd frame with a checksum: ``volume.json`` tells what it is, ``data`` and what lies below it are the files, and
the empty ``end`` tells that nothing is missing. The same files and the same description give the same bytes.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator

import msgspec
import zstandard

from lamina.container.errors import CannotExtract
from lamina.container.extraction import Extraction, ExtractOptions
from lamina.layer.compression import open_decompressed
from lamina.layer.diff import add_resource
from lamina.layer.errors import InvalidLayer
from lamina.layer.tarwriter import SourceChanged, TarStream
from lamina.layer.tree import Node
from lamina.linux.user_namespace import IdMap

_FORMAT = 1
_ABOUT, _DATA, _END = "volume.json", "data", "end"
_LONGEST_ABOUT = 1 << 20
_LEVEL = 3


class BackedUpFor(msgspec.Struct, frozen=True, kw_only=True):
    """A container that had the volume."""

    id: str
    name: str
    image: str
    running: bool


class BackupDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is of: which volume, when, of which containers. ``quiesced`` is the one that stood still meanwhile."""

    format: int = _FORMAT
    volume: str
    taken: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    containers: list[BackedUpFor] = []
    quiesced: str = ""


class VolumeChanged(CannotExtract):
    """A file became shorter while it was backed up."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: let the container that writes there stand still with --quiesce")


def write_backup(directory: int, out: int, about: BackupDescription, idmap: IdMap | None) -> None:
    """Write the backup of an open directory to a descriptor. Blocking. Raises OSError, VolumeChanged."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with open(out, "wb", closefd=False) as raw, compressor.stream_writer(raw, closefd=False) as compressed:
        stream = TarStream(compressed.write)
        text = msgspec.json.format(msgspec.json.encode(about))
        stream.add(_ABOUT.encode(), _file(len(text)), io.BytesIO(text).read)
        owner_in = idmap.to_container if idmap is not None else None
        try:
            add_resource(stream, directory, b".", _DATA.encode(), owner_in, as_is=True)
        except SourceChanged as error:
            raise VolumeChanged(str(error)) from None
        stream.add(_END.encode(), _file(0))
        stream.end()


def read_backup(source: int, directory: int, idmap: IdMap | None) -> BackupDescription:
    """Unpack a backup into an open, empty directory, and return what it is of. Blocking.

    Raises CannotExtract if it is no backup, or not whole, or OSError.
    """
    os.umask(0)
    try:
        with tarfile.open(fileobj=open_decompressed(source), mode="r|", errorlevel=2) as archive:
            reading = _Reading(archive)
            about = reading.about()
            extraction = Extraction(directory, "/", ExtractOptions(idmap=idmap))
            extraction.take(archive, reading.files())
            reading.check_whole()
            if reading.top is not None:
                top = os.open(f"/proc/self/fd/{directory}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                extraction.attributes(top, reading.top)
                os.close(top)
    except (tarfile.TarError, InvalidLayer, EOFError, zstandard.ZstdError) as error:
        raise CannotExtract(f"it is not a backup of a volume: {error}") from None
    return about


class _Reading:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._has_ended = False
        self.top: tarfile.TarInfo | None = None

    def about(self) -> BackupDescription:
        first = self._archive.next()
        content = self._archive.extractfile(first) if first is not None and first.name == _ABOUT else None
        if first is None or content is None or first.size > _LONGEST_ABOUT:
            raise CannotExtract(f"it is not a backup of a volume: it does not begin with {_ABOUT}")
        try:
            about = msgspec.json.decode(content.read(), type=BackupDescription)
        except msgspec.MsgspecError as error:
            raise CannotExtract(f"it is not a backup of a volume: {_ABOUT}: {error}") from None
        if about.format != _FORMAT:
            raise CannotExtract(f"the backup is of format {about.format}; this lamina reads format {_FORMAT}")
        return about

    def files(self) -> Iterator[tarfile.TarInfo]:
        """What lies below ``data``, by its place there."""
        while (member := self._archive.next()) is not None:
            if member.name == _END:
                self._has_ended = True
            elif member.name == _DATA:
                self.top = member
            elif member.name.startswith(f"{_DATA}/"):
                member.name = member.name.removeprefix(f"{_DATA}/")
                if member.islnk():
                    member.linkname = member.linkname.removeprefix(f"{_DATA}/")
                yield member
            else:
                raise CannotExtract(f"it is not a backup of a volume: {member.name!r} lies outside of {_DATA}")

    def check_whole(self) -> None:
        if not self._has_ended:
            raise CannotExtract("the backup is cut short: its end is missing")


def _file(size: int) -> Node:
    node = Node(stat.S_IFREG | 0o644)
    node.size = size
    return node
