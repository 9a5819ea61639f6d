"""Platforms: operating system, architecture and variant (OCI image-spec, image-index.md, "platform")."""

from __future__ import annotations

import os
from typing import NamedTuple

from lamina.errors import InvalidArgument

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armhf": "arm",
    "i386": "386",
    "i686": "386",
    "ppc64el": "ppc64le",
}
_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows".split()
)
_GO_ARCHITECTURES = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm".split()
)
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


class InvalidPlatform(InvalidArgument):
    """A text names no platform."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid platform {text[:80]!r}: expected os/architecture[/variant], for example linux/amd64")


class Platform(NamedTuple):
    """``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/arch[/variant]`` or a lone architecture or ``linux``. Raises InvalidPlatform."""
        parts = text.lower().split("/")
        if (
            not all(p and p.replace("_", "").replace("-", "").replace(".", "").isalnum() for p in parts)
            or len(parts) > 3
        ):
            raise InvalidPlatform(text)
        if len(parts) == 1:
            host = cls.of_host()
            return cls(parts[0], host.architecture) if parts[0] == "linux" else cls("linux", _architecture(parts[0]))
        return cls(parts[0], _architecture(parts[1]), parts[2] if len(parts) == 3 else None)

    @classmethod
    def of_host(cls) -> Platform:
        """The platform that this machine runs natively."""
        return cls("linux", _architecture(os.uname().machine))

    @property
    def is_known(self) -> bool:
        """Whether both are names that Go has, which is what image configs are to use (OCI image-spec, config.md)."""
        return self.os in _SYSTEMS and self.architecture in _GO_ARCHITECTURES

    def matches(self, wanted: Platform) -> bool:
        """Whether something of this platform serves where *wanted* was asked for."""
        variant = self.variant or _DEFAULT_VARIANTS.get(self.architecture)
        wanted_variant = wanted.variant or _DEFAULT_VARIANTS.get(wanted.architecture)
        return (self.os, self.architecture, variant) == (wanted.os, wanted.architecture, wanted_variant)

    def distance(self, wanted: Platform) -> int | None:
        """How far something of this platform is from the one that was asked for, 0 for none; None if it does not serve there.

        A 32-bit ARM runs what was made for older ones (containerd/platforms, compare.go).
        """
        if self.matches(wanted):
            return 0
        if (self.os, self.architecture, wanted.os, wanted.architecture) != ("linux", "arm", "linux", "arm"):
            return None
        own, asked = (_arm_version(platform.variant) for platform in (self, wanted))
        return asked - own if own < asked else None

    def __str__(self) -> str:
        return "/".join(p for p in self if p)


def _arm_version(variant: str | None) -> int:
    digits = (variant or _DEFAULT_VARIANTS["arm"]).removeprefix("v")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name.lower(), name.lower())
