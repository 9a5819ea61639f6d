"""A Dockerfile as its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.dockerfile.errors import DockerfileError, excerpt
from lamina.dockerfile.instructions import Arg, From, Instruction, parse_instruction
from lamina.dockerfile.lines import LogicalLine, logical_lines, read_source


@dataclass(frozen=True)
class Stage:
    """A FROM and the instructions up to the next one."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """What other stages may call this one; empty without AS."""
        return self.base.name


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile."""

    filename: str
    lines: tuple[str, ...]
    directives: Mapping[str, str]
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    @property
    def escape(self) -> str:
        """The escape character."""
        return self.directives.get("escape", "\\")

    def error(self, error: DockerfileError, instruction: Instruction) -> DockerfileError:
        """An error that came up with one of these instructions, with its place."""
        return error.located(instruction.first, instruction.last, self.filename, self.lines)

    def shown(self, instruction: Instruction) -> str:
        """The lines of an instruction with those around them."""
        return excerpt(self.lines, instruction.first, instruction.last, self.filename)


def parse(text: str | bytes, *, filename: str = "Dockerfile") -> Dockerfile:
    """Read a Dockerfile. Raises DockerfileError."""
    source = read_source(text, filename)
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in logical_lines(source):
        try:
            _take(line, source.escape, global_args, stages)
        except DockerfileError as error:
            raise error.located(line.first, line.last, filename, source.lines) from None
    if not stages:
        empty = not global_args and not any(logical_lines(source))
        raise DockerfileError(
            "the Dockerfile cannot be empty" if empty else "no build stage in current context", filename=filename
        )
    built = tuple(Stage(index, base, tuple(body)) for index, (base, body) in enumerate(stages))
    return Dockerfile(filename, source.lines, source.directives, tuple(global_args), built)


def parse_line(text: str) -> Instruction:
    """One instruction by itself, such as an ONBUILD trigger or a ``--change``. Raises DockerfileError."""
    lines = list(logical_lines(read_source(text.strip())))
    if len(lines) != 1:
        raise DockerfileError(f"one instruction expected, not {len(lines)}")
    return parse_instruction(lines[0])


def _take(line: LogicalLine, escape: str, global_args: list[Arg], stages: list[tuple[From, list[Instruction]]]) -> None:
    instruction = parse_instruction(line, escape)
    if isinstance(instruction, From):
        stages.append((instruction, []))
    elif stages:
        stages[-1][1].append(instruction)
    elif isinstance(instruction, Arg):
        global_args.append(instruction)
    else:
        raise DockerfileError("no build stage in current context")
