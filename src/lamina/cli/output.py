"""What commands print: tables, sizes, times, Go templates."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def print_rows(
    rows: Sequence[Row], columns: Sequence[tuple[str, str]], *, format_: str | None, quiet_field: str | None = None
) -> None:
    """Print rows as docker does: a table of *columns* (header, field), a Go template, JSON, or one field of each."""
    if quiet_field is not None:
        for row in rows:
            print(row[quiet_field])
        return
    if format_ == "json":
        for row in rows:
            print(json.dumps({k: v for k, v in row.items() if not k.startswith("_")}))
        return
    if format_ in (None, "", "table"):
        print_table([[header for header, _ in columns], *([str(row[field]) for _, field in columns] for row in rows)])
        return
    from lamina.cli.template import Template

    assert format_ is not None
    if format_.startswith("table "):
        template = Template(format_.removeprefix("table "))
        headers = {field: header for header, field in columns}
        lines = [template.render(_Headers(headers)), *(template.render(row) for row in rows)]
        print_table([line.split("\t") for line in lines])
        return
    template = Template(format_)
    for row in rows:
        print(template.render(row))


class _Headers(dict[str, str]):
    """Column headers; a field without one is headed by its own name."""

    def __missing__(self, name: str) -> str:
        return name.upper()


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns three blanks apart, the last one ragged."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width + 3) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        print("".join(cells) + row[-1])


def human_size(size: float) -> str:
    """docker's decimal sizes: four digits at most, such as 1.09GB (go-units, HumanSize)."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    index = 0
    while size >= 1000 and index < len(units) - 1:
        size /= 1000
        index += 1
    return f"{size:.3g}{units[index]}" if size < 100 or index == 0 else f"{size:.0f}{units[index]}"


def human_ago(seconds: float) -> str:
    """``5 minutes ago`` (go-units, HumanDuration)."""
    return f"{human_duration(time.time() - seconds)} ago"


def human_duration(seconds: float) -> str:
    """A length of time in docker's words."""
    if seconds < 1:
        return "Less than a second"
    steps: tuple[tuple[float, float, str], ...] = (
        (60, 1, "second"),
        (3600, 60, "minute"),
        (48 * 3600, 3600, "hour"),
        (14 * 86400, 86400, "day"),
        (60 * 86400, 7 * 86400, "week"),
        (730 * 86400, 30 * 86400, "month"),
    )
    for limit, size, unit in steps:
        if seconds < limit:
            count = int(seconds // size)
            if count == 1:
                return {"second": "1 second", "minute": "About a minute", "hour": "About an hour"}[unit]
            return f"{count} {unit}s"
    return f"{int(seconds // (365 * 86400))} years"


def short_id(text: str) -> str:
    """Twelve digits of an ID."""
    return text.removeprefix("sha256:")[:12]


def stderr(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr)


def progress_lines(lines: Any, show: Callable[[dict[str, Any]], None]) -> None:
    """Hand each JSON line of a stream to *show*; an error in the stream is raised."""
    from lamina.errors import LaminaError

    for line in lines:
        fields = json.loads(line)
        if "error" in fields:
            raise LaminaError(str(fields["error"]))
        show(fields)
