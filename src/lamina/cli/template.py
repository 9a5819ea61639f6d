"""Go templates, as far as ``--format`` uses them (pkg.go.dev/text/template and docker's own functions)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lamina.errors import InvalidArgument

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|`[^`]*`|\(|\)|\||:=|[^\s()|]+)')


class TemplateError(InvalidArgument):
    """A template is malformed, or asks for what is not there."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"template parsing error: {detail}")


Node = Callable[["_Scope"], str]


class _Scope:
    """The dot, and the variables."""

    def __init__(self, dot: Any, root: Any, variables: dict[str, Any]) -> None:
        self.dot = dot
        self.root = root
        self.variables = variables

    def inside(self, dot: Any, **variables: Any) -> _Scope:
        return _Scope(dot, self.root, {**self.variables, **variables})


class Template:
    """A template that was read; ``render`` applies it to a value. Raises TemplateError."""

    def __init__(self, text: str) -> None:
        text = text.replace("\\t", "\t").replace("\\n", "\n")
        self._nodes = _parse(list(_pieces(text)), 0, ())[0]

    def render(self, value: Any) -> str:
        """The text for a value. Raises TemplateError."""
        scope = _Scope(value, value, {"$": value})
        return "".join(node(scope) for node in self._nodes)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text): literal text and actions, with blanks trimmed where ``{{-`` and ``-}}`` say so."""
    position = 0
    trim = False
    for match in _ACTION.finditer(text):
        literal = text[position : match.start()]
        literal = literal.lstrip() if trim else literal
        yield "text", literal.rstrip() if match.group(1) else literal
        yield "action", match.group(2).strip()
        trim = bool(match.group(3))
        position = match.end()
    rest = text[position:]
    if "{{" in rest:
        raise TemplateError("unclosed action")
    yield "text", rest.lstrip() if trim else rest


def _parse(pieces: list[tuple[str, str]], position: int, until: tuple[str, ...]) -> tuple[list[Node], int]:
    nodes: list[Node] = []
    while position < len(pieces):
        kind, text = pieces[position]
        word = text.split(None, 1)[0] if text.split() else ""
        if kind == "text":
            nodes.append(lambda scope, text=text: text)  # type: ignore[misc]
        elif word in until:
            return nodes, position
        elif word in ("if", "range", "with"):
            node, position = _block(word, text[len(word) :], pieces, position)
            nodes.append(node)
        elif word in ("end", "else"):
            raise TemplateError(f"unexpected {{{{{word}}}}}")
        elif not text.startswith("/*"):
            nodes.append(_print_node(text))
        position += 1
    if until:
        raise TemplateError("unexpected EOF")
    return nodes, position


def _block(word: str, expression: str, pieces: list[tuple[str, str]], position: int) -> tuple[Node, int]:
    body, position = _parse(pieces, position + 1, ("end", "else"))
    otherwise: list[Node] = []
    if pieces[position][1].startswith("else"):
        rest = pieces[position][1].removeprefix("else").strip()
        if rest.startswith("if"):
            node, position = _block("if", rest[2:], pieces, position)
            return _conditional(word, expression, body, [node]), position
        otherwise, position = _parse(pieces, position + 1, ("end",))
    return _conditional(word, expression, body, otherwise), position


def _conditional(word: str, expression: str, body: list[Node], otherwise: list[Node]) -> Node:
    names, value_of = _assignment(expression)

    def run(nodes: list[Node], scope: _Scope) -> str:
        return "".join(node(scope) for node in nodes)

    def render(scope: _Scope) -> str:
        value = value_of(scope)
        if word == "if":
            return run(body if _truth(value) else otherwise, scope)
        if word == "with":
            return run(body, scope.inside(value)) if _truth(value) else run(otherwise, scope)
        items = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value or ()))
        if not items:
            return run(otherwise, scope)
        return "".join(run(body, scope.inside(item, **_named(names, key, item))) for key, item in items)

    return render


def _named(names: list[str], key: Any, item: Any) -> dict[str, Any]:
    return dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))


def _assignment(expression: str) -> tuple[list[str], Callable[[_Scope], Any]]:
    left, mark, right = expression.partition(":=")
    if mark:
        return [name.strip() for name in left.split(",")], _pipeline(right)
    return [], _pipeline(expression)


def _print_node(text: str) -> Node:
    names, value_of = _assignment(text)

    def render(scope: _Scope) -> str:
        value = value_of(scope)
        if names:
            scope.variables[names[0]] = value
            return ""
        return _printed(value)

    return render


def _pipeline(text: str) -> Callable[[_Scope], Any]:
    tokens = _TOKEN.findall(text)
    if not tokens:
        raise TemplateError("missing value for command")
    value_of, position = _commands(tokens, 0)
    if position != len(tokens):
        raise TemplateError(f"unexpected {tokens[position]!r}")
    return value_of


def _commands(tokens: list[str], position: int) -> tuple[Callable[[_Scope], Any], int]:
    value_of: Callable[[_Scope], Any] | None = None
    while True:
        operands: list[Callable[[_Scope], Any]] = []
        function = None
        while position < len(tokens) and tokens[position] not in ("|", ")"):
            token = tokens[position]
            position += 1
            if token == "(":
                inner, position = _commands(tokens, position)
                if position >= len(tokens) or tokens[position] != ")":
                    raise TemplateError("unclosed left paren")
                position += 1
                operands.append(inner)
            elif not operands and function is None and token in _FUNCTIONS:
                function = token
            else:
                operands.append(_operand(token))
        value_of = _call(function, operands, value_of)
        if position < len(tokens) and tokens[position] == "|":
            position += 1
            continue
        return value_of, position


def _call(
    function: str | None, operands: list[Callable[[_Scope], Any]], piped: Callable[[_Scope], Any] | None
) -> Callable[[_Scope], Any]:
    every = [*operands, piped] if piped is not None else operands
    if function is None:
        if len(every) != 1:
            raise TemplateError("missing value for command" if not every else "can't give argument to non-function")
        return every[0]
    call = _FUNCTIONS[function]

    def run(scope: _Scope) -> Any:
        try:
            return call(*(operand(scope) for operand in every))
        except (TypeError, ValueError, LookupError) as error:
            raise TemplateError(f"error calling {function}: {error}") from None

    return run


def _operand(token: str) -> Callable[[_Scope], Any]:
    if token[0] in '"`':
        text = json.loads(token) if token[0] == '"' else token[1:-1]
        return lambda scope: text
    if token.lstrip("-").isdigit():
        return lambda scope: int(token)
    if token in ("true", "false", "nil"):
        constant = {"true": True, "false": False, "nil": None}[token]
        return lambda scope: constant
    if token.startswith("$"):
        name, *fields = token.split(".")
        return lambda scope: _walk(scope.variables.get(name), fields)
    if token.startswith("."):
        fields = [f for f in token.split(".") if f]
        return lambda scope: _walk(scope.dot, fields)
    raise TemplateError(f'function "{token}" not defined')


def _walk(value: Any, fields: list[str]) -> Any:
    for field in fields:
        if isinstance(value, Mapping):
            if field not in value and not hasattr(type(value), "__missing__"):
                raise TemplateError(f"map has no entry for key {field!r}")
            value = value[field]
        else:
            raise TemplateError(f"can't evaluate field {field} in {type(value).__name__}")
    return value


def _truth(value: Any) -> bool:
    return bool(value)


def _printed(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{k}:{_printed(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_printed(v) for v in value) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    """The verbs %s, %v, %d and %q."""
    left = iter(values)

    def fill(match: re.Match[str]) -> str:
        text = _printed(next(left, None))
        return f'"{text}"' if match.group() == "%q" else text

    return re.sub(r"%[vsqd]", fill, form)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda v: json.dumps(v, separators=(",", ":"), ensure_ascii=False),
    "upper": lambda v: str(v).upper(),
    "lower": lambda v: str(v).lower(),
    "title": lambda v: str(v).title(),
    "join": lambda v, s: s.join(map(_printed, v or ())),
    "split": lambda v, s: str(v).split(s),
    "truncate": lambda v, n: str(v)[:n],
    "pad": lambda v, a, b: " " * a + str(v) + " " * b,
    "len": lambda v: len(v or ()),
    "index": _index,
    "print": lambda *v: "".join(map(_printed, v)),
    "println": lambda *v: " ".join(map(_printed, v)) + "\n",
    "printf": _printf,
    "eq": lambda a, *b: any(a == x for x in b),
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "not": lambda a: not _truth(a),
    "and": lambda *v: next((x for x in v if not _truth(x)), v[-1]),
    "or": lambda *v: next((x for x in v if _truth(x)), v[-1]),
}
