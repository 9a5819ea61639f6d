"""Values as Go's fmt prints them: ``%v`` and the other verbs of printf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lamina.cli.output import go_quoted
from lamina.cli.template.shapes import Nil, Struct

_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?(.)", re.DOTALL)
_TYPES = ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"))


def printed(value: Any, *, nothing: str = "<no value>") -> str:
    """``%v``; *nothing* is what no value prints as: fmt has ``<nil>``, a template's action ``<no value>``."""
    if value is None:
        return nothing
    if isinstance(value, Nil):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) >= 1e21 else repr(value).removesuffix(".0")
    if isinstance(value, Struct):
        return "{" + " ".join(printed(v, nothing="<nil>") for v in value.members()) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{k}:{printed(v, nothing='<nil>')}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(printed(v, nothing="<nil>") for v in value) + "]"
    return str(value)


def formatted(form: str, *values: Any) -> str:
    """``printf``: the verbs v, s, d, q, x, X, t, f, g, e and c, with flags, width and precision."""
    left = list(values)

    def fill(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        value = left.pop(0)
        text = _verb(verb, value, flags, precision)
        if text is None:
            return f"%!{verb}({_type(value)}={printed(value, nothing='<nil>')})"
        return _padded(text, flags, int(width or 0))

    result = _VERB.sub(fill, form)
    if left:
        result += "%!(EXTRA " + ", ".join(f"{_type(v)}={printed(v, nothing='<nil>')}" for v in left) + ")"
    return result


def _verb(verb: str, value: Any, flags: str, precision: str | None) -> str | None:
    """A value by a verb; None if the verb is not for it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    sign = "+" if "+" in flags else " " if " " in flags else ""
    if verb in "vs":
        if verb == "s" and (is_number or isinstance(value, bool)):
            return None
        text = printed(value, nothing="<nil>")
        return text if precision is None else text[: int(precision)]
    if verb == "q" and isinstance(value, str):
        return go_quoted(value)
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "dxXobc" and is_number and isinstance(value, int):
        return chr(value) if verb == "c" else format(value, sign + ("#" if "#" in flags else "") + verb)
    if verb == "t" and isinstance(value, bool):
        return printed(value)
    if verb in "feg" and isinstance(value, float):
        return format(value, f"{sign}.{precision or 6}{verb}" if precision or verb != "g" else f"{sign}g")
    return None


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        return text.zfill(width)
    return text.rjust(width)


def _type(value: Any) -> str:
    return next(
        (name for kind, name in _TYPES if isinstance(value, kind)), "<nil>" if value is None else "interface {}"
    )
