"""References: how an image is named, and docker's rules for the short forms (distribution/reference, "normalized names").

busybox                 docker.io/library/busybox:latest
me/app:1                docker.io/me/app:1
localhost:5000/app      localhost:5000/app:latest
busybox@sha256:…        docker.io/library/busybox@sha256:…
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lamina.errors import InvalidArgument
from lamina.oci.digest import Digest, InvalidDigest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_MAXIMUM_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class InvalidReference(InvalidArgument):
    """A text cannot name an image."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(reason or "invalid reference format")
        self.text = text
        self.reason = reason


class Reference(NamedTuple):
    """A repository with a tag, a digest, both or neither. ``str()`` is the full form, ``familiar`` docker's short one."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as docker does; neither tag nor digest is added.

        Raises InvalidReference with docker's wording, for instance for upper-case letters in the repository.
        """
        if not text:
            raise InvalidReference(text, "invalid reference format: repository name must have at least one component")
        if _IDENTIFIER.fullmatch(text):
            raise InvalidReference(
                text, f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )
        remainder, digest = _split_digest(text)
        name, tag = _split_tag(text, remainder)
        domain, path = _split_domain(name)
        _check_name(text, domain, path)
        return cls(domain, path, tag, digest)

    @classmethod
    def parse_tagged(cls, text: str) -> Reference:
        """Read a reference and add ``:latest`` where it has neither tag nor digest."""
        return cls.parse(text).with_default_tag()

    def with_default_tag(self) -> Reference:
        """This reference, with the tag ``latest`` if it has neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    @property
    def repository(self) -> str:
        """``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """``busybox``: without the default domain and ``library/``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        shorter = self.path.removeprefix(_OFFICIAL)
        return shorter if "/" not in shorter else self.path

    @property
    def familiar(self) -> str:
        """The short form with tag and digest, as docker prints it."""
        return self.familiar_repository + self._suffix()

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _split_digest(text: str) -> tuple[str, Digest | None]:
    name, at, digest = text.partition("@")
    if not at:
        return text, None
    try:
        return name, Digest.parse(digest)
    except InvalidDigest:
        raise InvalidReference(text, "") from None


def _split_tag(text: str, name: str) -> tuple[str, str | None]:
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, None
    if not _TAG.fullmatch(tag):
        raise InvalidReference(text, "")
    return head, tag


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _check_name(text: str, domain: str, path: str) -> None:
    if path != path.lower():
        raise InvalidReference(
            text, f"invalid reference format: repository name ({path.removeprefix(_OFFICIAL)}) must be lowercase"
        )
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise InvalidReference(text, "")
    if len(path) > _MAXIMUM_NAME:
        raise InvalidReference(
            text, f"invalid reference format: repository name must not be more than {_MAXIMUM_NAME} characters"
        )
