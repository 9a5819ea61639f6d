"""What the ``local`` driver may be told (``--opt``): the arguments of mount(8), with which a volume is somewhere else than on this disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.errors import InvalidArgument

_KNOWN = ("device", "o", "type", "size")
_REQUIRED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


class InvalidVolumeOption(InvalidArgument):
    """An option that the driver does not have, or one that needs another; the message is docker's."""


@dataclass(frozen=True)
class MountArguments:
    """What mount(8) is told."""

    kind: str
    device: str
    options: str

    @classmethod
    def of(cls, options: Mapping[str, str]) -> MountArguments | None:
        """The arguments, None for a plain directory. Raises InvalidVolumeOption."""
        for name in options:
            if name not in _KNOWN:
                raise InvalidVolumeOption(f'invalid option: "{name}"')
        if "size" in options:
            raise InvalidVolumeOption("quota size requested but no quota support")
        for name, needed in _REQUIRED.items():
            for other in needed:
                if options.get(name) and not options.get(other):
                    raise InvalidVolumeOption(f'missing required option: "{other}"')
        if not options.get("device"):
            return None
        return cls(options["type"], options["device"], options.get("o", ""))

    def command(self, target: str) -> list[str]:
        """The command that mounts at *target*."""
        words = [word for word in self.options.split(",") if word]
        binds = [word for word in words if word in ("bind", "rbind")]
        kind = [] if binds else ["-t", self.kind]
        return ["mount", *kind, *(["-o", ",".join(words)] if words else []), "--", self.device, target]
