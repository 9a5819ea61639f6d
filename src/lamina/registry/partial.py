"""A download's file before it is whole, and the row of numbers beside it that says how far it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lamina.linux.shared_numbers import read_numbers

SIZE, TAKEN, FIRST = 0, 1, 2
"""The row: the blob's size, how much of it the reader has taken, then how many bytes of each piece are here."""


def numbers_path(path: Path) -> Path:
    """Where the row lies."""
    return path.with_name(f"{path.name}.pieces")


def progress_of(path: Path) -> tuple[int, int]:
    """How many bytes of a download have come, and how many of them have been taken; zeros if there is none."""
    numbers = read_numbers(numbers_path(path))
    return (sum(numbers[FIRST:]), numbers[TAKEN]) if len(numbers) > FIRST else (0, 0)


def discard(path: Path) -> None:
    """Remove what a download left."""
    for file in (path, numbers_path(path)):
        with suppress(FileNotFoundError):
            file.unlink()
