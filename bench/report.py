"""Figures become docs/benchmarks.md and, if asked for, a file of raw numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.rows import Row, Unit

_BEGIN = "<!-- begin: written by make bench -->"
_END = "<!-- end: written by make bench -->"


@dataclass
class Figures:
    """What one row gave: every counted run of each engine, and of the floor."""

    row: Row
    runs: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float | None:
        """The middle run, None if the engine has no figure here."""
        return median(self.runs[name]) if self.runs.get(name) else None


def write(path: Path, machine: str, versions: Mapping[str, str], results: Sequence[Figures]) -> None:
    """Replace the generated part of the document; what people wrote around it stays."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    path.write_text(before + _BEGIN + "\n" + _table(machine, versions, results) + _END + after, encoding="utf-8")


def write_raw(path: Path, machine: str, versions: Mapping[str, str], results: Sequence[Figures]) -> None:
    """Every run, as JSON."""
    rows = {f.row.name: {"unit": f.row.unit, "goal": f.row.goal, "runs": f.runs} for f in results}
    path.write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1), encoding="utf-8")


def _table(machine: str, versions: Mapping[str, str], results: Sequence[Figures]) -> str:
    peers = [name for name in versions if name != "lamina"]
    lines = [
        f"Machine: {machine}. Versions: {', '.join(f'{n} {v}' for n, v in versions.items())}.",
        "",
        "| row | work | lamina | "
        + " | ".join(peers)
        + " | "
        + " | ".join(f"{p} ÷ lamina" for p in peers)
        + " | floor | goal |",
        "|---" * (5 + 2 * len(peers)) + "|",
    ]
    for figures in results:
        row = figures.row
        own = figures.median("lamina")
        cells = [f"`{row.name}`", row.title, _spread(figures, "lamina")]
        cells += [_spread(figures, p) for p in peers]
        cells += [_ratio(figures.median(p), own) for p in peers]
        floor = figures.median("floor")
        cells.append(f"{shown(floor, row.unit)} ({row.floor_title})" if floor is not None else "")
        verdict = "" if own is None or own <= row.goal else " (missed)"
        cells.append(shown(row.goal, row.unit) + verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(figures: Figures, name: str) -> str:
    runs = figures.runs.get(name)
    if not runs:
        return "–"
    unit = figures.row.unit
    middle = f"**{shown(median(runs), unit)}**" if name == "lamina" else shown(median(runs), unit)
    return middle if len(runs) == 1 else f"{middle} ({shown(min(runs), unit)} to {shown(max(runs), unit)})"


def _ratio(peer: float | None, own: float | None) -> str:
    return f"{peer / own:.1f}" if peer is not None and own else "–"


def shown(value: float, unit: Unit) -> str:
    """A figure as people read it."""
    if unit == "share":
        return f"{value:.1%} of a core"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB" if value > 10 << 20 else f"{value / 2**20:.2f} MiB"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
