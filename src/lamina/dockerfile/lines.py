"""Logical lines: directives, comments, continuations and here-documents taken apart, nothing yet understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.dockerfile.errors import DockerfileError

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)")
_QUOTED = re.compile(r"'([^']*)'|\"((?:\\.|[^\"\\])*)\"|\\(.)", re.DOTALL)
_KNOWN = ("syntax", "escape", "check")
_TAKE_HEREDOCS = (["RUN"], ["COPY"], ["ADD"])


@dataclass(frozen=True)
class Heredoc:
    """A here-document: ``<<NAME``; its text is expanded unless the name was quoted."""

    name: str
    text: str
    expand: bool
    chomp: bool


@dataclass(frozen=True)
class LogicalLine:
    """One instruction's text with continuations joined, where it stood, and its here-documents.

    *comments* stand right above it; *gap* is the line where a text ends that has an empty line inside, 0 for one that has none.
    """

    text: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    gap: int = 0


@dataclass(frozen=True)
class Source:
    """A Dockerfile's lines and its directives."""

    filename: str
    lines: tuple[str, ...]
    directives: dict[str, str]

    @property
    def escape(self) -> str:
        """The character that escapes and continues lines."""
        return self.directives.get("escape", "\\")


def read_source(text: str | bytes, filename: str = "Dockerfile") -> Source:
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
        value = match.group(2)
        detail = ""
        if name in directives:
            detail = f"only one {name} parser directive can be used"
        elif name == "escape" and value not in ("\\", "`"):
            detail = f"invalid escape token '{value}' does not match ` or \\"
        if detail:
            raise DockerfileError(detail, line=number, filename=filename, source=lines)
        directives[name] = value
    return Source(filename, lines, directives)


def logical_lines(source: Source) -> Iterator[LogicalLine]:
    """The instructions' texts. Comments and empty lines are dropped, also inside a continued one.

    Raises DockerfileError for a here-document that does not end.
    """
    position = len(source.directives)
    comments: tuple[str, ...] = ()
    while position < len(source.lines):
        line = source.lines[position].strip()
        if not line or line.startswith("#"):
            comment = line[1:].strip()
            comments = (*comments, comment) if comment else ()
            position += 1
            continue
        first = position
        text, position, has_gap = _joined(source, position)
        gap = position if has_gap else 0
        heredocs, position = _heredocs(source, text, first, position)
        if text:
            yield LogicalLine(text, first + 1, position, heredocs, comments, gap)
        comments = ()


def _joined(source: Source, position: int) -> tuple[str, int, bool]:
    """The text that begins at *position* with its continuations, the position behind it, and whether it has an empty line inside."""
    mark = re.escape(source.escape)
    continuation = re.compile(rf"(?<!{mark}){mark}[ \t]*$")
    pieces: list[str] = []
    has_gap = False
    while position < len(source.lines):
        line = source.lines[position]
        position += 1
        is_empty = not line.strip()
        if pieces and (is_empty or line.lstrip().startswith("#")):
            # behind the file's last newline there is no further line
            has_gap |= is_empty and position < len(source.lines)
            continue
        continued = continuation.search(line)
        pieces.append(line[: continued.start()] if continued else line)
        if not continued:
            break
    return "".join([pieces[0].lstrip(), *pieces[1:]]).rstrip(), position, has_gap


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words as written, quotes kept: they are taken off when variables are expanded."""
    words = []
    start = _skip_blanks(text, 0)
    while start < len(text):
        end = word_end(text, start, escape)
        words.append(text[start:end])
        start = _skip_blanks(text, end)
    return words


def word_end(text: str, start: int, escape: str = "\\") -> int:
    """Where the word that begins at *start* ends: at a blank that is neither quoted nor escaped."""
    quote, position = "", start
    while position < len(text):
        char = text[position]
        if char == escape and quote != "'":
            position += 1
        elif char.isspace() and not quote:
            return position
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        position += 1
    return len(text)


def unquoted(word: str) -> str:
    """A word without its quotes and escapes."""
    return _QUOTED.sub(lambda m: m[1] if m[1] is not None else m[3] or re.sub(r"\\(.)", r"\1", m[2] or ""), word)


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _heredocs(source: Source, text: str, first: int, position: int) -> tuple[tuple[Heredoc, ...], int]:
    """The here-documents that a line asks for, and the position behind them."""
    found: list[Heredoc] = []
    for word in _takers_words(text):
        match = _HEREDOC.fullmatch(word)
        name = unquoted(match[2]) if match else ""
        if not match or not name:
            continue
        chomp, body = bool(match[1]), ""
        while True:
            if position >= len(source.lines):
                raise DockerfileError(
                    f"unterminated heredoc: {name}",
                    line=first + 1,
                    end_line=position,
                    filename=source.filename,
                    source=source.lines,
                )
            line = source.lines[position].lstrip("\t" if chomp else "")
            position += 1
            if line == name:
                break
            body += f"{line}\n"
        is_quoted = "'" in match[2] or '"' in match[2]
        found.append(Heredoc(name, body, not is_quoted, chomp))
    return tuple(found), position


def _takers_words(text: str) -> list[str]:
    """The words of an instruction that takes here-documents, itself or as a trigger; of another none."""
    if "<<" not in text:
        return []
    words = split_words(text)
    keywords = [word.upper() for word in words[:2]]
    return words if keywords[keywords[0] == "ONBUILD" :][:1] in _TAKE_HEREDOCS else []
