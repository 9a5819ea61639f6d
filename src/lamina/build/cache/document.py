"""A build's cache as others can have it: steps' keys and what they made, in an OCI image manifest whose layers are the steps' layers.

The manifest's config is a JSON document of lamina's own, as keys are: ``{"steps": [{"key", "layer", "created"}],
"diff_ids": [...]}``, the diff IDs in the order of the manifest's layers. An *inline* cache is the list of steps in an image's own config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from lamina.oci.config import INLINE_CACHE, ImageConfig
from lamina.oci.descriptor import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    Descriptor,
    InvalidDocument,
    decode_digest,
    encode_json,
)
from lamina.oci.digest import DiffID, Digest
from lamina.oci.manifest import Manifest

CACHE_CONFIG = "application/vnd.lamina.build.cache.v1+json"

T = TypeVar("T")


class CachedStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step's key and what it made: a layer by its diff ID, None if it changed no file, and when (RFC 3339).

    Its words are not told: they have the build's arguments, also those of stages that no image shows.
    """

    key: str
    created: str
    layer: Digest | None = None


class _Config(msgspec.Struct):
    steps: list[CachedStep]
    diff_ids: list[Digest]


@dataclass(frozen=True)
class CacheDocument:
    """Steps by key, and of their layers the blobs by diff ID."""

    steps: Mapping[str, CachedStep]
    layers: Mapping[DiffID, Descriptor]

    @classmethod
    def parse(cls, manifest: Manifest, config: bytes) -> CacheDocument:
        """Read a cache, or an image with an inline one; an image without has no steps. Raises InvalidDocument."""
        if manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG):
            image = ImageConfig.parse(config)
            steps, diff_ids = inline_steps(image), list(image.diff_ids)
        else:
            fields = _decode(config, _Config)
            steps, diff_ids = fields.steps, [DiffID(digest) for digest in fields.diff_ids]
        if len(diff_ids) != len(manifest.layers):
            raise InvalidDocument("cache", f"it names {len(diff_ids)} layers and has {len(manifest.layers)}")
        return cls({step.key: step for step in steps}, dict(zip(diff_ids, manifest.layers, strict=True)))

    @staticmethod
    def config(steps: Iterable[CachedStep], diff_ids: Sequence[DiffID]) -> bytes:
        """The config of a cache's manifest."""
        return encode_json({"steps": list(steps), "diff_ids": list(diff_ids)})


def inline_steps(image: ImageConfig) -> list[CachedStep]:
    """The steps that an image's config tells of; none for one that tells of none. Raises InvalidDocument."""
    found = image.document.get(INLINE_CACHE)
    return _decode(encode_json(found), list[CachedStep]) if found is not None else []


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=decode_digest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDocument("cache", str(error)) from error
