"""Where images and caches lie outside the store: under a name in a registry, or in a directory that is an OCI image layout.

Places are values that can be sent to a worker process; their methods block.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from lamina.linux.files import atomic_file, write_atomically
from lamina.oci.descriptor import OCI_INDEX, Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index, Manifest
from lamina.registry.access import Access
from lamina.registry.errors import LayoutUnwritable, NotInRegistry, WrongBytes

if TYPE_CHECKING:
    from lamina.registry.connection import Connection
    from lamina.registry.download import Download
    from lamina.registry.repository import Repository

_REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_COPY_BYTES = 1 << 20
_MAXIMUM_DOCUMENT = 32 << 20


class Blob(Protocol):
    """A blob being read."""

    def read(self, size: int) -> bytes:
        """*size* bytes, fewer only at the end."""


class Place(Protocol):
    """Where one manifest with its blobs lies, or is to lie. Methods raise NotInRegistry, WrongBytes and the registry's errors."""

    def manifest(self) -> tuple[str, bytes]:
        """The media type and bytes of what has the place's name."""

    def manifest_by(self, digest: Digest) -> tuple[str, bytes]:
        """The same of another manifest there."""

    def read_blob(self, digest: Digest) -> bytes:
        """A small blob, verified."""

    def open_blob(self, digest: Digest) -> AbstractContextManager[Blob]:
        """A blob as it comes, to be verified by whoever reads it."""

    def put_data(self, data: bytes) -> Digest:
        """Store a small blob, unless it is there."""

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob is there."""

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a file as a blob, unless it is there."""

    def put_manifest(self, manifest: Manifest) -> None:
        """Give a manifest, whose blobs are there, the place's name."""


@dataclass(frozen=True)
class RegistryPlace:
    """A tag, or a digest, in a repository."""

    access: Access

    @cached_property
    def repository(self) -> Repository:
        """The repository, with connections of its own."""
        # here and not above: a daemon names places, and only its workers open them and need urllib3
        from lamina.registry.repository import Repository

        return Repository(self.access)

    def __getstate__(self) -> dict[str, Access]:
        return {"access": self.access}  # connections stay where they are

    def __str__(self) -> str:
        return self.access.reference.familiar

    @property
    def name(self) -> str:
        """The tag, or the digest."""
        reference = self.access.reference
        return str(reference.digest or reference.tag)

    def download(self, descriptor: Descriptor, path: Path) -> Download:
        """A blob on its way to a file, in whose beginning it may have come already."""
        from lamina.registry.download import Download

        return Download(self.repository, descriptor.digest, descriptor.size, path)

    def distrust(self, connection: Connection) -> bool:
        """Ask a server no more, as it sent wrong bytes; whether there is another one."""
        return self.repository.distrust(connection)

    def manifest(self) -> tuple[str, bytes]:
        """See Place."""
        return self.repository.manifest(self.name)

    def manifest_by(self, digest: Digest) -> tuple[str, bytes]:
        """See Place."""
        return self.repository.manifest(str(digest))

    def read_blob(self, digest: Digest) -> bytes:
        """See Place."""
        return self.repository.read_blob(digest)

    def open_blob(self, digest: Digest) -> AbstractContextManager[Blob]:
        """See Place."""
        return self.repository.open_blob(digest)

    def put_data(self, data: bytes) -> Digest:
        """See Place."""
        return self.repository.put_data(data)

    def has_blob(self, digest: Digest) -> bool:
        """See Place."""
        return self.repository.has_blob(digest)

    def put_file(self, digest: Digest, path: Path) -> None:
        """See Place."""
        self.repository.put_file(digest, path)

    def put_manifest(self, manifest: Manifest) -> None:
        """See Place."""
        self.repository.put_manifest(self.name, manifest.media_type, manifest.data)


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
        if Digest.of(data) != digest:
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
        return self._path(digest).exists()

    def put_file(self, digest: Digest, path: Path) -> None:
        """See Place."""
        if not self.has_blob(digest):
            self._put(digest, lambda target: _copy(path, target))

    def put_manifest(self, manifest: Manifest) -> None:
        """See Place. The other names of the directory stay."""
        self.put_data(manifest.data)
        kept = [entry for entry in self._entries() if (entry.annotations or {}).get(_REF_NAME) != self.name]
        pointer = manifest.descriptor
        entry = Descriptor(pointer.media_type, pointer.digest, pointer.size, annotations={_REF_NAME: self.name})
        with self._telling():
            write_atomically(self.directory / "oci-layout", _LAYOUT, 0o644)
            write_atomically(self.directory / "index.json", Index.build((*kept, entry)).data, 0o644)

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


def _open_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file, atomic_file(target, 0o644) as copy:
        shutil.copyfileobj(file, copy, _COPY_BYTES)
