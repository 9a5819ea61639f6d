"""A template's tokens as a tree."""

from __future__ import annotations

import ast
from contextlib import suppress
from typing import Any, NamedTuple

from lamina.cli.template.errors import SyntaxFault
from lamina.cli.template.functions import FUNCTIONS
from lamina.cli.template.lexer import Token, tokens

_BLOCKS = ("if", "with", "range")
_CONSTANTS = {"true": True, "false": False}


class Operand(NamedTuple):
    """A value to be had: a constant, ``.``, a variable, a function, a pipeline in parentheses; and the fields that follow it."""

    kind: str  # constant, dot, variable, function, pipe, nil
    value: Any
    fields: tuple[str, ...]
    position: int
    source: str


class Command(NamedTuple):
    """Operands; the first may be a function or a method that takes the others."""

    operands: tuple[Operand, ...]
    source: str


class Pipe(NamedTuple):
    """Commands, each of which gets the result of the one before as its last argument; the result is given to *names*."""

    names: tuple[str, ...]
    declares: bool
    commands: tuple[Command, ...]


class Text(NamedTuple):
    """Literal text."""

    text: str


class Action(NamedTuple):
    """``{{pipeline}}``."""

    pipe: Pipe


class Block(NamedTuple):
    """``if``, ``with`` or ``range``, and its two branches."""

    word: str
    pipe: Pipe
    body: tuple[Any, ...]
    otherwise: tuple[Any, ...]


class Jump(NamedTuple):
    """``break`` or ``continue``."""

    word: str


class Inclusion(NamedTuple):
    """``{{template "name" pipeline}}``."""

    name: str
    pipe: Pipe | None
    position: int


Nodes = tuple[Any, ...]


