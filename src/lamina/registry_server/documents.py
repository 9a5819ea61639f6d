"""What a manifest says that a registry has to know: what it needs, what it refers to, and what kind of artifact it is.

Read leniently: a registry keeps manifests of kinds that it does not know, byte for byte (image-spec, manifest.md and image-index.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from lamina.oci.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from lamina.oci.digest import Digest, InvalidDigest
from lamina.registry_server.errors import manifest_invalid


@dataclass(frozen=True)
class Document:
    """A manifest or an index. Blobs with URLs of their own may be elsewhere and are not among what is needed."""

    media_type: str
    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


class _Pointer(msgspec.Struct, rename="camel"):
    digest: str
    size: int = 0
    media_type: str = ""
    urls: list[str] | None = None


class _Fields(msgspec.Struct, rename="camel"):
    schema_version: int
    media_type: str = ""
    artifact_type: str | None = None
    config: _Pointer | None = None
    layers: list[_Pointer] | None = None
    manifests: list[_Pointer] | None = None
    blobs: list[_Pointer] | None = None
    subject: _Pointer | None = None
    annotations: dict[str, str] | None = None


def read_document(data: bytes, media_type: str) -> Document:
    """Read a manifest that was pushed as *media_type*. Raises RegistryError for what is none."""
    try:
        fields = msgspec.json.decode(data, type=_Fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise manifest_invalid(str(error)) from None
    if fields.schema_version != 2:
        raise manifest_invalid(f"schema version {fields.schema_version} is not supported: it must be 2")
    kind = media_type or fields.media_type
    if fields.media_type and media_type and fields.media_type != media_type:
        raise manifest_invalid(f"it says that it is {fields.media_type}, and was sent as {media_type}")
    if not kind:
        kind = OCI_INDEX if fields.manifests is not None else OCI_MANIFEST
    if fields.manifests is not None and fields.layers is not None:
        raise manifest_invalid("it has both manifests and layers")
    if kind in (OCI_MANIFEST, DOCKER_MANIFEST) and fields.config is None:
        raise manifest_invalid("it has no config")
    config = fields.config
    blobs = [*([config] if config else []), *(fields.layers or []), *(fields.blobs or [])]
    artifact_type = fields.artifact_type or (config.media_type if config and fields.manifests is None else "")
    try:
        return Document(
            kind,
            tuple(dict.fromkeys(Digest(blob.digest) for blob in blobs if not blob.urls)),
            tuple(dict.fromkeys(Digest(entry.digest) for entry in fields.manifests or [] if not entry.urls)),
            Digest(fields.subject.digest) if fields.subject else None,
            artifact_type,
            fields.annotations or {},
        )
    except InvalidDigest as error:
        raise manifest_invalid(str(error)) from None
