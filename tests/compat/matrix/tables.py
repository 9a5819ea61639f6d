"""All cases."""

from __future__ import annotations

from importlib import import_module

from compat.matrix import TABLES
from compat.matrix.lab import Case


def all_cases() -> dict[str, Case]:
    """Every table's, by names that tell the table."""
    cases = {}
    for table in TABLES:
        for number, case in enumerate(import_module(f"compat.matrix.{table}_cases").CASES):
            cases[f"{table}-{number}-{case.title}"] = case
    return cases
