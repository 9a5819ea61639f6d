"""Variables and quotes in an instruction's words (Dockerfile reference, "Environment replacement"; BuildKit's shell lexer)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lamina.dockerfile.errors import DockerfileError

_NAME = re.compile(r"[0-9]+|[^\W\d]\w*|[@*#?!$-]")
_OPERATORS = ("}", ":-", ":+", ":?", "-", "+", "?", ":##", ":#", "##", "#", ":%%", ":%", "%%", "%", "//", "/")
_DEEPEST = 50  # substitutions inside substitutions


def expand_word(word: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """One word with variables replaced and quotes removed. Raises DockerfileError."""
    return "".join(text for text, _ in _Lexer(word, env, escape).pieces())


def expand_text(text: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """A here-document with variables replaced; its quotes are its own and stay. Raises DockerfileError."""
    return "".join(piece for piece, _ in _Lexer(text, env, escape, quotes=False).pieces())


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Several words: split at blanks that stand outside quotes, also at those that a variable brought.

    Words that turn out empty are dropped. Raises DockerfileError.
    """
    words: list[str] = []
    current: str | None = None
    for piece, quoted in _Lexer(text, env, escape).pieces():
        if quoted:
            current = (current or "") + piece
            continue
        parts = re.split(r"[ \t\n]+", piece)
        for index, part in enumerate(parts):
            if index and current:
                words.append(current)
                current = None
            if part:
                current = (current or "") + part
    return [*words, current] if current else words


class _Lexer:
    """Walks a text once; ``pieces`` are (text, whether it was quoted or escaped)."""

    def __init__(self, text: str, env: Mapping[str, str], escape: str, *, quotes: bool = True) -> None:
        self._text = text
        self._env = env
        self._escape = escape
        self._quotes = "'\"" if quotes else ""
        self._keeps_escapes = False
        self._depth = 0
        self._at = 0

    def pieces(self, until: str = "") -> list[tuple[str, bool]]:
        """The pieces up to the end, or up to the character *until*, at which the walk then stands."""
        result: list[tuple[str, bool]] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == until:
                return result
            if char in self._quotes:
                result.append((self._single_quoted() if char == "'" else self._double_quoted(), True))
            elif char == "$":
                result.append((self._dollar(), False))
            elif char == self._escape:
                result.append((self._escaped(), True))
            else:
                result.append((char, False))
                self._at += 1
        if until:
            raise DockerfileError(f"syntax error: missing '{until}'" + (" in ${}" if until == "/" else ""))
        return result

    def _escaped(self) -> str:
        start = self._at if self._keeps_escapes else self._at + 1
        self._at += 2
        return self._text[start : self._at]

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise DockerfileError("unexpected end of statement while looking for matching single-quote")
        text = self._text[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double_quoted(self) -> str:
        self._at += 1
        result: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(result)
            if char == "$":
                result.append(self._dollar())
                continue
            if char == self._escape:
                if self._text[self._at + 1 : self._at + 2] in ('"', "$", self._escape):
                    result.append(self._escaped())
                    continue
                # it stands for itself; a pattern reads it so when it is doubled
                char = char * 2 if self._keeps_escapes else char
            result.append(char)
            self._at += 1
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._braced()
        match = _NAME.match(self._text, self._at)
        if not match:
            return "$"
        self._at = match.end()
        return self._env.get(match.group(), "")

    def _braced(self) -> str:
        match = _NAME.match(self._text, self._at)
        if not match:
            raise DockerfileError("syntax error: bad substitution")
        name = match.group()
        self._at = match.end()
        value = self._env.get(name)
        operator = self._operator()
        if operator == "}":
            return value or ""
        if operator in ("/", "//"):
            pattern = self._operand("/", keeps_escapes=True)
            replacement = self._operand("}", keeps_escapes=True)
            return _replaced(value or "", pattern, replacement, everywhere=operator == "//")
        return _modified(name, value, operator, self._operand("}", keeps_escapes=operator[-1] in "#%"))

    def _operand(self, until: str, *, keeps_escapes: bool) -> str:
        """The word behind an operator, up to the character that ends it. Patterns keep their escapes."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise DockerfileError("substitutions are nested too deeply")
        outer, self._keeps_escapes = self._keeps_escapes, keeps_escapes
        word = "".join(text for text, _ in self.pieces(until))
        self._keeps_escapes = outer
        self._depth -= 1
        self._at += 1
        return word

    def _operator(self) -> str:
        for operator in _OPERATORS:
            if self._text.startswith(operator, self._at):
                self._at += len(operator)
                return operator
        rest = self._text[self._at : self._at + 2]
        raise DockerfileError(f"unsupported modifier ({rest}) in substitution" if rest else "syntax error: missing '}'")


def _modified(name: str, value: str | None, operator: str, word: str) -> str:
    missing = not value if operator.startswith(":") else value is None
    kind = operator[-1]
    if kind == "-":
        return word if missing else value or ""
    if kind == "+":
        return "" if missing else word
    if kind == "?":
        if missing:
            default = "is not allowed to be " + ("unset" if value is None else "empty")
            raise DockerfileError(f"{name}: {word or default}")
        return value or ""
    return _trimmed(value or "", word, operator.removeprefix(":"))  # a colon says nothing here


def _trimmed(value: str, pattern: str, operator: str) -> str:
    """``#`` and ``%`` take the shortest prefix or suffix that matches, doubled the longest."""
    expression = _shell_pattern(pattern)
    lengths = range(len(value) + 1) if len(operator) == 1 else range(len(value), -1, -1)
    for length in lengths:
        part = value[:length] if operator[0] == "#" else value[len(value) - length :]
        if expression.fullmatch(part):
            return value[length:] if operator[0] == "#" else value[: len(value) - length]
    return value


def _replaced(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    result, end = "", 0
    for match in _shell_pattern(pattern).finditer(value):
        if match.end() == end and end > 0:
            continue  # nothing, right behind the last match
        result += value[end : match.start()] + replacement
        end = match.end()
        if not everywhere:
            break
    return result + value[end:]


def _shell_pattern(pattern: str) -> re.Pattern[str]:
    """``*`` and ``?`` match slashes too, brackets only themselves. Raises DockerfileError."""
    result, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "\\":
            char = pattern[position : position + 1]
            position += 1
            if char not in ("*", "?", "\\", "}", "/"):
                raise DockerfileError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{char}'")
            result += re.escape(char)
        else:
            result += {"*": ".*", "?": "."}.get(char) or re.escape(char)
    return re.compile(result, re.DOTALL)
