"""Patterns: .dockerignore's, and the wildcards of COPY and ADD (Go's filepath.Match, with ``**`` in .dockerignore)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lamina.errors import InvalidArgument

_STAR = "[^/]*?"
_ANYTHING = ".*"
_DIRECTORIES = "(?:.*/)?"


class InvalidPattern(InvalidArgument):
    """A pattern is malformed."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"syntax error in pattern: {pattern!r}")
        self.pattern = pattern


@dataclass(frozen=True)
class _Rule:
    expression: re.Pattern[str]
    excludes: bool
    parts: tuple[str, ...]


class IgnoreRules:
    """The rules of a .dockerignore: the last one that matches a path, or a directory above it, decides."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = rules
        self._exceptions = [rule for rule in rules if not rule.excludes]

    @classmethod
    def parse(cls, text: str) -> IgnoreRules:
        """Read the file's lines. Raises InvalidPattern."""
        return cls.of(line for line in text.removeprefix("\ufeff").split("\n") if not line.startswith("#"))

    @classmethod
    def of(cls, patterns: Iterable[str]) -> IgnoreRules:
        """Rules of patterns, each of which may begin with ``!``. Raises InvalidPattern."""
        rules = []
        for pattern in map(str.strip, patterns):
            if not pattern:
                continue
            excludes = not pattern.startswith("!")
            pattern = pattern.removeprefix("!").strip()
            if not pattern:
                raise InvalidPattern("!")
            rules += _rules(pattern, excludes=excludes)
        return cls(rules)

    @classmethod
    def only(cls, pattern: str) -> IgnoreRules:
        """Rules that leave out all but what a pattern names and what lies below it. Raises InvalidPattern."""
        taken_in = _rules(pattern, excludes=False)
        return cls([*_rules("**", excludes=True), *taken_in] if taken_in else [])

    def __bool__(self) -> bool:
        return bool(self._rules)

    @property
    def has_exceptions(self) -> bool:
        """Whether a ``!`` takes something in again."""
        return bool(self._exceptions)

    def excludes(self, path: str) -> bool:
        """Whether a path, relative to the context, is left out; the context itself never is."""
        parts = path.strip("/").split("/")
        if parts in ([""], ["."]):
            return False
        above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        excluded = False
        for rule in self._rules:
            if rule.excludes != excluded and any(rule.expression.fullmatch(p) for p in above):
                excluded = rule.excludes
        return excluded

    def may_contain_included(self, directory: str) -> bool:
        """Whether something below an excluded directory may be taken in again, so that it has to be looked through."""
        parts = directory.strip("/").split("/")
        return any(_may_lead_below(rule.parts, parts) for rule in self._exceptions)


def _rules(pattern: str, *, excludes: bool) -> list[_Rule]:
    """The rule of a pattern; none if it means the context itself."""
    cleaned = posixpath.normpath(pattern).lstrip("/")
    if cleaned in (".", ""):
        return []
    expression = re.compile(wildcard_expression(cleaned, across_directories=True), re.DOTALL)
    return [_Rule(expression, excludes, tuple(cleaned.split("/")))]


def match_wildcard(pattern: str, name: str) -> bool:
    """Go's filepath.Match: ``*`` and ``?`` do not match a slash. Raises InvalidPattern."""
    return re.compile(wildcard_expression(pattern), re.DOTALL).fullmatch(name) is not None


def has_wildcard(text: str) -> bool:
    """Whether a source of COPY is a pattern."""
    return any(c in text for c in "*?[")


def wildcard_expression(pattern: str, *, across_directories: bool = False) -> str:
    """A pattern as a regular expression; with *across_directories*, ``**`` matches slashes too. Raises InvalidPattern."""
    pieces: list[str] = []
    position = 0
    while position < len(pattern):
        if across_directories and pattern.startswith("**", position):
            piece, position = _across_directories(pattern, position)
        else:
            piece, position = _one_piece(pattern, position)
        pieces.append(piece)
    return _joined(pieces)


def _joined(pieces: Sequence[str]) -> str:
    """One expression that does not try in vain: what stands between two stars is taken where it first fits.

    No later place could serve the second star better, unless a class matches a slash, which no star passes. Without this, the time for
    ``*a*a*a*b`` grows with the power of its stars.
    """
    may_settle = not any(piece.startswith("[") and re.fullmatch(piece, "/") for piece in pieces)
    result, segment = "", ""
    for piece in pieces:
        if piece == _STAR:
            settled = may_settle and segment.startswith(_STAR)
            result += f"(?>{segment})" if settled else segment
            segment = ""
        elif piece in (_ANYTHING, _DIRECTORIES):
            result += segment
            segment = ""
        segment += piece
    return result + segment


def _one_piece(pattern: str, position: int) -> tuple[str, int]:
    """The expression for what stands at *position*, and the position behind it."""
    char = pattern[position]
    if char == "*":
        return _STAR, position + 1
    if char == "?":
        return "[^/]", position + 1
    if char == "[":
        return _class(pattern, position + 1)
    if char == "\\":
        position += 1
        if position == len(pattern):
            raise InvalidPattern(pattern)
    return re.escape(pattern[position]), position + 1


def _across_directories(pattern: str, position: int) -> tuple[str, int]:
    """``**``: everything at the end of a pattern, else any number of whole directories, none too.

    Docker takes ``**name``, without a slash and without further wildcards, as any path that ends so.
    """
    end = position + (3 if pattern.startswith("**/", position) else 2)
    ends_so = position == 0 and end == 2 and not any(c in pattern[end:] for c in "*?[]\\")
    return _ANYTHING if end == len(pattern) or ends_so else _DIRECTORIES, end


def _class(pattern: str, position: int) -> tuple[str, int]:
    """A bracket expression, from behind its ``[`` to behind its ``]``. Only ``^`` negates it (filepath.Match)."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while not ranges or not pattern.startswith("]", position):
        low, position = _class_member(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_member(pattern, position + 1)
        # a range that runs backwards is no error there; it matches nothing
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    if not inside:
        return r"[\s\S]" if negated else "(?!)", position + 1
    return f"[{'^' if negated else ''}{inside}]", position + 1


def _class_member(pattern: str, position: int) -> tuple[str, int]:
    char = pattern[position : position + 1]
    if char in ("", "-", "]"):
        raise InvalidPattern(pattern)
    if char == "\\":
        position += 1
        char = pattern[position : position + 1]
    if not char or position + 1 == len(pattern):
        raise InvalidPattern(pattern)
    return char, position + 1


def _may_lead_below(rule: Sequence[str], directory: Sequence[str]) -> bool:
    for wanted, part in zip(rule, directory, strict=False):
        # a class or an escape may reach over the slash that the rule was cut at
        if "**" in wanted or "[" in wanted or "\\" in wanted:
            return True
        if not match_wildcard(wanted, part):
            return False
    return True
