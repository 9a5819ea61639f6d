"""The image config: how a stack of layers becomes a process (OCI image-spec config.md; docker image specification v1.2).

``ImageConfig`` keeps the JSON it came from, unknown fields included. What changes an image makes a new document from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

from lamina.oci.descriptor import InvalidDocument, decode_digest, encode_json
from lamina.oci.digest import ChainID, DiffID, Digest, ImageID, chain_id
from lamina.oci.platform import Platform

INLINE_CACHE = "lamina.build.cache.v1"
"""Where a config tells of the steps that made the image, for later builds (``--cache-to type=inline``)."""
_BUILDKIT_CACHE = "moby.buildkit.cache.v0"
_MAXIMUM_BYTES = 8 << 20
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


class Healthcheck(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """docker's ``Healthcheck`` object; times in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The ``config`` object: what a container of the image starts with. Docker writes null for what is empty."""

    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: Healthcheck | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instruction of the Dockerfile; ``empty_layer`` if it changed only the JSON."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class _RootFS(msgspec.Struct):
    diff_ids: list[Digest] | None = None


class _ConfigFields(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    created: str | None = None
    author: str | None = None
    config: RunConfig | None = None
    rootfs: _RootFS | None = None
    history: list[History] | None = None


@dataclass(frozen=True)
class ImageConfig:
    """An image's config document. ``image_id`` is the digest of exactly these bytes."""

    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read a config and check the types of what lamina uses. Raises InvalidDocument."""
        if len(data) > _MAXIMUM_BYTES:
            raise InvalidDocument("config", f"{len(data)} bytes are more than {_MAXIMUM_BYTES}")
        config = cls(data)
        _ = config._fields
        return config

    @classmethod
    def empty(cls, platform: Platform | None = None) -> ImageConfig:
        """The config of ``FROM scratch``: no layers, no history."""
        platform = platform or Platform.of_host()
        document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            document["variant"] = platform.variant
        return cls._build(document | {"config": {}, "rootfs": {"type": "layers", "diff_ids": []}, "history": []})

    @classmethod
    def _build(cls, document: Mapping[str, Any]) -> ImageConfig:
        return cls.parse(encode_json(document))

    @cached_property
    def image_id(self) -> ImageID:
        """Digest of the document."""
        return ImageID(Digest.of(self.data))

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The whole JSON document; not to be changed in place."""
        result: dict[str, Any] = msgspec.json.decode(self.data)
        return result

    @cached_property
    def _fields(self) -> _ConfigFields:
        try:
            return msgspec.json.decode(self.data, type=_ConfigFields, dec_hook=decode_digest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidDocument("config", str(error)) from error

    @property
    def run(self) -> RunConfig:
        """What containers start with."""
        return self._fields.config or RunConfig()

    @property
    def run_document(self) -> Mapping[str, Any]:
        """The ``config`` object as it stands, unknown fields included."""
        return self.document.get("config") or {}

    @property
    def diff_ids(self) -> tuple[DiffID, ...]:
        """The layers, the lowest first."""
        rootfs = self._fields.rootfs
        return tuple(DiffID(d) for d in (rootfs.diff_ids if rootfs else None) or ())

    @cached_property
    def chain_id(self) -> ChainID | None:
        """Name of the whole stack of layers; None for an image with none."""
        return chain_id(self.diff_ids)

    @property
    def history(self) -> tuple[History, ...]:
        """The instructions, the oldest first."""
        return tuple(self._fields.history or ())

    @property
    def created(self) -> str | None:
        """RFC 3339 time of the last instruction, as it stands in the document."""
        return self._fields.created

    @cached_property
    def created_ns(self) -> int:
        """The same as Unix time in nanoseconds; the epoch for what is missing or no time."""
        return _unix_ns(self._fields.created or "")

    @property
    def docker_version(self) -> str:
        """Which docker made the image, if one did and said so."""
        return _text(self.document.get("docker_version"))

    @property
    def comment(self) -> str:
        """What was said of the image when it was made: in the document, or with its last instruction."""
        last = self.history[-1].comment if self.history else None
        return _text(self.document.get("comment")) or last or ""

    @property
    def author(self) -> str | None:
        """Who made the image."""
        return self._fields.author

    @property
    def platform(self) -> Platform:
        """What the image was made for; fields that are missing count as the host's."""
        host = Platform.of_host()
        fields = self._fields
        return Platform(fields.os or host.os, fields.architecture or host.architecture, fields.variant or None)

    def derive(
        self,
        *,
        run: Mapping[str, Any],
        history: Sequence[History],
        diff_ids: Sequence[DiffID],
        created: str,
        author: str | None = None,
    ) -> ImageConfig:
        """A new config from this one: *run* replaces the ``config`` object, *history* and *diff_ids* are the whole new lists.

        Fields that lamina does not know are kept.
        """
        document = dict(self.document)
        document["config"] = dict(run)
        document["created"] = created
        if author:
            document["author"] = author
        document["history"] = list(history)
        document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
        for stale in ("container", "container_config", "id", "parent", INLINE_CACHE, _BUILDKIT_CACHE):
            document.pop(stale, None)
        return self._build(document)

    def with_inline_cache(self, steps: object) -> ImageConfig:
        """This config, with the steps that made the image under a name of lamina's own."""
        return self._build({**self.document, INLINE_CACHE: steps})


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _unix_ns(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        return 0
    try:
        whole = datetime.fromisoformat(match[1] + match[3])
    except ValueError:
        return 0
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int(((match[2] or "") + "0" * 9)[:9])
