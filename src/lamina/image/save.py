"""Save: images become an archive that docker, podman, skopeo and lamina read.

The archive is an OCI image layout with docker's manifest.json beside it, both naming the same blobs, as docker writes it since 25.
Blobs go out as they lie in the store, so every digest stays.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lamina.content import BlobDamaged, BlobNotFound, ContentStore
from lamina.image.errors import ImageNotFound
from lamina.image.store import Image, ImageStore
from lamina.linux.pipes import drain
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import Descriptor, encode_json
from lamina.oci.digest import Digest, ImageID
from lamina.oci.manifest import Index
from lamina.oci.reference import InvalidReference, Reference

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Selection:
    """An image to save and the names to save it under, possibly none."""

    image: Image
    names: tuple[Reference, ...]


def select(images: ImageStore, names: Sequence[str]) -> list[Selection]:
    """What ``save NAME…`` means: a tag saves under that tag, a repository alone under all its tags, an ID without a name.

    Raises ImageNotFound.
    """
    chosen: dict[ImageID, dict[Reference, None]] = {}
    for name in names:
        repository = _repository_tags(images, name)
        for image_id, reference in repository or [_find(images, name)]:
            held = chosen.setdefault(image_id, {})
            if reference is not None and reference.tag is not None:
                held[reference] = None
    return [Selection(images.get(image_id), tuple(held)) for image_id, held in chosen.items()]


def _repository_tags(images: ImageStore, name: str) -> list[tuple[ImageID, Reference | None]]:
    """All tags of a repository, if *name* is one."""
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return []
    if reference.tag or reference.digest:
        return []
    return [(i, tag) for tag, i in sorted(images.tags().items()) if tag.repository == reference.repository]


def _find(images: ImageStore, name: str) -> tuple[ImageID, Reference | None]:
    try:
        return images.find_named(name)
    except ImageNotFound:
        raise ImageNotFound(name) from None


def save(
    selections: Sequence[Selection], content: ContentStore, *, without: Collection[Digest] = ()
) -> AsyncIterator[bytes]:
    """The bytes of the archive, *without* some layers that whoever reads it has.

    Raises BlobNotFound at once if a blob is missing; the bytes end with BlobDamaged at a damaged one.
    """
    blobs = sorted({blob for s in selections for blob in _archived_blobs(s.image) if blob not in without})
    for blob in blobs:
        if not content.exists(blob):
            raise BlobNotFound(blob)
    return _archive(selections, blobs, content)


async def _archive(
    selections: Sequence[Selection], blobs: Sequence[Digest], content: ContentStore
) -> AsyncIterator[bytes]:
    documents = {
        "index.json": _index(selections),
        "manifest.json": _docker_manifest(selections),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "repositories": _repositories(selections),
    }
    files = {blob: content.path(blob) for blob in blobs}
    with content.lease(blobs):
        async for chunk in drain(lambda fd: run_in_worker(write_archive, (fd,), fd, files, documents)):
            yield chunk


def write_archive(target_fd: int, files: Mapping[Digest, Path], documents: Mapping[str, bytes]) -> None:
    """Write the tar, to a pipe or a file: blobs, then the documents that name them. Blocking; deterministic. Raises BlobDamaged."""
    with (
        open(target_fd, "wb", buffering=_BUFFER_BYTES, closefd=False) as sink,
        tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER_BYTES) as archive,
    ):
        for directory in ("blobs", "blobs/sha256"):
            header = tarfile.TarInfo(directory)
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(header)
        for digest, path in files.items():
            with open(path, "rb") as blob:
                hashed = _Hashed(blob, digest)
                archive.addfile(_header(_entry_name(digest), path.stat().st_size), hashed)
                hashed.check()
        for name, data in documents.items():
            archive.addfile(_header(name, len(data)), io.BytesIO(data))


class _Hashed(io.RawIOBase):
    """A blob that is hashed while it is read."""

    def __init__(self, blob: IO[bytes], digest: Digest) -> None:
        self._blob = blob
        self._digest = digest
        self._state = hashlib.new(digest.algorithm)

    def read(self, size: int = -1) -> bytes:
        data = self._blob.read(size)
        self._state.update(data)
        return data

    def check(self) -> None:
        """Raises BlobDamaged."""
        actual = Digest(f"{self._digest.algorithm}:{self._state.hexdigest()}")
        if actual != self._digest:
            raise BlobDamaged(self._digest, actual)


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def _archived_blobs(image: Image) -> set[Digest]:
    layers = {layer.digest for layer in image.manifest.layers}
    return {image.manifest.descriptor.digest, image.manifest.config.digest, *layers}


def _index(selections: Sequence[Selection]) -> bytes:
    pointers = []
    for selection in selections:
        manifest = selection.image.manifest.descriptor
        for name in selection.names or (None,):
            annotations = {_IMAGE_NAME: str(name), _REF_NAME: name.tag or ""} if name else None
            pointers.append(
                Descriptor(
                    media_type=manifest.media_type,
                    digest=manifest.digest,
                    size=manifest.size,
                    annotations=annotations,
                )
            )
    return Index.build(tuple(pointers)).data


def _docker_manifest(selections: Sequence[Selection]) -> bytes:
    entries: list[dict[str, Any]] = [
        {
            "Config": _entry_name(s.image.image_id),
            "RepoTags": [name.familiar for name in s.names] or None,
            "Layers": [_entry_name(layer.digest) for layer in s.image.manifest.layers],
        }
        for s in selections
    ]
    return encode_json(entries)


def _repositories(selections: Sequence[Selection]) -> bytes:
    """docker's oldest index of names: repository → tag → topmost layer."""
    result: dict[str, dict[str, str]] = {}
    for selection in selections:
        layers = selection.image.config.diff_ids
        for name in selection.names:
            top = layers[-1].hex if layers else ""
            result.setdefault(name.familiar_repository, {})[name.tag or ""] = top
    return json.dumps(result, sort_keys=True).encode()


def _entry_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
