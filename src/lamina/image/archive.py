"""Image archives taken apart: one pass over the outer tar, each layer inside it streamed straight into the store's files.

Runs in a worker process. Both forms of archive are read: docker's (manifest.json, with layers as ``ID/layer.tar`` or blobs) and the
OCI image layout. Which entries are layers is known only from a JSON that may come last, so every entry that does not look like JSON is
taken as one; an entry that turns out to be no tar is remembered with its reason, and counts only if a manifest names it.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lamina.errors import LaminaError
from lamina.image.errors import InvalidArchive
from lamina.layer.compression import open_decompressed
from lamina.layer.errors import LayerTooLarge
from lamina.layer.headers import BLOCK, is_header
from lamina.layer.ingest import IngestedLayer, Limits, ingest

_MAXIMUM_DOCUMENT = 8 << 20
_MAXIMUM_DOCUMENTS = 64 << 20
_MAXIMUM_ENTRIES = 10_000
_MAXIMUM_LAYERS = 64
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class StagedLayer:
    """A layer whose files lie under temporary names."""

    layer: IngestedLayer
    tar: Path
    tree: Path
    blob: Path
    is_stored: bool = False
    """Whether the files are the store's own, which the archive left out."""


@dataclass
class Unpacked:
    """What an archive held, by normalized entry name; ``links`` are names that stand for other entries."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, StagedLayer] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    stored: Mapping[str, StagedLayer] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """The entry that a name means, through links. Raises InvalidArchive for a loop."""
        name = posixpath.normpath(name)
        for _ in range(16):
            if name not in self.links:
                return name
            name = self.links[name]
        raise InvalidArchive("its links form a loop", [name])


def unpack(source_fd: int, staging: Path, limits: Limits) -> Unpacked:
    """Read an archive (plain or compressed) from a descriptor to its end; layer files go below *staging*.

    An archive may have the bytes of as many layers as overlayfs stacks in an image at docker, each as large as the limits allow.
    Blocking. Raises InvalidArchive if the outer tar is damaged or too large; files that were staged by then are the caller's to remove.
    """
    result = Unpacked()
    with open_decompressed(source_fd) as opened:
        stream = _Bounded(opened, limits.tar_bytes * _MAXIMUM_LAYERS)
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_COPY_BYTES) as archive:
                for count, member in enumerate(archive):
                    if count >= _MAXIMUM_ENTRIES:
                        raise InvalidArchive(f"it has more than {_MAXIMUM_ENTRIES} entries")
                    _take(archive, member, result, staging / f"{count}", limits)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InvalidArchive(str(error)) from error
        while stream.read(_COPY_BYTES):
            pass  # padding behind the end mark: the sender must be able to finish
    return result


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, result: Unpacked, stem: Path, limits: Limits) -> None:
    name = posixpath.normpath(member.name)
    if member.issym():
        result.links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    elif member.islnk():
        result.links[name] = posixpath.normpath(member.linkname)
    elif member.isfile():
        stream = archive.extractfile(member)
        assert stream is not None
        head = stream.read(BLOCK)
        if member.size <= _MAXIMUM_DOCUMENT and _looks_like_json(head):
            _take_document(name, head + stream.read(), result)
        else:
            _take_layer(name, _Prefixed(head, stream), result, stem, limits)


def _looks_like_json(head: bytes) -> bool:
    """Whether an entry is a document: a tar may begin with a brace too, if its first entry's name does."""
    return head.lstrip()[:1] in (b"{", b"[") and not is_header(head)


def _take_document(name: str, data: bytes, result: Unpacked) -> None:
    result.documents[name] = data
    if sum(map(len, result.documents.values())) > _MAXIMUM_DOCUMENTS:
        raise InvalidArchive(f"its documents are larger than {_MAXIMUM_DOCUMENTS} bytes together")


def _take_layer(name: str, stream: _Prefixed, result: Unpacked, stem: Path, limits: Limits) -> None:
    tar, tree, blob = (stem.with_suffix(suffix) for suffix in (".tar", ".tree", ".blob"))

    try:
        layer = ingest(stream.read_fully, tar_path=tar, tree_path=tree, blob_path=blob, limits=limits)
    except LayerTooLarge as error:
        raise InvalidArchive(f"layer {name}: {error}") from error
    except LaminaError as error:
        result.rejected[name] = str(error)
    else:
        result.layers[name] = StagedLayer(layer, tar, tree, blob)
    while stream.read(_COPY_BYTES):
        pass  # what was refused is still in the way of what follows it


class _Bounded(io.RawIOBase):
    """A stream that may not have more than so many bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidArchive(f"it is larger than {self._limit} bytes")
        return data


class _Prefixed(io.RawIOBase):
    """A stream with the bytes put back that were read to look at it."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        return head + self._rest.read(max(0, size - len(head)) if size >= 0 else size)

    def read_fully(self, size: int) -> bytes:
        """*size* bytes, fewer only at the end."""
        pieces = []
        while size and (data := self.read(size)):
            pieces.append(data)
            size -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