def parse(text: str, name: str) -> tuple[Nodes, dict[str, Nodes]]:
    """The tree of a template, and those that it defines by name. Raises SyntaxFault."""
    parser = _Parser(text, name)
    nodes, _ = parser.nodes(())
    return nodes, parser.templates


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._tokens = list(tokens(text, name))
        self._at = 0
        self.templates: dict[str, Nodes] = {}

    def nodes(self, until: tuple[str, ...]) -> tuple[Nodes, str]:
        """Nodes up to one of the words *until*, which is taken; without any, to the template's end."""
        result: list[Any] = []
        while True:
            token = self._take()
            if token.kind == "end":
                if until:
                    raise self._fault("unexpected EOF")
                return tuple(result), ""
            if token.kind == "text":
                result.append(Text(token.text))
                continue
            word = self._peek_word()
            if word in ("end", "else"):
                if word not in until:
                    raise self._fault(f"unexpected {{{{{word}}}}}")
                self._take_word()
                return tuple(result), word
            result.append(self._action(word))

    def _action(self, word: str) -> Any:
        """What follows ``{{``, up to and with ``}}``."""
        if word in _BLOCKS:
            self._take_word()
            return self._block(word)
        if word in ("break", "continue"):
            self._take_word()
            self._close()
            return Jump(word)
        if word in ("define", "block", "template"):
            self._take_word()
            return self._named(word)
        pipe = self._pipe("command")
        self._close()
        return Action(pipe)

    def _block(self, word: str) -> Block:
        pipe = self._pipe(word)
        self._close()
        body, ended_by = self.nodes(("end", "else"))
        otherwise: Nodes = ()
        if ended_by == "else":
            if (again := self._peek_word()) in ("if", "with"):
                self._take_word()
                return Block(word, pipe, body, (self._block(again),))  # its end is ours
            self._close()
            otherwise, _ = self.nodes(("end",))
        self._close()
        return Block(word, pipe, body, otherwise)

    def _named(self, word: str) -> Any:
        self._skip_space()
        token = self._take()
        if token.kind != "string":
            raise self._fault(f"unexpected {token.text!r} in {word} clause")
        name = _unquoted(token.text)
        self._skip_space()
        pipe = self._pipe(word) if self._peek().kind != "close" else None
        self._close()
        if word != "template":
            self.templates[name], _ = self.nodes(("end",))
            self._close()
        return Text("") if word == "define" else Inclusion(name, pipe, token.position)

    def _pipe(self, context: str) -> Pipe:
        names, declares = self._declaration()
        commands = []
        while True:
            commands.append(self._command(context))
            self._skip_space()
            if self._peek().text != "|" or self._peek().kind != "mark":
                return Pipe(names, declares, tuple(commands))
            self._take()

    def _declaration(self) -> tuple[tuple[str, ...], bool]:
        """``$k, $v :=`` if it is there."""
        start, names = self._at, []
        while True:
            self._skip_space()
            if self._peek().kind != "variable":
                break
            names.append(self._take().text)
            self._skip_space()
            mark = self._take().text
            if mark in (":=", "="):
                return tuple(names), mark == ":="
            if mark != ",":
                break
        self._at = start
        return (), False

    def _command(self, context: str) -> Command:
        self._skip_space()
        start = self._peek().position
        operands: list[Operand] = []
        while True:
            self._skip_space()
            token = self._peek()
            if token.kind in ("close", "end") or (token.kind == "mark" and token.text in ("|", ")")):
                break
            operands.append(self._operand())
        if not operands:
            raise self._fault(f"missing value for {context}")
        return Command(tuple(operands), self._text[start : self._peek().position].strip())

    def _operand(self) -> Operand:
        token = self._take()
        kind, value = self._value(token)
        fields = [token.text[1:]] if token.kind == "field" else []
        position = token.position
        while self._peek().kind == "field":
            if len(fields) == 1:
                position = self._peek().position
            fields.append(self._take().text[1:])
        source = self._text[token.position : self._peek().position]
        return Operand(kind, value, tuple(fields), position, source)

    def _value(self, token: Token) -> tuple[str, Any]:
        if token.kind == "field":
            return "dot", None
        if token.kind == "mark":
            if token.text == ".":
                return "dot", None
            if token.text == "(":
                pipe = self._pipe("parenthesized pipeline")
                self._skip_space()
                if self._take().text != ")":
                    raise self._fault("unclosed left paren")
                return "pipe", pipe
        if token.kind in ("string", "char"):
            text = _unquoted(token.text)
            return "constant", text if token.kind == "string" else ord(text)
        if token.kind == "number":
            return "constant", self._number(token.text)
        if token.kind == "variable":
            return "variable", token.text
        if token.kind == "word":
            return self._word(token.text)
        raise self._fault(f"unexpected {token.text!r} in operand")

    def _word(self, word: str) -> tuple[str, Any]:
        if word in _CONSTANTS:
            return "constant", _CONSTANTS[word]
        if word == "nil":
            return "nil", None
        if word not in FUNCTIONS:
            raise self._fault(f'function "{word}" not defined')
        return "function", word

    def _number(self, text: str) -> int | float:
        with suppress(ValueError):
            return int(text, 0)
        with suppress(ValueError):
            return float(text)
        raise self._fault(f'bad number syntax: "{text}"')

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _skip_space(self) -> None:
        while self._peek().kind == "space":
            self._at += 1

    def _peek_word(self) -> str:
        self._skip_space()
        return self._peek().text if self._peek().kind == "word" else ""

    def _take_word(self) -> None:
        self._skip_space()
        self._take()

    def _close(self) -> None:
        self._skip_space()
        token = self._take()
        if token.kind != "close":
            raise self._fault(f"unexpected {token.text!r} in command")

    def _fault(self, detail: str) -> SyntaxFault:
        line = self._text.count("\n", 0, self._peek().position) + 1
        return SyntaxFault(self._name, line, detail)


def _unquoted(text: str) -> str:
    """The value of a Go string or character; its escapes are Python's."""
    return text[1:-1] if text[0] == "`" else str(ast.literal_eval(text))
