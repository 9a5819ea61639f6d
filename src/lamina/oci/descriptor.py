"""Descriptors and media types (OCI image-spec, descriptor.md and media-types.md; docker image manifest version 2, schema 2)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lamina.errors import InvalidArgument, Unsupported
from lamina.oci.digest import Digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

Compression = Literal["none", "gzip", "zstd"]

_LAYER_COMPRESSION: dict[str, Compression] = {
    OCI_LAYER: "none",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
}


class InvalidDocument(InvalidArgument):
    """A manifest, index or config is not what its specification says."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"invalid image {kind}: {reason}")
        self.kind = kind
        self.reason = reason


class UnsupportedMediaType(Unsupported):
    """A document or layer is of a kind that lamina does not read."""

    def __init__(self, media_type: str) -> None:
        super().__init__(f"unsupported media type {media_type[:160]!r}")
        self.media_type = media_type


class ForeignLayer(UnsupportedMediaType):
    """A layer whose bytes are nowhere but at URLs that its descriptor names (those of Windows)."""

    def __init__(self, media_type: str) -> None:
        Unsupported.__init__(
            self, f"foreign layers, whose bytes are in no registry, are not supported: {media_type[:160]}"
        )
        self.media_type = media_type


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A typed pointer to a blob: what it is, its digest and its size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size must not be negative")


def layer_compression(media_type: str) -> Compression:
    """How a layer blob of this type is compressed. Raises UnsupportedMediaType or ForeignLayer."""
    if ".foreign." in media_type or ".nondistributable." in media_type:
        raise ForeignLayer(media_type)
    try:
        return _LAYER_COMPRESSION[media_type]
    except KeyError:
        raise UnsupportedMediaType(media_type) from None


def encode_json(value: object) -> bytes:
    """The JSON of documents and values of this package; the same value gives the same bytes."""
    return msgspec.json.encode(value, enc_hook=_encode_digest)


def _encode_digest(value: object) -> object:
    """msgspec hook: it does not take a subclass of str for a str by itself."""
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError(f"no encoder for {type(value)}")


def decode_digest(kind: type, value: object) -> object:
    """msgspec hook: read Digest fields. A ValueError makes msgspec name the field."""
    if kind is Digest and isinstance(value, str):
        try:
            return Digest(value)
        except InvalidArgument as error:
            raise ValueError(str(error)) from error
    raise NotImplementedError(f"no decoder for {kind}")
