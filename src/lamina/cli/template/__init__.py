"""Go templates, as ``--format`` uses them (pkg.go.dev/text/template, and docker's own functions).

``lexer`` takes the text apart, ``parser`` makes a tree of it, ``execution`` applies the tree to a value with ``functions``, and
``printing`` writes values as Go's fmt does. ``shapes`` knows which objects of the API are Go's structs, which print otherwise than maps.
"""

from __future__ import annotations

from typing import Any

from lamina.cli.template.errors import ExecutionError, SyntaxFault, TemplateFault
from lamina.cli.template.execution import execute
from lamina.cli.template.functions import FUNCTIONS, HEADER_FUNCTIONS
from lamina.cli.template.parser import parse

__all__ = ["ExecutionError", "SyntaxFault", "Template", "TemplateFault"]


class Template:
    """A template that was read; ``render`` applies it to a value."""

    def __init__(self, text: str, name: str = "") -> None:
        """Read a template; *name* appears in messages. Raises SyntaxFault."""
        self._name = name
        self._text = text
        self._nodes, self._templates = parse(text, name)

    def render(self, value: Any, *, is_header: bool = False) -> str:
        """The text for a value: of mappings, sequences, text, numbers, and functions for methods. Raises ExecutionError.

        For a table's header, whose fields are the columns' names, functions that only change how a value looks leave it alone.
        """
        functions = FUNCTIONS | HEADER_FUNCTIONS if is_header else FUNCTIONS
        try:
            return execute(self._nodes, self._templates, functions, value)
        except ExecutionError as error:
            raise error.in_template(self._name, self._text) from None
