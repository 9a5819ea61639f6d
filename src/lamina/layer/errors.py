"""Why a layer is refused."""

from __future__ import annotations

from lamina.errors import InvalidArgument


class InvalidLayer(InvalidArgument):
    """A tar may not be a layer; ``entry`` names the one that is wrong, if it is one."""

    def __init__(self, reason: str, entry: str | None = None) -> None:
        where = f": entry {entry!r}" if entry is not None else ""
        super().__init__(f"invalid layer{where}: {reason}")
        self.reason = reason
        self.entry = entry


class LayerTooLarge(InvalidLayer):
    """A layer is beyond what the daemon was told to take; a decompression bomb ends here."""
