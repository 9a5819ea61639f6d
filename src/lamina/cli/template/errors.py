"""What is wrong with a template, worded as Go words it."""

from __future__ import annotations

_SHOWN = 20


class TemplateFault(Exception):
    """A template is malformed, or asks for what is not there; the text begins with ``template: ``."""


class SyntaxFault(TemplateFault):
    """The template is malformed."""

    def __init__(self, name: str, line: int, detail: str) -> None:
        super().__init__(f"template: {name}:{line}: {detail}")


class ExecutionError(TemplateFault):
    """The template asks for what is not there. *position* and *source* are those of the part that asks."""

    def __init__(self, detail: str, position: int, source: str) -> None:
        super().__init__(detail)
        self._detail, self._position, self._source = detail, position, source

    def in_template(self, name: str, text: str) -> ExecutionError:
        """The same error, with the place in the whole template."""
        before = text[: self._position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)
        shown = self._source if len(self._source) <= _SHOWN else self._source[:_SHOWN] + "..."
        told = f'template: {name}:{line}:{column}: executing "{name}" at <{shown}>: {self._detail}'
        return ExecutionError(told, self._position, self._source)
