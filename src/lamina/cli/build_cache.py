"""``build --cache-from`` and ``--cache-to``, as the daemon takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lamina.cli.values import csv_fields

_DIRECTORIES = ("src", "dest")


def read_cache(texts: Iterable[str]) -> list[dict[str, str]]:
    """``NAME[,NAME…]`` or ``type=KIND,name=value,…``, one each; directories as absolute paths. Raises ValueError."""
    found: list[dict[str, str]] = []
    for text in texts:
        fields = csv_fields(text)
        if not any("=" in field for field in fields):
            found += [{"type": "registry", "ref": name} for name in fields if name]
            continue
        values = {}
        for field in fields:
            name, equals, value = field.partition("=")
            if not equals:
                raise ValueError(f"invalid value {field}")
            name = name.strip().lower()
            values[name] = os.path.abspath(value) if name in _DIRECTORIES else value
        found.append(values)
    return found
