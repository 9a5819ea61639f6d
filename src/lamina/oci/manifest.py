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
from lamina.oci.platform import Platform

_MAXIMUM_BYTES = 4 << 20
_MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_INDEXES = (OCI_INDEX, DOCKER_LIST)


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
        if kind not in _MANIFESTS:
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
        if kind not in _INDEXES:
            raise UnsupportedMediaType(kind)
        return cls(data, kind, tuple(fields.manifests))

    def for_platform(self, platform: Platform) -> list[Descriptor]:
        """The manifests that serve on a platform, the best first; last those that do not tell what they are for."""
        found: list[tuple[int, Descriptor]] = []
        silent = []
        for entry in self.manifests:
            if not entry.platform:
                silent.append(entry)
                continue
            offered = (entry.platform.get(name) for name in ("os", "architecture", "variant"))
            system, architecture, variant = (str(value) if value else "" for value in offered)
            distance = Platform(system, architecture, variant or None).distance(platform)
            if distance is not None:
                found.append((distance, entry))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])] + silent

    @classmethod
    def build(cls, manifests: tuple[Descriptor, ...]) -> Index:
        """Write an OCI index."""
        data = encode_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
        return cls(data, OCI_INDEX, manifests)


class _Shape(msgspec.Struct, rename="camel"):
    media_type: str | None = None
    manifests: Any = None
    layers: Any = None


def parse_document(data: bytes, media_type: str = "") -> Manifest | Index:
    """Read what may be a manifest or an index: what it says itself counts, then its form, then what it was called on its way.

    Raises InvalidDocument, also for one that could be both, or UnsupportedMediaType.
    """
    if len(data) > _MAXIMUM_BYTES:
        raise InvalidDocument("manifest", f"{len(data)} bytes are more than {_MAXIMUM_BYTES}")
    try:
        shape = msgspec.json.decode(data, type=_Shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDocument("manifest", str(error)) from error
    if shape.manifests is not None and shape.layers is not None:
        raise InvalidDocument("manifest", "it has both manifests and layers")
    is_index = shape.media_type in _INDEXES if shape.media_type else shape.manifests is not None
    known = media_type if media_type in (_INDEXES if is_index else _MANIFESTS) else None
    return Index.parse(data, known) if is_index else Manifest.parse(data, known)


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
