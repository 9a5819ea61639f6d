"""Patterns: .dockerignore's, and the wildcards of COPY and ADD (Go's filepath.Match, with ``**`` in .dockerignore)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.errors import InvalidArgument


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
        rules = []
        for line in text.removeprefix("\ufeff").splitlines():
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            excludes = not pattern.startswith("!")
            cleaned = posixpath.normpath(pattern.removeprefix("!").strip() or ".").lstrip("/")
            if cleaned in (".", ""):
                continue
            rules.append(_Rule(_compile(cleaned), excludes, tuple(cleaned.split("/"))))
        return cls(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether a path, relative to the context, is left out."""
        parts = path.strip("/").split("/")
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


def match_wildcard(pattern: str, name: str) -> bool:
    """Go's filepath.Match: ``*`` and ``?`` do not match a slash. Raises InvalidPattern."""
    return re.compile(_checked(pattern, wildcard_expression(pattern)), re.DOTALL).fullmatch(name) is not None


def has_wildcard(text: str) -> bool:
    """Whether a source of COPY is a pattern."""
    return any(c in text for c in "*?[")


def wildcard_expression(pattern: str, *, greedy: bool = False) -> str:
    """A pattern as a regular expression; with *greedy*, ``*`` and ``?`` match a slash too, as in shell words."""
    anything, one = (".*", ".") if greedy else ("[^/]*", "[^/]")
    result = ""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            result += anything
        elif char == "?":
            result += one
        elif char == "\\" and position < len(pattern):
            result += re.escape(pattern[position])
            position += 1
        elif char == "[" and "]" in pattern[position + 1 :]:
            end = pattern.index("]", position + 1)
            inside = pattern[position:end].replace("\\", "\\\\").replace("[", "\\[")
            result += "[" + ("^" + inside[1:] if inside[:1] in ("^", "!") else inside) + "]"
            position = end + 1
        else:
            result += re.escape(char)
    return result


def _compile(pattern: str) -> re.Pattern[str]:
    """A .dockerignore pattern; ``**`` matches any number of directories, none too."""
    result = ""
    for part in re.split(r"(\*\*/?)", pattern):
        if part == "**/":
            result += "(?:.*/)?"
        elif part == "**":
            result += ".*"
        else:
            result += wildcard_expression(part)
    return re.compile(_checked(pattern, result), re.DOTALL)


def _checked(pattern: str, expression: str) -> str:
    if "[" in pattern and re.search(r"(?<!\\)\[(?![^\]]+\])", pattern):
        raise InvalidPattern(pattern)
    try:
        re.compile(expression)
    except re.error:
        raise InvalidPattern(pattern) from None
    return expression


def _may_lead_below(rule: Sequence[str], directory: Sequence[str]) -> bool:
    for wanted, part in zip(rule, directory, strict=False):
        if wanted == "**":
            return True
        if not match_wildcard(wanted, part):
            return False
    return True
