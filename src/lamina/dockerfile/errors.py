"""What is wrong with a Dockerfile, and where."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import InvalidArgument


class DockerfileError(InvalidArgument):
    """A Dockerfile cannot be read: the file, the lines and what is wrong with them, with the lines shown."""

    def __init__(
        self, detail: str, *, line: int = 0, end_line: int = 0, filename: str = "Dockerfile", source: Sequence[str] = ()
    ) -> None:
        self.detail = detail
        self.line = line
        self.end_line = max(line, end_line)
        self.filename = filename
        where = f" line {line}" if line else ""
        shown = excerpt(source, line, self.end_line, filename)
        super().__init__(f"dockerfile parse error{where}: {detail}" + (f"\n{shown}" if shown else ""))

    def located(self, line: int, end_line: int, filename: str, source: Sequence[str]) -> DockerfileError:
        """The same error with its place, if it has none yet."""
        if self.line:
            return self
        return DockerfileError(self.detail, line=line, end_line=end_line, filename=filename, source=source)


def excerpt(source: Sequence[str], line: int, end_line: int, filename: str) -> str:
    """Some lines with those around them, the meant ones marked, as BuildKit shows them; empty without lines."""
    if not source or not line:
        return ""
    context = 2 if line == end_line else 1
    rows = [f"{filename}:{line}", "-" * 20]
    for number in range(max(1, line - context), min(len(source), end_line + context) + 1):
        mark = ">>>" if line <= number <= end_line else "   "
        rows.append(f"{number:4} | {mark} {source[number - 1]}".rstrip())
    return "\n".join([*rows, "-" * 20])
