"""Manifests and indexes: which config and layers make an image, which manifests make a multi-platform one.

OCI image-spec manifest.md and image-index.md; docker's schema 2 manifest and list have the same fields under other media types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from lamina.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    InvalidDocument,
    UnsupportedMediaType,
    decode_digest,
    encode_json,
)
from lamina.oci.digest import Digest

_MAXIMUM_BYTES = 4 << 20


class _ManifestFields(msgspec.Struct, rename="camel"):
    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str | None = None


class _IndexFields(msgspec.Struct, rename="camel"):
    schema_version: int
    manifests: list[Descriptor]
    media_type: str | None = None


@dataclass(frozen=True)
class Manifest:
    """One image: its bytes as they came, and what they say."""

    data: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, media_type: str | None = None) -> Manifest:
        """Read a manifest. Raises InvalidDocument, or UnsupportedMediaType for another kind of document."""
        fields = _decode("manifest", data, _ManifestFields)
        kind = fields.media_type or media_type or OCI_MANIFEST
        if kind not in (OCI_MANIFEST, DOCKER_MANIFEST):
            raise UnsupportedMediaType(kind)
        return cls(data, kind, fields.config, tuple(fields.layers))

    @classmethod
    def build(cls, config: Descriptor, layers: tuple[Descriptor, ...], media_type: str = OCI_MANIFEST) -> Manifest:
        """Write a manifest; the same parts give the same bytes."""
        data = encode_json({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers})
        return cls(data, media_type, config, layers)

    @property
    def descriptor(self) -> Descriptor:
        """What points at this manifest."""
        return Descriptor(media_type=self.media_type, digest=Digest.of(self.data), size=len(self.data))


@dataclass(frozen=True)
class Index:
    """A list of manifests, one a platform."""

    data: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, media_type: str | None = None) -> Index:
        """Read an index. Raises InvalidDocument, or UnsupportedMediaType for another kind of document."""
        fields = _decode("index", data, _IndexFields)
        kind = fields.media_type or media_type or OCI_INDEX
        if kind not in (OCI_INDEX, DOCKER_LIST):
            raise UnsupportedMediaType(kind)
        return cls(data, kind, tuple(fields.manifests))

    @classmethod
    def build(cls, manifests: tuple[Descriptor, ...]) -> Index:
        """Write an OCI index."""
        data = encode_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
        return cls(data, OCI_INDEX, manifests)


def _decode(kind: str, data: bytes, fields: type[Any]) -> Any:
    if len(data) > _MAXIMUM_BYTES:
        raise InvalidDocument(kind, f"{len(data)} bytes are more than {_MAXIMUM_BYTES}")
    try:
        document = msgspec.json.decode(data, type=fields, dec_hook=decode_digest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDocument(kind, str(error)) from error
    if document.schema_version != 2:
        raise InvalidDocument(kind, f"schema version {document.schema_version} is not 2")
    return document
