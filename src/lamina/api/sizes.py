"""Sizes in docker's words (go-units)."""

from __future__ import annotations

from collections.abc import Sequence


def human_size(size: float, digits: int = 3) -> str:
    """docker's decimal sizes, such as 1.09GB (go-units, HumanSizeWithPrecision)."""
    return _in_units(size, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), digits)


def human_binary_size(size: float) -> str:
    """Sizes by powers of 1,024, such as 23.54GiB (go-units, BytesSize)."""
    return _in_units(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def _in_units(size: float, base: int, units: Sequence[str], digits: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{digits}g}{units[index]}" if size < 10 ** (digits - 1) else f"{size:.0f}{units[index]}"
