"""What was found, and how it is shown: as ``docker build --check`` does, and in short at the end of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.dockerfile.errors import excerpt
from lamina.dockerfile.lint.options import CheckOptions
from lamina.dockerfile.lint.rules import Rule
from lamina.dockerfile.parser import Dockerfile
from lamina.errors import InvalidArgument


@dataclass(frozen=True)
class LintWarning:
    """One case of a rule: *detail* says what of it, *first* to *last* are the lines, from 1 on, *excerpt* shows them."""

    rule: str
    description: str
    detail: str
    url: str
    first: int
    last: int
    excerpt: str

    @property
    def short(self) -> str:
        """All of it in one line."""
        return f"{self.rule}: {self.detail} (line {self.first})"


class LintViolation(InvalidArgument):
    """A build's Dockerfile breaks rules, and ``# check=error=true`` makes an error of that."""

    def __init__(self, warnings: Sequence[LintWarning]) -> None:
        self.rules = tuple(dict.fromkeys(warning.rule for warning in warnings))
        super().__init__(f"lint violation found for rules: {', '.join(self.rules)}")


class Findings:
    """Collects warnings of the rules that are in force."""

    def __init__(self, dockerfile: Dockerfile, options: CheckOptions) -> None:
        self._dockerfile = dockerfile
        self._options = options
        self._warnings: list[LintWarning] = []

    def add(self, rule: Rule, lines: tuple[int, int], *values: str) -> None:
        """A case of *rule* in the lines from the first to the last; *values* are what its message leaves open."""
        if not self._options.wants(rule):
            return
        shown = excerpt(self._dockerfile.lines, *lines, self._dockerfile.filename)
        detail = rule.message.format(*values)
        self._warnings.append(LintWarning(rule.name, rule.description, detail, rule.url, *lines, shown))

    def in_order(self) -> list[LintWarning]:
        """The warnings from the file's top to its end."""
        return sorted(self._warnings, key=lambda warning: warning.first)


def render_check(warnings: Sequence[LintWarning]) -> str:
    """What ``build --check`` prints."""
    if not warnings:
        return "Check complete, no warnings found."
    count = "1 warning has" if len(warnings) == 1 else f"{len(warnings)} warnings have"
    return "\n\n".join([f"Check complete, {count} been found!", *(_in_full(warning) for warning in warnings)])


def render_summary(warnings: Sequence[LintWarning], hint: str = "use --check to expand") -> str:
    """What a build says at its end; *hint* says where to find more. Empty without warnings."""
    if not warnings:
        return ""
    count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    return "\n".join([f" {count} found ({hint}):", *(f" - {warning.short}" for warning in warnings)])


def _in_full(warning: LintWarning) -> str:
    title = f"WARNING: {warning.rule}" + (f" - {warning.url}" if warning.url else "")
    return "\n".join([title, warning.detail, warning.excerpt])
