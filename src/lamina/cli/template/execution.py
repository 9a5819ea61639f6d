"""A template's tree applied to a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from lamina.cli.template.errors import ExecutionError
from lamina.cli.template.functions import Functions, is_true
from lamina.cli.template.parser import Action, Block, Command, Inclusion, Jump, Nodes, Operand, Pipe, Text
from lamina.cli.template.printing import printed
from lamina.cli.template.shapes import Nil, Struct


def execute(nodes: Nodes, templates: Mapping[str, Nodes], functions: Functions, value: Any) -> str:
    """The text of a tree for a value. Raises ExecutionError without the template's name."""
    execution = _Execution(templates)
    execution.run(nodes, _Scope(value, None, {"$": value}, functions))
    return "".join(execution.out)


class _Jumped(Exception):
    """``break`` or ``continue``."""


class _Scope:
    """The dot, the functions, and the variables that were declared since the block began; the others are the outer scope's."""

    def __init__(self, dot: Any, outer: _Scope | None, variables: dict[str, Any], functions: Functions) -> None:
        self.dot = dot
        self.functions = functions
        self._outer = outer
        self._variables = variables

    def inner(self, dot: Any, variables: dict[str, Any] | None = None) -> _Scope:
        return _Scope(dot, self, variables or {}, self.functions)

    def holder(self, name: str) -> dict[str, Any] | None:
        """The variables among which *name* is."""
        if name in self._variables:
            return self._variables
        return self._outer.holder(name) if self._outer is not None else None

    def declare(self, name: str, value: Any) -> None:
        self._variables[name] = value


class _Execution:
    def __init__(self, templates: Mapping[str, Nodes]) -> None:
        self._templates = templates
        self.out: list[str] = []

    def run(self, nodes: Nodes, scope: _Scope) -> None:
        for node in nodes:
            match node:
                case Text(text):
                    self.out.append(text)
                case Action(pipe):
                    value = _piped(pipe, scope)
                    if pipe.names:
                        _assign(pipe, scope, value)
                    else:
                        self.out.append(printed(value))
                case Block():
                    self._block(node, scope)
                case Jump(word):
                    raise _Jumped(word)
                case Inclusion():
                    self._include(node, scope)

    def _block(self, block: Block, scope: _Scope) -> None:
        value = _piped(block.pipe, scope)
        if block.word == "range":
            self._range(block, value, scope)
            return
        inner = scope.inner(value if block.word == "with" and is_true(value) else scope.dot)
        if block.pipe.names:
            _assign(block.pipe, inner, value)
        self.run(block.body if is_true(value) else block.otherwise, inner)

    def _range(self, block: Block, value: Any, scope: _Scope) -> None:
        items = list(_items(block.pipe, value))
        for key, item in items:
            names = block.pipe.names
            given = (key, item) if len(names) == 2 else (item,)
            try:
                self.run(block.body, scope.inner(item, dict(zip(names, given, strict=False))))
            except _Jumped as jump:
                if jump.args[0] == "break":
                    break
        if not items:
            self.run(block.otherwise, scope.inner(scope.dot))

    def _include(self, node: Inclusion, scope: _Scope) -> None:
        if node.name not in self._templates:
            raise ExecutionError(f'template "{node.name}" not defined', node.position, node.name)
        dot = _piped(node.pipe, scope) if node.pipe is not None else None
        self.run(self._templates[node.name], _Scope(dot, None, {"$": dot}, scope.functions))


def _items(pipe: Pipe, value: Any) -> Iterable[tuple[Any, Any]]:
    if value is None or isinstance(value, Nil):
        return ()
    if isinstance(value, Struct):
        raise _failure(pipe.commands[-1], f"range can't iterate over {printed(value)}")
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return ((i, i) for i in range(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return enumerate(value)
    raise _failure(pipe.commands[-1], f"range can't iterate over {printed(value)}")


def _assign(pipe: Pipe, scope: _Scope, value: Any) -> None:
    name = pipe.names[-1]
    if pipe.declares:
        scope.declare(name, value)
        return
    holder = scope.holder(name)
    if holder is None:
        raise _failure(pipe.commands[0], f'undefined variable "{name}"')
    holder[name] = value


def _piped(pipe: Pipe, scope: _Scope) -> Any:
    value = _command(pipe.commands[0], scope, ())
    for command in pipe.commands[1:]:
        value = _command(command, scope, (value,))
    return value


def _command(command: Command, scope: _Scope, last: tuple[Any, ...]) -> Any:
    first, *others = command.operands
    if first.kind == "function":
        return _call(first.value, command, others, scope, last)
    if first.kind == "nil":
        raise _failure(command, "nil is not a command")
    value = _value(first, scope)
    if callable(value):
        return _called(str(first.fields[-1]), value, command, [*(_value(o, scope) for o in others), *last])
    if others or last:
        raise _failure(command, f"can't give argument to non-function {first.source}")
    return value


def _call(name: str, command: Command, operands: Sequence[Operand], scope: _Scope, last: tuple[Any, ...]) -> Any:
    if name in ("and", "or") and (operands or last):
        value: Any = None
        for value in chain((_value(operand, scope) for operand in operands), last):
            if is_true(value) == (name == "or"):
                break
        return value
    return _called(name, scope.functions[name], command, [*(_value(o, scope) for o in operands), *last])


def _called(name: str, function: Any, command: Command, values: list[Any]) -> Any:
    try:
        return function(*values)
    except ValueError as error:
        raise _failure(command, f"error calling {name}: {error}") from None
    except (TypeError, AttributeError):
        raise _failure(command, f"wrong type or number of args for {name}: got {len(values)}") from None


def _failure(command: Command, detail: str) -> ExecutionError:
    return ExecutionError(detail, command.operands[0].position, command.source)


def _value(operand: Operand, scope: _Scope) -> Any:
    match operand.kind:
        case "constant" | "nil":
            value = operand.value
        case "dot":
            value = scope.dot
        case "variable":
            holder = scope.holder(operand.value)
            if holder is None:
                raise ExecutionError(f'undefined variable "{operand.value}"', operand.position, operand.source)
            value = holder[operand.value]
        case "pipe":
            value = _piped(operand.value, scope)
        case _:
            value = scope.functions[operand.value]()
    for field in operand.fields:
        value = _field(value, field, operand)
    return value


def _field(value: Any, name: str, operand: Operand) -> Any:
    """A field of a struct, which must have it, or an entry of a map, which need not."""
    if isinstance(value, Struct):
        try:
            return value.member(name)
        except KeyError:
            raise ExecutionError(value.lacks(name), operand.position, operand.source) from None
    if isinstance(value, Mapping):
        return value.get(name)
    kind = "nil pointer evaluating interface {}" if value is None or isinstance(value, Nil) else None
    detail = f"{kind}.{name}" if kind else f"can't evaluate field {name} in type interface {{}}"
    raise ExecutionError(detail, operand.position, operand.source)
