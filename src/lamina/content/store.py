"""The content store: bytes named by their digest, wholly present and matching, or absent.

On disk it is an OCI image layout (image-spec, image-layout.md)::

    content/oci-layout
    content/index.json             the tagged images, for other programs; lamina's own truth is its database
    content/blobs/sha256/<hex>     configs, manifests, compressed layers and uncompressed layer tars alike
    content/ingest/                unfinished blobs; emptied at start
    content/partial/               blobs on their way from a registry, gone on with after a break; old ones are removed

An uncompressed layer tar is a blob whose digest is its diff ID: the tar *is* the layer. A blob that no image needs is garbage unless
somebody holds a lease on it, which is how a blob lives between its arrival and the commit of the row that refers to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.errors import DataLoss, NotFound
from lamina.linux.files import sync_directory, write_atomically
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_READ_BYTES = 1 << 20
_BLOB_MODE = 0o444
_MAXIMUM_DOCUMENT = 16 << 20
_PARTIAL_S = 3 * 86400


class BlobNotFound(NotFound):
    """No blob of this digest is stored."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"blob {digest} not found")
        self.digest = digest


class DigestMismatch(DataLoss):
    """Bytes from outside are not what their digest says; nothing was stored."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f"digest mismatch: expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class BlobDamaged(DataLoss):
    """A stored blob no longer matches its digest."""

    def __init__(self, digest: Digest, actual: Digest) -> None:
        super().__init__(f"blob {digest} is damaged: its bytes now have the digest {actual}")
        self.digest = digest
        self.actual = actual


class ContentStore:
    """Blobs below a directory. Methods that read or write much are coroutines and work in threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._partial = root / "partial"
        self._leases: Counter[Digest] = Counter()

    def open(self) -> None:
        """Make the layout where it is missing and remove what a crash left unfinished."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._ingest, ignore_errors=True)
        self._ingest.mkdir()
        self._partial.mkdir(exist_ok=True)
        self.remove_old_partials()
        if not (self.root / "oci-layout").exists():
            write_atomically(self.root / "oci-layout", _LAYOUT, 0o644)
        if not (self.root / "index.json").exists():
            self.write_index(())

    def path(self, digest: Digest) -> Path:
        """Where a blob's bytes lie, or would."""
        if digest.algorithm == "sha256":
            return self._blobs / digest.hex
        return self.root / "blobs" / digest.algorithm / digest.hex

    def exists(self, digest: Digest) -> bool:
        """Whether a blob is stored."""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """A blob's length in bytes. Raises BlobNotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobNotFound(digest) from None

    def temporary_path(self) -> Path:
        """A fresh name on the store's file system for bytes on their way in; see ``adopt``."""
        return self._ingest / secrets.token_hex(12)

    def partial_path(self, digest: Digest) -> Path:
        """Where a blob comes to lie piece by piece. What is there after a break may be gone on with, and proves nothing."""
        return self._partial / f"{digest.algorithm}-{digest.hex}"

    def remove_old_partials(self) -> None:
        """Remove what came of blobs that nobody went on with for days."""
        oldest = time.time() - _PARTIAL_S
        for path in self._partial.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def adopt(self, temporary: Path, digest: Digest, *, replace: bool = False) -> None:
        """Take a file whose bytes the caller wrote, hashed to *digest* and synced; its name goes to the blob's.

        Taking one that is stored already is no error: the stored one stays, as it may be mounted, unless *replace* says that it is
        not what it was.
        """
        target = self.path(digest)
        if target.exists() and not replace:
            temporary.unlink()
            return
        temporary.chmod(_BLOB_MODE)
        target.parent.mkdir(exist_ok=True)
        temporary.rename(target)
        sync_directory(target.parent)

    def put(self, data: bytes, *, expected: Digest | None = None) -> Digest:
        """Store a small document durably. Raises DigestMismatch if *expected* is given and differs."""
        digest = Digest.of(data)
        if expected is not None and expected != digest:
            raise DigestMismatch(expected, digest)
        if not self._has_exactly(digest, data):
            temporary = self.temporary_path()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _BLOB_MODE)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            self.adopt(temporary, digest, replace=True)
        return digest

    def _has_exactly(self, digest: Digest, data: bytes) -> bool:
        try:
            return self.path(digest).read_bytes() == data
        except FileNotFoundError:
            return False

    def read(self, digest: Digest) -> bytes:
        """A small document, checked against its digest. Raises BlobNotFound or BlobDamaged."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(_MAXIMUM_DOCUMENT)
        except FileNotFoundError:
            raise BlobNotFound(digest) from None
        actual = _digest_like(digest, (data,))
        if actual != digest:
            raise BlobDamaged(digest, actual)
        return data

    async def verify(self, digest: Digest) -> None:
        """Hash a blob again. Raises BlobNotFound or BlobDamaged."""
        actual = await asyncio.to_thread(self._hash, digest)
        if actual != digest:
            raise BlobDamaged(digest, actual)

    async def is_damaged(self, digest: Digest) -> bool:
        """Whether a blob is stored and no longer matches its digest."""
        try:
            return await asyncio.to_thread(self._hash, digest) != digest
        except BlobNotFound:
            return False

    def delete(self, digest: Digest) -> int:
        """Remove a blob and return how many bytes that freed; one that is leased or absent stays and frees none."""
        if self._leases[digest] > 0:
            return 0
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[Digest]:
        """Every stored blob."""
        for directory in (self.root / "blobs").iterdir():
            for path in directory.iterdir():
                yield Digest(f"{directory.name}:{path.name}")

    @contextmanager
    def lease(self, digests: Iterable[Digest] = ()) -> Iterator[Lease]:
        """Keep blobs from being deleted for the length of the block; more can be added to the lease on the way."""
        lease = Lease(self._leases)
        lease.add(*digests)
        try:
            yield lease
        finally:
            lease.release()

    def write_index(self, manifests: Iterable[Descriptor]) -> None:
        """Tell other programs which images there are."""
        write_atomically(self.root / "index.json", Index.build(tuple(manifests)).data, 0o644)

    def _hash(self, digest: Digest) -> Digest:
        try:
            file = open(self.path(digest), "rb", buffering=0)  # noqa: SIM115 - closed by the with below
        except FileNotFoundError:
            raise BlobNotFound(digest) from None
        with file:
            return _digest_like(digest, iter(lambda: file.read(_READ_BYTES), b""))


class Lease:
    """Digests that must not be deleted while their user is at work."""

    def __init__(self, counts: Counter[Digest]) -> None:
        self._counts = counts
        self._held: list[Digest] = []

    def add(self, *digests: Digest) -> None:
        """Hold further blobs, present or not yet."""
        self._held.extend(digests)
        self._counts.update(digests)

    def release(self) -> None:
        """Let go of all."""
        self._counts.subtract(self._held)
        for digest in self._held:
            if self._counts[digest] <= 0:
                del self._counts[digest]
        self._held = []


def _digest_like(digest: Digest, chunks: Iterable[bytes]) -> Digest:
    state = hashlib.new(digest.algorithm)
    for chunk in chunks:
        state.update(chunk)
    return Digest(f"{digest.algorithm}:{state.hexdigest()}")
