"""Copies of images between places, without unpacking anything: documents and blobs stay byte for byte what they are.

An index goes with all its images, or with those of one platform; what refers to an image (signatures, bills of materials) goes with it.
Everything blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index, Manifest, parse_document
from lamina.oci.platform import Platform
from lamina.registry.errors import NotInRegistry, WrongBytes
from lamina.registry.layouts import LayoutPlace
from lamina.registry.places import Blob, Place, RegistryPlace

_AT_ONCE = 4
_DEEPEST = 8
_READ_BYTES = 1 << 20

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Copying:
    """Copies from one place to another. *tell* hears of each blob and document."""

    source: Place
    target: Place
    tell: Tell = lambda text: None
    with_referrers: bool = True
    _done: set[Digest] = field(default_factory=set)

    def run(self, platform: Platform | None = None) -> Digest:
        """Copy what the source's name means to the target's name; of an index only what is for a *platform* if one is given.

        Returns the digest of what has the name there. Raises NotInRegistry, InvalidDocument, WrongBytes, and the registries' errors.
        """
        media_type, data = self.source.manifest()
        if platform is not None:
            media_type, data = select(self.source, media_type, data, platform)
        document = parse_document(data, media_type)
        digest = Digest.of(data)
        self._copy_parts(document, 0)
        self.target.put_document(document.media_type, data)
        self.tell(f"{digest} {document.media_type}")
        if self.with_referrers:
            self._copy_referrers(digest, 0)
        return digest

    def _copy_document(self, pointer: Descriptor, depth: int) -> None:
        """A document and all below it, under its digest."""
        if pointer.digest in self._done or depth > _DEEPEST:
            return
        self._done.add(pointer.digest)
        media_type, data = self.source.manifest_by(pointer.digest)
        document = parse_document(data, media_type or pointer.media_type)
        self._copy_parts(document, depth)
        self.target.put_document(document.media_type, data, pointer.digest)
        self.tell(f"{pointer.digest} {document.media_type}")
        if self.with_referrers:
            self._copy_referrers(pointer.digest, depth + 1)

    def _copy_parts(self, document: Manifest | Index, depth: int) -> None:
        if isinstance(document, Index):
            for entry in document.manifests:
                self._copy_document(entry, depth + 1)
            return
        blobs = {blob.digest: blob for blob in (document.config, *document.layers)}
        missing = [blob for digest, blob in blobs.items() if digest not in self._done]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self._copy_blob, missing):
                pass

    def _copy_referrers(self, digest: Digest, depth: int) -> None:
        for entry in self.source.referrers(digest):
            self._copy_document(entry, depth + 1)

    def _copy_blob(self, blob: Descriptor) -> None:
        self._done.add(blob.digest)
        if self.target.has_blob(blob.digest):
            self.tell(f"{blob.digest} exists")
            return
        if isinstance(self.target, LayoutPlace):
            with self.source.open_blob(blob.digest) as stream:
                self.target.put_stream(blob.digest, _pieces(stream))
        else:
            assert isinstance(self.target, RegistryPlace)
            if self._mounted(blob, self.target):
                self.tell(f"{blob.digest} mounted")
                return
            relayed = _Relayed(self.source, blob)
            try:
                self.target.repository.put_blob(relayed, str(self.target))
            finally:
                relayed.close()
        self.tell(f"{blob.digest} copied")

    def _mounted(self, blob: Descriptor, target: RegistryPlace) -> bool:
        """Whether the registry could give the target a blob of the source, as both are its own."""
        if not isinstance(self.source, RegistryPlace):
            return False
        ours, theirs = self.source.access.reference, target.access.reference
        return (
            ours.domain == theirs.domain
            and ours.path != theirs.path
            and target.repository.mount_blob(blob.digest, ours.path) is None
        )


def select(place: Place, media_type: str, data: bytes, platform: Platform) -> tuple[str, bytes]:
    """A manifest, or of an index the one that is best for a platform. Raises NotInRegistry, InvalidDocument."""
    document = parse_document(data, media_type)
    if not isinstance(document, Index):
        return media_type, data
    chosen = document.for_platform(platform)
    if not chosen:
        raise NotInRegistry(f"no matching manifest for {platform} in the manifest list entries of {place}")
    media_type, data = place.manifest_by(chosen[0].digest)
    return media_type or chosen[0].media_type, data


class _Relayed:
    """A blob that is read at one place while it goes to another; an upload that begins anew has it read anew."""

    def __init__(self, source: Place, blob: Descriptor) -> None:
        self.digest: Digest | None = blob.digest
        self._source = source
        self._blob = blob
        self._stream: Blob | None = None
        self._position = 0

    def wait(self, size: int) -> int:
        """See Uploadable."""
        return self._blob.size

    def read(self, offset: int, size: int) -> bytes:
        """See Uploadable. Raises WrongBytes if the source has fewer than it says."""
        if self._stream is None or offset < self._position:
            self.close()
            self._opened = self._source.open_blob(self._blob.digest)
            self._stream = self._opened.__enter__()
            self._position = 0
        while self._position < offset:
            skipped = self._stream.read(min(_READ_BYTES, offset - self._position))
            if not skipped:
                raise WrongBytes(str(self._source), self._blob.digest)
            self._position += len(skipped)
        data = self._stream.read(size)
        self._position += len(data)
        if len(data) < size and self._position < self._blob.size:
            raise WrongBytes(str(self._source), self._blob.digest)
        return data

    def close(self) -> None:
        """Let go of the source."""
        if self._stream is not None:
            self._stream = None
            self._opened.__exit__(None, None, None)


def _pieces(stream: Blob) -> Iterable[bytes]:
    while data := stream.read(_READ_BYTES):
        yield data
