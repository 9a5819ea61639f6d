"""Directories that are OCI image layouts (image-spec, image-layout.md), as places where images and caches lie."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from lamina.linux.files import atomic_file, write_atomically
from lamina.oci.descriptor import OCI_INDEX, Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index, Manifest
from lamina.registry.errors import LayoutUnwritable, NotInRegistry, WrongBytes
from lamina.registry.places import Blob

_REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_COPY_BYTES = 1 << 20
_MAXIMUM_DOCUMENT = 32 << 20


@dataclass(frozen=True)
class LayoutPlace:
    """A name in a directory that is an OCI image layout (image-spec, image-layout.md); *digest* is one of its manifests instead."""

    directory: Path
    name: str = "latest"
    digest: Digest | None = None

    def __str__(self) -> str:
        return str(self.directory)

    def manifest(self) -> tuple[str, bytes]:
        """See Place. In a directory with one manifest that one has every name."""
        if self.digest is not None:
            return self.manifest_by(self.digest)
        entries = self._entries()
        named = [entry for entry in entries if (entry.annotations or {}).get(_REF_NAME) == self.name]
        found = named or (entries if len(entries) == 1 else [])
        if not found:
            raise NotInRegistry(f"{self.name} in {self.directory}")
        return found[0].media_type, self.read_blob(found[0].digest)

    def manifest_by(self, digest: Digest) -> tuple[str, bytes]:
        """See Place."""
        return "", self.read_blob(digest)

    def read_blob(self, digest: Digest) -> bytes:
        """See Place."""
        with self._open(digest) as file:
            data = file.read(_MAXIMUM_DOCUMENT + 1)
        if not digest.matches(data):
            raise WrongBytes(str(self.directory), digest)
        return data

    def open_blob(self, digest: Digest) -> AbstractContextManager[Blob]:
        """See Place."""
        return self._open(digest)

    def put_data(self, data: bytes) -> Digest:
        """See Place."""
        digest = Digest.of(data)
        if not self.has_blob(digest):
            self._put(digest, lambda target: write_atomically(target, data, 0o644))
        return digest

    def has_blob(self, digest: Digest) -> bool:
        """See Place."""
        with self._telling():
            return self._path(digest).exists()

    def put_file(self, digest: Digest, path: Path) -> None:
        """See Place."""
        if not self.has_blob(digest):
            self._put(digest, lambda target: _copy(path, target))

    def put_manifest(self, manifest: Manifest) -> None:
        """See Place. The other names of the directory stay."""
        self.put_document(manifest.media_type, manifest.data)

    def put_document(self, media_type: str, data: bytes, digest: Digest | None = None) -> None:
        """See Place. What refers to something is listed without a name."""
        stored = digest or Digest.of(data)
        if not self.has_blob(stored):
            self.put_stream(stored, [data])
        annotations = {_REF_NAME: self.name} if digest is None else None
        if digest is not None and _subject_of(data) is None:
            return
        entry = Descriptor(media_type, stored, len(data), annotations=annotations)
        kept = [
            other
            for other in self._entries()
            if (other.annotations or {}).get(_REF_NAME) != self.name and (annotations or other.digest != stored)
        ]
        with self._telling():
            write_atomically(self.directory / "oci-layout", _LAYOUT, 0o644)
            write_atomically(self.directory / "index.json", Index.build((*kept, entry)).data, 0o644)

    def put_stream(self, digest: Digest, pieces: Iterable[bytes]) -> None:
        """Store a blob as it comes. Raises WrongBytes; nothing is left of it then."""
        state = hashlib.new(digest.algorithm)

        def write(target: Path) -> None:
            with atomic_file(target, 0o644) as file:
                for piece in pieces:
                    state.update(piece)
                    file.write(piece)
                if state.hexdigest() != digest.hex:
                    raise WrongBytes(str(self.directory), digest)

        self._put(digest, write)

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """See Place."""
        return [
            entry for entry in self._entries() if entry.digest != digest and self._subject_of_entry(entry) == digest
        ]

    def _subject_of_entry(self, entry: Descriptor) -> str | None:
        try:
            return _subject_of(self.read_blob(entry.digest))
        except (NotInRegistry, WrongBytes):
            return None

    def _entries(self) -> list[Descriptor]:
        try:
            data = (self.directory / "index.json").read_bytes()
        except OSError:
            return []
        return list(Index.parse(data, OCI_INDEX).manifests)

    def _path(self, digest: Digest) -> Path:
        return self.directory / "blobs" / digest.algorithm / digest.hex

    def _open(self, digest: Digest) -> BinaryIO:
        """A blob's file; not one that waits for somebody, such as a pipe."""
        try:
            return open(self._path(digest), "rb", opener=_open_file)
        except OSError:
            raise NotInRegistry(f"{digest} in {self.directory}") from None

    def _put(self, digest: Digest, write: Callable[[Path], None]) -> None:
        target = self._path(digest)
        with self._telling():
            target.parent.mkdir(parents=True, exist_ok=True)
            write(target)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What the file system refuses, as an error of ours."""
        try:
            yield
        except OSError as error:
            raise LayoutUnwritable(self.directory, error.strerror or str(error)) from None


class _Subject(msgspec.Struct):
    digest: str = ""


class _Referring(msgspec.Struct):
    subject: _Subject | None = None


def _subject_of(data: bytes) -> str | None:
    """The digest of what a document refers to (image-spec, manifest.md, ``subject``)."""
    try:
        subject = msgspec.json.decode(data, type=_Referring).subject
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return subject.digest if subject is not None else None


def _open_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file, atomic_file(target, 0o644) as copy:
        shutil.copyfileobj(file, copy, _COPY_BYTES)
