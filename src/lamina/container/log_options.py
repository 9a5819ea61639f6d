"""``--log-driver`` and ``--log-opt``: what they may say, how long a log may become, and what ``--details`` shows with its lines.

Every driver but ``none`` keeps the file that conmon writes, so that ``logs`` always works. ``json-file`` and ``local`` differ in their
limits alone; with ``journald`` conmon writes to the journal, too, and with ``syslog`` the daemon to syslog (``container.syslog``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from lamina.container.config import LogConfig
from lamina.container.errors import UnsupportedOption
from lamina.container.record import Record
from lamina.container.syslog import SYSLOG_OPTIONS, SyslogTarget
from lamina.errors import InvalidArgument

DRIVERS = ("json-file", "local", "none", "journald", "syslog")
JOURNAL = Path("/run/systemd/journal/socket")
_OPTIONS = frozenset("max-size max-file compress labels labels-regex env env-regex tag mode max-buffer-size".split())
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "": 1}
_TRUE = frozenset("1 t T TRUE true True".split())
_FALSE = frozenset("0 f F FALSE false False".split())
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


@dataclass(frozen=True)
class LogLimits:
    """How long a file of a log may become, None for as long as it likes, how many there may be, and whether old ones are compressed."""

    max_bytes: int | None
    max_files: int
    compress: bool = False


_DEFAULTS = {"json-file": LogLimits(10 << 20, 3), "local": LogLimits(20 << 20, 5, compress=True)}


def log_limits(config: LogConfig) -> LogLimits:
    """The limits that a log's options ask for; by default 10 MiB times 3 (``local``: 20 MiB times 5). Raises InvalidArgument."""
    options = config.config or {}
    default = _DEFAULTS.get(config.type, LogLimits(10 << 20, 3))
    max_bytes, max_files = default.max_bytes, default.max_files
    if "max-size" in options:
        max_bytes = _parse_size(options["max-size"])
        max_files = 1 if config.type == "json-file" else max_files
    if "max-file" in options:
        text = options["max-file"]
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise InvalidArgument(f"invalid value for max-file: {text!r}: max-file cannot be less than 1")
        max_files = min(int(text), 1000)
    compress = _boolean(options["compress"]) if "compress" in options else default.compress
    if "compress" in options and compress and config.type == "json-file" and (max_bytes is None or max_files < 2):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return LogLimits(max_bytes, max_files, compress)


def _parse_size(text: str) -> int | None:
    """``10m``, ``512k``, ``1.5g``; ``-1`` for no limit."""
    if text == "-1":
        return None
    number = text.lower().removesuffix("b").removesuffix("i") if text.lower() != "b" else text
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        size = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        raise InvalidArgument(f"invalid size: '{text}'") from None
    if size <= 0:
        raise InvalidArgument(f"invalid size: '{text}': max-size must be positive")
    return size


def _boolean(text: str) -> bool:
    """What Go's strconv.ParseBool takes."""
    if text not in _TRUE and text not in _FALSE:
        raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def check_log_config(config: LogConfig) -> None:
    """Refuse drivers and options that are wrong or not there. *config* is complete. Raises InvalidArgument or UnsupportedOption."""
    options = config.config or {}
    if config.type not in DRIVERS:
        raise UnsupportedOption(f"log driver {config.type!r}", f"lamina has {', '.join(DRIVERS)}")
    if config.type == "none":
        return
    known = _OPTIONS | SYSLOG_OPTIONS if config.type == "syslog" else _OPTIONS
    for name in sorted(set(options) - known):
        raise InvalidArgument(f"unknown log opt '{name}' for {config.type} log driver")
    log_limits(config)
    if config.type == "journald" and not JOURNAL.exists():
        raise InvalidArgument("journald is not enabled on this host")
    if config.type == "syslog":
        SyslogTarget.of(options)
    _check_mode(options)
    for name in ("labels-regex", "env-regex"):
        _pattern(options.get(name, ""))
    _expanded(options.get("tag", ""), dict.fromkeys(_TAG_FIELDS, ""))


def _check_mode(options: Mapping[str, str]) -> None:
    """Both modes are taken: conmon's writing to a file keeps no container waiting for anything but its disk."""
    mode = options.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise InvalidArgument(f"logger: unknown log mode: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _parse_size(options["max-buffer-size"])


def tag_of(record: Record) -> str:
    """What a container's lines are called where those of others are, too: by default its short ID."""
    options = record.host_config.log_config.config or {}
    return _expanded(options.get("tag") or "{{.ID}}", _tag_values(record))


_TAG_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName")


def details_of(record: Record) -> str:
    """What ``--details`` shows: the labels and variables that the log's options name, and its tag, in docker's form."""
    options = record.host_config.log_config.config or {}
    variables = dict(entry.split("=", 1) for entry in record.config.env or [] if "=" in entry)
    values = {
        **dict(_chosen(record.config.labels or {}, options.get("labels", ""), options.get("labels-regex", ""))),
        **dict(_chosen(variables, options.get("env", ""), options.get("env-regex", ""))),
    }
    if options.get("tag"):
        values["tag"] = _expanded(options["tag"], _tag_values(record))
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(values.items()))


def _chosen(known: Mapping[str, str], names: str, pattern: str) -> Iterator[tuple[str, str]]:
    wanted = names.split(",")
    matches = _pattern(pattern)
    for name, value in known.items():
        if name in wanted or (matches is not None and matches.search(name)):
            yield name, value


def _pattern(text: str) -> Any:
    """A compiled pattern, None for none. Raises InvalidArgument."""
    if not text:
        return None
    import re2  # not before it is needed: it is large

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        raise InvalidArgument(f"invalid pattern in a log option: {text!r}: {error}") from None


def _tag_values(record: Record) -> dict[str, str]:
    image = record.image_id.removeprefix("sha256:")
    return {
        "ID": record.short_id,
        "FullID": record.id,
        "Name": record.name,
        "ImageName": record.image_name,
        "ImageID": image[:12],
        "ImageFullID": record.image_id,
        "DaemonName": "lamina",
    }


def _expanded(tag: str, values: Mapping[str, str]) -> str:
    """A tag with its fields, as ``{{.Name}}``, replaced. Raises InvalidArgument."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InvalidArgument(f"invalid log tag {tag!r}: there is no field {match[1]}")
        return values[match[1]]

    expanded = _FIELD.sub(value, tag)
    if "{{" in _FIELD.sub("", tag):
        raise InvalidArgument(f"invalid log tag {tag!r}: only fields such as {{{{.Name}}}} can stand in it")
    return expanded
