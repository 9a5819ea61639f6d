"""What a template can call: Go's functions and docker's. Each raises ValueError with Go's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lamina.cli.template.printing import formatted, printed
from lamina.cli.template.shapes import Nil, Struct

Functions = dict[str, Callable[..., Any]]


def is_true(value: Any) -> bool:
    """Whether a value is not its type's zero; a struct always is."""
    return isinstance(value, Struct) or bool(value)


def to_json(value: Any) -> str:
    """Compact JSON; unlike Go's own, docker's escapes neither ``<`` nor what is not ASCII."""
    if isinstance(value, Struct):
        value = value.for_json()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return None if isinstance(value, Nil) else str(value)


def _as_it_is(value: Any, *_: Any) -> Any:
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
            continue
        if isinstance(value, Nil) or value is None:
            raise ValueError(f"index of nil pointer or value: {key}")
        if not isinstance(key, int):
            raise ValueError(f"cannot index slice/array with type {type(key).__name__}")
        if not 0 <= key < len(value):
            raise ValueError(f"index out of range: {key}")
        value = value[key]
    return "" if value is None else value


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    if not isinstance(value, str | Sequence):
        raise ValueError("can't slice item of this type")
    if not 0 <= start <= (len(value) if end is None else end) <= len(value):
        raise ValueError(f"index out of range: {start if end is None else end}")
    return value[start:end]


def _length(value: Any) -> int:
    if isinstance(value, Nil):
        return 0
    if isinstance(value, str):
        return len(value.encode())
    if not isinstance(value, Mapping | Sequence):
        raise ValueError(f"len of type {type(value).__name__}")
    return len(value)


def _print(*values: Any) -> str:
    """Blanks go between operands when neither is text (fmt.Sprint)."""
    result = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            result += " "
        result += printed(value, nothing="<nil>")
    return result


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(a: Any, b: Any) -> bool:
        kinds = {bool if isinstance(v, bool) else str if isinstance(v, str) else float for v in (a, b)}
        if len(kinds) > 1:
            raise ValueError("incompatible types for comparison")
        return test(a, b)

    return compare


def _equal(a: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    equal = _compare(lambda x, y: bool(x == y))
    return any(x is a if x is None or a is None else equal(a, x) for x in others)


def _javascript(text: str) -> str:
    named = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    return "".join(named.get(c) or (c if c.isprintable() else f"\\u{ord(c):04X}") for c in text)


def _escaped_for_url(text: str) -> str:
    from urllib.parse import quote_plus

    return quote_plus(text)


def _html(text: str) -> str:
    return text.translate(_ENTITIES)


def _title(text: str) -> str:
    return "".join(c.upper() if not i or not text[i - 1].isalnum() else c for i, c in enumerate(text))


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"})

FUNCTIONS: Functions = {
    "json": to_json,
    "upper": lambda v: str(v).upper(),
    "lower": lambda v: str(v).lower(),
    "title": _title,
    "join": lambda v, s: s.join(map(printed, v or ())),
    "split": lambda v, s: str(v).split(s),
    "truncate": lambda v, n: str(v)[:n],
    "pad": _pad,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": lambda *v: " ".join(printed(x, nothing="<nil>") for x in v) + "\n",
    "printf": formatted,
    "html": lambda *v: _html(_print(*v)),
    "js": lambda *v: _javascript(_print(*v)),
    "urlquery": lambda *v: _escaped_for_url(_print(*v)),
    "eq": _equal,
    "ne": _compare(lambda a, b: bool(a != b)),
    "lt": _compare(lambda a, b: bool(a < b)),
    "le": _compare(lambda a, b: bool(a <= b)),
    "gt": _compare(lambda a, b: bool(a > b)),
    "ge": _compare(lambda a, b: bool(a >= b)),
    "not": lambda a: not is_true(a),
    # these two see only what they need (execution)
    "and": lambda *v: v[-1],
    "or": lambda *v: v[-1],
}

# docker's HeaderFunctions
HEADER_FUNCTIONS: Functions = dict.fromkeys(("json", "title", "lower", "upper", "truncate", "join", "split"), _as_it_is)
