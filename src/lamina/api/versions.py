"""Versions of the Engine API that lamina speaks."""

from __future__ import annotations

CURRENT = "1.51"
MINIMUM = "1.24"


def parse(text: str) -> tuple[int, int]:
    """``1.51`` as numbers. Raises ValueError."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)
