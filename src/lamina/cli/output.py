"""What commands print: lists as tables, JSON or by Go templates; sizes and times in docker's words."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lamina.cli.grammar import CommandFailed

_LEAST_COLUMN = 10
_BETWEEN = 3
_ELLIPSIS = "…"
# what Go's JSON escapes, so that it can stand in HTML
_ESCAPED = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})

Row = Mapping[str, Any]


class Listing:
    """What a command lists: every field's header, Go's name for a row's type, and the templates of ``--format raw``.

    *faults* are the words before what is wrong with a template's text, and with what it asks for.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        *,
        kind: str,
        raw: str | None = None,
        raw_quiet: str | None = None,
        quiet_field: str = "ID",
        faults: tuple[str, str] = ("template parsing error", "template parsing error"),
    ) -> None:
        self.headers = headers
        self.faults = faults
        self.kind = kind
        self.raw = raw
        self.raw_quiet = raw_quiet
        self.quiet_field = quiet_field

    def with_size(self) -> Listing:
        """The same with a size at the end of its raw format."""
        raw = f"{self.raw}size: {{{{.Size}}}}\n"
        return Listing(
            self.headers,
            kind=self.kind,
            raw=raw,
            raw_quiet=self.raw_quiet,
            quiet_field=self.quiet_field,
            faults=self.faults,
        )


def print_rows(
    rows: Sequence[Row], listing: Listing, columns: Sequence[str], *, form: str | None, quiet: bool = False
) -> None:
    """Print rows as ``--format`` and ``--quiet`` say: a table of *columns*, one field of each, JSON, or by a Go template."""
    if form in (None, "", "table"):
        if quiet:
            print(*(row[listing.quiet_field] for row in rows), sep="\n", end="\n" if rows else "")
            return
        headers = [listing.headers[field] for field in columns]
        print_table([headers, *([str(row[field]) for field in columns] for row in rows)])
        return
    if form == "json":
        for row in rows:
            print(go_json({k: v for k, v in row.items() if not callable(v)}))
        return
    if form == "raw" and listing.raw is not None:
        form = listing.raw_quiet if quiet and listing.raw_quiet else listing.raw
    _print_by_template(rows, listing, str(form).replace("\\t", "\t").replace("\\n", "\n"))


def _print_by_template(rows: Sequence[Row], listing: Listing, form: str) -> None:
    from lamina.cli.template import ExecutionError, SyntaxFault, Template
    from lamina.cli.template.shapes import Struct, shaped

    kind = type("Row", (Struct,), {"kind": listing.kind, "is_row": True, "__doc__": "One thing listed."})
    unreadable, unanswerable = listing.faults
    try:
        template = Template(form.removeprefix("table").lstrip(" ") if form.startswith("table") else form)
        lines = [template.render(kind(shaped(row))) for row in rows]
        if form.startswith("table"):
            headers = {**listing.headers, "Label": _label_header}
            print_table([line.split("\t") for line in [template.render(headers, is_header=True), *lines]])
        else:
            print(*lines, sep="\n", end="\n" if lines else "")
    except SyntaxFault as fault:
        raise CommandFailed(f"{unreadable}: {fault}") from None
    except ExecutionError as error:
        raise CommandFailed(f"{unanswerable}: {error}") from None


def _label_header(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def print_table(rows: Sequence[Sequence[str]], *, least: int = _LEAST_COLUMN) -> None:
    """Columns three blanks apart and at least so wide, the last one ragged (Go's text/tabwriter, as docker sets it)."""
    columns = max(len(row) for row in rows)
    widths = [
        max(least, *(len(row[column]) + _BETWEEN for row in rows if column < len(row) - 1))
        for column in range(columns - 1)
    ]
    for row in rows:
        print("".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1])


def go_json(value: Any) -> str:
    """JSON as Go writes it: compact, keys sorted, fit to stand in HTML."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).translate(_ESCAPED)


def go_quoted(text: str) -> str:
    """Text in double quotes, as Go's strconv.Quote has it."""
    named = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(named.get(c) or (c if c.isprintable() else f"\\x{ord(c):02x}") for c in text) + '"'


def shortened(text: str, length: int) -> str:
    """Text of at most *length* characters, an ellipsis for what is cut."""
    return text if len(text) <= length else text[: length - 1] + _ELLIPSIS


def joined_labels(labels: Mapping[str, str] | None) -> str:
    """Labels in a cell."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items()))


def human_ago(seconds: float) -> str:
    """``5 minutes ago``, of a moment in seconds since 1970."""
    return f"{human_duration(time.time() - seconds)} ago"


def human_duration(seconds: float) -> str:
    """A length of time in docker's words (go-units, HumanDuration)."""
    minutes, hours = int(seconds // 60), int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds < 2 else f"{int(seconds)} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < limit * 24:
            return f"{hours // 24 // unit} {name}"
    return f"{int(seconds // 86400) // 365} years"


def go_time(seconds: float) -> str:
    """A moment as Go prints it: ``2026-11-25 01:43:36 +0000 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def rfc3339(seconds: float) -> str:
    """A moment in seconds, with this host's zone: ``2026-11-25T01:43:36Z``."""
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def short_id(text: str) -> str:
    """Twelve digits of an ID."""
    return text.removeprefix("sha256:")[:12]


def stderr(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr)


def described(error: OSError, call: str = "open") -> str:
    """A failed system call as Go words it: ``open /nosuch: no such file or directory``."""
    what = (error.strerror or str(error)).lower()
    return f"{call} {error.filename}: {what}" if error.filename else what


def confirmed(warning: str) -> bool:
    """Ask before something that cannot be undone."""
    return input(f"{warning}\nAre you sure you want to continue? [y/N] ").strip().lower() in ("y", "yes")


def progress_lines(lines: Iterable[bytes], show: Callable[[dict[str, Any]], None]) -> None:
    """Hand each JSON line of a stream to *show*. Raises CommandFailed for an error in the stream, with its code."""
    for line in lines:
        fields = json.loads(line)
        if "error" in fields:
            code = (fields.get("errorDetail") or {}).get("code")
            raise CommandFailed(str(fields["error"]), code or 1)
        show(fields)
