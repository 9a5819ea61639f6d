"""Digests: names of bytes (OCI image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType

from lamina.errors import InvalidArgument

_LENGTHS = {"sha256": 64, "sha512": 128}
_PATTERN = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


class InvalidDigest(InvalidArgument):
    """A text is no digest of a kind that lamina knows."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid digest {text[:160]!r}: expected sha256: or sha512: and lower-case hexadecimal digits"
        )
        self.text = text


class Digest(str):
    """``algorithm:hex``; an instance is always well formed. A str, so that it is a dictionary key and a database value as it is."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        """Raises InvalidDigest unless *text* is well formed."""
        if not _PATTERN.fullmatch(text):
            raise InvalidDigest(text)
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check a text from outside. Raises InvalidDigest."""
        return cls(text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of some bytes."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Whether this is the digest of some bytes."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]


DiffID = NewType("DiffID", Digest)
"""Digest of a layer's uncompressed tar (OCI image-spec, config.md, "Layer DiffID")."""

ChainID = NewType("ChainID", Digest)
"""Digest that names a stack of layers (config.md, "Layer ChainID")."""

ImageID = NewType("ImageID", Digest)
"""Digest of an image's config JSON (config.md, "ImageID")."""


def chain_id(diff_ids: Iterable[DiffID]) -> ChainID | None:
    """Name a stack of layers, the lowest first: ``C(a,b) = sha256(C(a) + " " + b)``; None for no layers."""
    result: Digest | None = None
    for diff_id in diff_ids:
        result = diff_id if result is None else Digest.of(f"{result} {diff_id}".encode())
    return None if result is None else ChainID(result)
