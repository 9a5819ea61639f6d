"""``--cache-from`` and ``--cache-to``: where a build's cache comes from and goes to, in BuildKit's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lamina.errors import InvalidArgument, Unsupported
from lamina.image.exchange import Exchange
from lamina.oci.descriptor import Compression
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.registry import Credentials
from lamina.registry.layouts import LayoutPlace
from lamina.registry.places import Place

Mode = Literal["min", "max"]

_FORMS: Mapping[str, Compression] = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}
_LEVELS: Mapping[Compression, int] = {"gzip": 9, "zstd": 22, "none": 22}
_SOURCE_KEYS = {"registry": {"ref"}, "local": {"src", "digest", "tag"}}
_FORM_KEYS = {"mode", "compression", "compression-level", "force-compression", "ignore-error", "image-manifest",
              "oci-mediatypes"}  # fmt: skip
_TARGET_KEYS = {"registry": {"ref", *_FORM_KEYS}, "local": {"dest", "tag", *_FORM_KEYS}, "inline": set[str]()}
_TRUE = ("true", "1", "")


class InvalidCachePlace(InvalidArgument):
    """A ``--cache-from`` or ``--cache-to`` makes no sense."""


@dataclass(frozen=True)
class CachePlace:
    """A name in a registry, or a directory; with neither, the cache is inline: a part of the image's own config."""

    reference: Reference | None = None
    directory: LayoutPlace | None = None

    def open(self, exchange: Exchange, credentials: Mapping[str, Credentials], proxies: Mapping[str, str]) -> Place:
        """Where it is read or written; an inline one has no place."""
        if self.directory is not None:
            return self.directory
        assert self.reference is not None
        return exchange.place(self.reference, credentials, proxies)

    def __str__(self) -> str:
        return str(self.directory or (self.reference and self.reference.familiar) or "the image")


@dataclass(frozen=True)
class CacheSource(CachePlace):
    """Where a cache is read. A name in a registry may be that of an image that is stored here."""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> CacheSource:
        """From what stands in a ``--cache-from``. Raises InvalidCachePlace, or Unsupported for kinds that lamina has not."""
        kind = _kind(fields, _SOURCE_KEYS)
        if kind == "registry":
            return cls(Reference.parse_tagged(_required(fields, "ref", kind)))
        digest = Digest.parse(fields["digest"]) if fields.get("digest") else None
        return cls(directory=LayoutPlace(_directory(fields, "src"), fields.get("tag") or "latest", digest))


@dataclass(frozen=True)
class CacheTarget(CachePlace):
    """Where a cache is written, and how: the steps of the result alone (``min``) or all that were taken (``max``).

    Without *forces* layers that the place has keep the form that they have there.
    """

    mode: Mode = "min"
    form: Compression = "gzip"
    level: int | None = None
    forces: bool = False
    ignores_errors: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> CacheTarget:
        """From what stands in a ``--cache-to``. Raises as ``CacheSource.of`` does."""
        kind = _kind(fields, _TARGET_KEYS)
        mode, compression = fields.get("mode") or "min", fields.get("compression") or "gzip"
        if mode not in ("min", "max"):
            raise InvalidCachePlace(f"invalid cache export mode {mode!r}: it must be min or max")
        if compression not in _FORMS:
            raise InvalidCachePlace(
                f"unsupported layer compression type: {compression}; lamina has {', '.join(_FORMS)}"
            )
        for name in ("image-manifest", "oci-mediatypes"):
            if not _flag(fields, name, default=True):
                raise Unsupported(
                    f"--cache-to {name}=false is not supported by lamina: a cache is an OCI image manifest"
                )
        form = _FORMS[compression]
        return cls(
            reference=Reference.parse_tagged(_required(fields, "ref", kind)) if kind == "registry" else None,
            directory=LayoutPlace(_directory(fields, "dest"), fields.get("tag") or "latest")
            if kind == "local"
            else None,
            mode=cast(Mode, mode),
            form=form,
            level=_level(fields, form),
            forces=_flag(fields, "force-compression"),
            ignores_errors=_flag(fields, "ignore-error"),
        )

    @property
    def is_inline(self) -> bool:
        """Whether the cache is a part of the image."""
        return self.reference is None and self.directory is None


def _flag(fields: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    return fields[name].lower() in _TRUE if name in fields else default


def _kind(fields: Mapping[str, str], known: Mapping[str, set[str]]) -> str:
    kind = fields.get("type", "")
    if not kind:
        raise InvalidCachePlace("a cache needs a type: it is given as type=registry,ref=NAME for example")
    if kind not in known:
        raise Unsupported(f"cache type {kind!r} is not supported by lamina: it has {', '.join(known)}")
    unknown = sorted(set(fields) - known[kind] - {"type"})
    if unknown:
        raise InvalidCachePlace(f"unknown option {unknown[0]!r} of a cache of type {kind}")
    return kind


def _required(fields: Mapping[str, str], name: str, kind: str) -> str:
    if not fields.get(name):
        raise InvalidCachePlace(f"{name} is required for a cache of type {kind}")
    return fields[name]


def _directory(fields: Mapping[str, str], name: str) -> Path:
    path = _required(fields, name, "local")
    if not path.startswith("/") or "\0" in path:
        raise InvalidCachePlace(f"{name} of a local cache must be an absolute path: {path!r}")
    return Path(path)


def _level(fields: Mapping[str, str], form: Compression) -> int | None:
    text, highest = fields.get("compression-level", ""), _LEVELS[form]
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= highest):
        raise InvalidCachePlace(f"invalid compression-level {text!r}: it must be a number from 1 to {highest}")
    return int(text)
