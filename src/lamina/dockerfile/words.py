"""Variables and quotes in an instruction's words (Dockerfile reference, "Environment replacement"; BuildKit's shell lexer)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.ignore import wildcard_expression

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9@*#?!$-]")


def expand_word(word: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """One word with variables replaced and quotes removed. Raises DockerfileError."""
    return "".join(text for text, _ in _Lexer(word, env, escape).pieces())


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Several words: split at blanks that stand outside quotes, also at those that a variable brought."""
    words: list[str] = []
    current: str | None = None
    for piece, quoted in _Lexer(text, env, escape).pieces():
        if quoted:
            current = (current or "") + piece
            continue
        parts = re.split(r"[ \t\n]+", piece)
        for index, part in enumerate(parts):
            if index and current is not None:
                words.append(current)
                current = None
            if part:
                current = (current or "") + part
    return words if current is None else [*words, current]


class _Lexer:
    """Walks a text once; ``pieces`` are (text, whether it was quoted or escaped)."""

    def __init__(self, text: str, env: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._env = env
        self._escape = escape
        self._at = 0

    def pieces(self, until: str = "") -> list[tuple[str, bool]]:
        result: list[tuple[str, bool]] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in until:
                return result
            if char == "'":
                result.append((self._single_quoted(), True))
            elif char == '"':
                result.append((self._double_quoted(), True))
            elif char == "$":
                result.append((self._dollar(), False))
            elif char == self._escape:
                self._at += 1
                if self._at < len(self._text):
                    result.append((self._text[self._at], True))
                self._at += 1
            else:
                result.append((char, False))
                self._at += 1
        if until:
            raise DockerfileError("syntax error: missing '}'")
        return result

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
            if char == self._escape and self._text[self._at + 1 : self._at + 2] in ('"', "$", self._escape):
                self._at += 1
                char = self._text[self._at]
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
        word = "".join(text for text, _ in self.pieces(until="/}" if operator in ("/", "//") else "}"))
        if operator in ("/", "//"):
            return self._replaced(value or "", word, everywhere=operator == "//")
        self._at += 1
        return _modified(name, value, operator, word)

    def _operator(self) -> str:
        for operator in ("}", ":-", ":+", ":?", "-", "+", "?", "##", "#", "%%", "%", "//", "/"):
            if self._text.startswith(operator, self._at):
                self._at += len(operator)
                return operator
        rest = self._text[self._at : self._at + 2]
        raise DockerfileError(f"unsupported modifier ({rest}) in substitution" if rest else "syntax error: missing '}'")

    def _replaced(self, value: str, pattern: str, *, everywhere: bool) -> str:
        replacement = ""
        if self._text[self._at] == "/":
            self._at += 1
            replacement = "".join(text for text, _ in self.pieces(until="}"))
        self._at += 1
        expression = wildcard_expression(pattern, greedy=True)
        return re.sub(expression, lambda _: replacement, value, count=0 if everywhere else 1) if pattern else value


def _modified(name: str, value: str | None, operator: str, word: str) -> str:
    missing = not value if operator.startswith(":") else value is None
    kind = operator[-1]
    if kind == "-":
        return word if missing else value or ""
    if kind == "+":
        return "" if missing else word
    if kind == "?":
        if missing:
            raise DockerfileError(f"{name}: {word or 'not allowed to be unset'}")
        return value or ""
    return _trimmed(value or "", word, operator)


def _trimmed(value: str, pattern: str, operator: str) -> str:
    """``#`` and ``%`` take the shortest prefix or suffix that matches, doubled the longest."""
    expression = re.compile(wildcard_expression(pattern, greedy=True), re.DOTALL)
    lengths = range(len(value) + 1) if len(operator) == 1 else range(len(value), -1, -1)
    for length in lengths:
        part = value[:length] if operator[0] == "#" else value[len(value) - length :]
        if expression.fullmatch(part):
            return value[length:] if operator[0] == "#" else value[: len(value) - length]
    return value
