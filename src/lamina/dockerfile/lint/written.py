"""Rules that the text alone decides: case, names of stages, comments, empty lines."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.dockerfile.instructions import Arg, From, Instruction, Maintainer
from lamina.dockerfile.lint import rules
from lamina.dockerfile.lint.report import Findings
from lamina.dockerfile.parser import Dockerfile

_RESERVED_NAMES = ("context", "scratch")


def check_text(dockerfile: Dockerfile, findings: Findings) -> None:
    """Report what is written as it should not be, in all stages."""
    in_stages = [i for stage in dockerfile.stages for i in (stage.base, *stage.instructions)]
    for instruction in (*dockerfile.global_args, *in_stages):
        if instruction.gap:
            findings.add(rules.NO_EMPTY_CONTINUATION, (instruction.gap, instruction.gap))
        if isinstance(instruction, From):
            _check_casing_of_from(instruction, findings)
        if isinstance(instruction, Maintainer):
            findings.add(rules.MAINTAINER_DEPRECATED, instruction.lines)
        _check_description(instruction, findings)
    _check_stage_names([stage.base for stage in dockerfile.stages], findings)
    _check_casing(in_stages, findings)


def _check_casing_of_from(base: From, findings: Findings) -> None:
    keyword, name = base.written_as
    if name != name.lower():
        findings.add(rules.STAGE_NAME_CASING, base.lines, name)
    # a FROM of mixed case is another rule's business
    is_lower, is_upper = base.keyword.islower(), base.keyword.isupper()
    if (is_lower and keyword != keyword.lower()) or (is_upper and keyword != keyword.upper()):
        findings.add(rules.FROM_AS_CASING, base.lines, keyword, base.keyword)


def _check_description(instruction: Instruction, findings: Findings) -> None:
    """The comment right above a stage or an argument describes it, as outlines of a Dockerfile show it."""
    names: list[str] = []
    if isinstance(instruction, From) and instruction.name:
        names = [instruction.name]
    elif isinstance(instruction, Arg):
        names = [name for name, _ in instruction.pairs]
    if names and instruction.comments and instruction.comments[-1].split(" ")[0] not in names:
        example = names[0] if len(names) == 1 else "<arg_key>"
        kind = "FROM" if isinstance(instruction, From) else "ARG"
        findings.add(rules.INVALID_DEFINITION_DESCRIPTION, instruction.lines, kind, example)


def _check_stage_names(bases: Sequence[From], findings: Findings) -> None:
    seen: set[str] = set()
    for base in bases:
        if base.name in _RESERVED_NAMES:
            findings.add(rules.RESERVED_STAGE_NAME, base.lines, base.name)
        if base.name in seen:
            findings.add(rules.DUPLICATE_STAGE_NAME, base.lines, base.name)
        seen |= {base.name} - {""}


def _check_casing(instructions: Sequence[Instruction], findings: Findings) -> None:
    keywords = [instruction.keyword for instruction in instructions]
    is_lower = sum(word.islower() for word in keywords) > sum(word.isupper() for word in keywords)
    for instruction, word in zip(instructions, keywords, strict=True):
        if word != (word.lower() if is_lower else word.upper()):
            majority = "lowercase" if is_lower else "uppercase"
            findings.add(rules.CONSISTENT_INSTRUCTION_CASING, instruction.lines, word, majority)
