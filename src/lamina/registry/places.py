"""Where images and caches lie outside the store: under a name in a registry, or in a directory that is an OCI image layout.

Places are values that can be sent to a worker process; their methods block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Manifest
from lamina.registry.access import Access

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

    def put_document(self, media_type: str, data: bytes, digest: Digest | None = None) -> None:
        """Store a manifest or index, whose parts are there, under its *digest*; without one, under the place's name."""

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """What refers to a manifest there."""


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
        self.put_document(manifest.media_type, manifest.data)

    def put_document(self, media_type: str, data: bytes, digest: Digest | None = None) -> None:
        """See Place."""
        self.repository.put_manifest(str(digest or self.name), media_type, data)

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """See Place."""
        return self.repository.referrers(digest).manifests
