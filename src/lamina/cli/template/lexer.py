"""A template's text as tokens: literal text, and what is between ``{{`` and ``}}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lamina.cli.template.errors import SyntaxFault

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<close>(?<=\s)-\}\}|\}\})
    | (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\\n])+')
    | (?P<number>[+-]?\.?\d[\w.]*)
    | (?P<field>\.[^\W\d]\w*)
    | (?P<variable>\$\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<mark>:=|[=|(),.])""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"/\*.*?\*/(?=(\s-)?\}\})", re.DOTALL)
_BLANKS = " \t\r\n"


class Token(NamedTuple):
    """A piece of a template; *kind* is ``text``, ``open``, ``end`` (of the template) or one of the pattern's groups."""

    kind: str
    text: str
    position: int


def tokens(text: str, name: str) -> Iterator[Token]:
    """Take a template apart; white space within actions is kept, as it divides fields. Raises SyntaxFault."""
    position, trims = 0, False
    while (start := text.find("{{", position)) >= 0:
        opening = 3 if text[start + 2 : start + 3] == "-" and text[start + 3 : start + 4] in tuple(_BLANKS) else 2
        literal = text[position:start]
        literal = literal.lstrip(_BLANKS) if trims else literal
        yield Token("text", literal.rstrip(_BLANKS) if opening == 3 else literal, position)
        position = start + opening
        comment = _COMMENT.match(text, len(text[:position]) + _blanks_at(text, position))
        if comment is not None:
            position = comment.end()
            trims = text.startswith(" -", position)
            position += 4 if trims else 2
            continue
        yield Token("open", "{{", start)
        for token in _action(text, position, name):
            yield token
            position = token.position + len(token.text)
        trims = text[position - 3 : position] == "-}}"
    rest = text[position:]
    yield Token("text", rest.lstrip(_BLANKS) if trims else rest, position)
    yield Token("end", "", len(text))


def _blanks_at(text: str, position: int) -> int:
    return len(text[position:]) - len(text[position:].lstrip(_BLANKS))


def _action(text: str, position: int, name: str) -> Iterator[Token]:
    """The tokens of one action, ``}}`` the last."""
    while True:
        line = text.count("\n", 0, position) + 1
        match = _TOKEN.match(text, position)
        if match is None:
            raise SyntaxFault(name, line, _why(text[position:]))
        kind = match.lastgroup or ""
        yield Token(kind, match.group(), position)
        if kind == "close":
            return
        position = match.end()


def _why(rest: str) -> str:
    if not rest:
        return "unclosed action"
    if rest[0] == '"':
        return "unterminated quoted string"
    if rest[0] == "`":
        return "unterminated raw quoted string"
    if rest[0] == "'":
        return "unterminated character constant"
    return f"unexpected {rest[0]!r} in command"
