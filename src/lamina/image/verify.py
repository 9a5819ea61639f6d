"""Is an image what it was: every blob hashed again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from lamina.content import BlobDamaged, BlobNotFound, ContentStore
from lamina.image.store import DamagedImage, Image
from lamina.oci.digest import Digest


@dataclass(frozen=True)
class VerifiedBlob:
    """One blob of an image and how it was found."""

    kind: Literal["manifest", "config", "layer", "compressed layer"]
    digest: Digest
    size_bytes: int
    status: Literal["ok", "damaged", "missing"]


async def verify(image: Image | DamagedImage, content: ContentStore) -> AsyncIterator[VerifiedBlob]:
    """Hash each blob of an image: manifest, config, then the layers from the lowest up, as far as they are known."""
    manifest = image.manifest
    manifest_digest = image.manifest_digest if isinstance(image, DamagedImage) else image.manifest.descriptor.digest
    diff_ids = image.config.diff_ids if image.config is not None else ()
    yield await _check("manifest", manifest_digest, content)
    yield await _check("config", image.image_id, content)
    for diff_id in diff_ids:
        yield await _check("layer", diff_id, content)
    for layer in manifest.layers if manifest is not None else ():
        if layer.digest not in diff_ids:
            yield await _check("compressed layer", layer.digest, content)


async def _check(
    kind: Literal["manifest", "config", "layer", "compressed layer"], digest: Digest, content: ContentStore
) -> VerifiedBlob:
    try:
        await content.verify(digest)
    except BlobNotFound:
        return VerifiedBlob(kind, digest, 0, "missing")
    except BlobDamaged:
        return VerifiedBlob(kind, digest, content.size(digest), "damaged")
    return VerifiedBlob(kind, digest, content.size(digest), "ok")
