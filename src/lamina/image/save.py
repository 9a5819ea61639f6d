"""Save: images become an archive that docker, podman, skopeo and lamina read.

The archive is an OCI image layout with docker's manifest.json beside it, both naming the same blobs, as docker writes it since 25.
Blobs go out as they lie in the store, so every digest stays.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.content import BlobNotFound, ContentStore
from lamina.image.store import Image, ImageStore
from lamina.linux.pipes import drain
from lamina.linux.worker import run_in_worker
from lamina.oci.descriptor import Descriptor, encode_json
from lamina.oci.digest import Digest, ImageID
from lamina.oci.manifest import Index
from lamina.oci.reference import Reference

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Selection:
    """An image to save and the names to save it under, possibly none."""

    image: Image
    names: tuple[Reference, ...]


def select(images: ImageStore, names: Sequence[str]) -> list[Selection]:
    """What ``save NAME…`` means: a tag saves under that tag, a repository alone under its tags, an ID without a name.

    Raises ImageNotFound.
    """
    chosen: dict[ImageID, list[Reference]] = {}
    for name in names:
        image_id, reference = images.find_named(name)
        held = chosen.setdefault(image_id, [])
        if reference is not None and reference.tag is not None and reference not in held:
            held.append(reference)
    by_id = {image.image_id: image for image in images}
    return [Selection(by_id[i], tuple(held)) for i, held in chosen.items() if i in by_id]


async def save(selections: Sequence[Selection], content: ContentStore) -> AsyncIterator[bytes]:
    """The bytes of the archive. Raises BlobNotFound before the first byte if a blob is missing."""
    blobs = sorted({blob for s in selections for blob in _archived_blobs(s.image)})
    for blob in blobs:
        if not content.exists(blob):
            raise BlobNotFound(blob)
    documents = {
        "index.json": _index(selections),
        "manifest.json": _docker_manifest(selections),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "repositories": _repositories(selections),
    }
    files = {_entry_name(blob): content.path(blob) for blob in blobs}
    with content.lease(blobs):
        async for chunk in drain(lambda fd: run_in_worker(write_archive, (fd,), fd, files, documents)):
            yield chunk


def write_archive(target_fd: int, files: Mapping[str, Path], documents: Mapping[str, bytes]) -> None:
    """Write the tar, to a pipe or a file: blobs, then the documents that name them. Blocking; deterministic."""
    with (
        open(target_fd, "wb", buffering=_BUFFER_BYTES, closefd=False) as sink,
        tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER_BYTES) as archive,
    ):
        for directory in ("blobs", "blobs/sha256"):
            header = tarfile.TarInfo(directory)
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(header)
        for name, path in files.items():
            with open(path, "rb") as blob:
                archive.addfile(_header(name, path.stat().st_size), blob)
        for name, data in documents.items():
            archive.addfile(_header(name, len(data)), io.BytesIO(data))


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
