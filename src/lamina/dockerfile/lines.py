"""Logical lines: directives, comments, continuations and here-documents taken apart, nothing yet understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.dockerfile.errors import DockerfileError

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(
    r"(?<![<\w])(?P<fd>\d*)<<(?P<chomp>-?)(?P<quote>['\"]?)(?P<name>[a-zA-Z_][a-zA-Z0-9_.]*)(?P=quote)(?!<)"
)
_KNOWN = ("syntax", "escape", "check")
_TAKE_HEREDOCS = ("RUN", "COPY", "ADD")


@dataclass(frozen=True)
class Heredoc:
    """A here-document: ``<<NAME``; its text is expanded unless the name was quoted."""

    name: str
    text: str
    expand: bool
    chomp: bool


@dataclass(frozen=True)
class LogicalLine:
    """One instruction's text with continuations joined, where it stood, and its here-documents."""

    text: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True)
class Source:
    """A Dockerfile's lines and its directives."""

    lines: tuple[str, ...]
    directives: dict[str, str]

    @property
    def escape(self) -> str:
        """The character that escapes and continues lines."""
        return self.directives.get("escape", "\\")


def read_source(text: str | bytes) -> Source:
    """Split a Dockerfile into lines and read the directives at its top. Raises DockerfileError."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    lines = tuple(line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n"))
    directives: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.fullmatch(line.strip())
        if not match or match.group(1).lower() not in _KNOWN:
            break
        name = match.group(1).lower()
        if name in directives:
            raise DockerfileError(f"only one {name} parser directive can be used", line=number, source=lines)
        directives[name] = match.group(2)
    if directives.get("escape", "\\") not in ("\\", "`"):
        raise DockerfileError(
            f"invalid escape token '{directives['escape']}' does not match ` or \\", line=1, source=lines
        )
    return Source(lines, directives)


def logical_lines(source: Source) -> Iterator[LogicalLine]:
    """The instructions' texts. Comments and empty lines are dropped, also inside a continued one.

    Raises DockerfileError for a here-document that does not end.
    """
    continuation = re.compile(re.escape(source.escape) + r"[ \t]*$")
    position = 0
    while position < len(source.lines):
        line = source.lines[position]
        if not line.strip() or line.lstrip().startswith("#"):
            position += 1
            continue
        first = position
        pieces: list[str] = []
        while True:
            line = source.lines[position]
            position += 1
            if pieces and (not line.strip() or line.lstrip().startswith("#")):
                if position >= len(source.lines):
                    break
                continue
            continued = continuation.search(line)
            pieces.append(line[: continued.start()] if continued else line)
            if not continued or position >= len(source.lines):
                break
        text = "".join([pieces[0].lstrip(), *pieces[1:]]).rstrip()
        heredocs, position = _heredocs(source, text, first, position)
        if text:
            yield LogicalLine(text, first + 1, position, heredocs)


def _heredocs(source: Source, text: str, first: int, position: int) -> tuple[tuple[Heredoc, ...], int]:
    if "<<" not in text or text.split(None, 1)[0].upper() not in _TAKE_HEREDOCS:
        return (), position
    found = []
    for match in _HEREDOC.finditer(_outside_quotes(text)):
        name, chomp = match.group("name"), bool(match.group("chomp"))
        body = []
        while True:
            if position >= len(source.lines):
                raise DockerfileError(
                    f"unterminated heredoc: {name}", line=first + 1, end_line=position, source=source.lines
                )
            line = source.lines[position]
            position += 1
            stripped = line.lstrip("\t") if chomp else line
            if stripped == name:
                break
            body.append(stripped)
        found.append(Heredoc(name, "".join(f"{b}\n" for b in body), not match.group("quote"), chomp))
    return tuple(found), position


def _outside_quotes(text: str) -> str:
    """The text with quoted words blanked, but for the quotes of a here-document's own name."""
    return re.sub(r"(?<!<)(?<!<-)('[^']*'|\"[^\"]*\")", lambda m: " " * len(m.group()), text)
