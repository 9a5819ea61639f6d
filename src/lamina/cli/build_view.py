"""How a build looks while it runs: the classic lines, a live view of the steps on a terminal, or the events as they come."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from lamina.cli.grammar import UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_TAIL_LINES = 6
_KEPT_LINES = 200


class PlainView:
    """The classic texts as the daemon words them."""

    takes_events = False

    def __init__(self, *, quiet: bool, out: TextIO) -> None:
        self._quiet = quiet
        self._out = out
        self.image_id = ""
        self.digest = ""
        """Of the manifest in the registry that the image was pushed to."""

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, fields: dict[str, Any]) -> None:
        """Take one object of the daemon's answer."""
        aux = fields.get("aux") or {}
        self.image_id = str(aux.get("ID") or self.image_id)
        self.digest = str(aux.get("Digest") or self.digest)
        text = fields.get("stream", "")
        if self._quiet:
            self.image_id = text.strip() or self.image_id
            return
        self._out.write(text)
        self._out.flush()

    def fail(self, message: str) -> None:
        """Tell why the build failed."""
        print(message, file=sys.stderr)


class JsonView(PlainView):
    """The events as JSON lines."""

    takes_events = True

    def show(self, fields: dict[str, Any]) -> None:
        """See PlainView."""
        if fields["event"] == "Built":
            self.image_id = fields["images"][-1]
        elif fields["event"] == "Pushed":
            self.digest = fields["digest"]
        print(json.dumps(fields), file=self._out, flush=True)


class LiveView(PlainView):
    """The steps that run, with their times and last words, below those that are done."""

    takes_events = True

    def __init__(self) -> None:
        super().__init__(quiet=False, out=sys.stderr)
        from rich.console import Console
        from rich.live import Live

        self._running: dict[int, _Running] = {}
        self._begun = time.monotonic()
        self._failed: _Running | None = None
        self._console: Console = Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console, get_renderable=self._running_steps, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, fields: dict[str, Any]) -> None:
        """See PlainView."""
        kind, step = fields["event"], fields.get("step") or {}
        if kind == "StepBegan":
            self._running[step["number"]] = _Running(step)
        elif kind == "CommandOutput":
            self._running[step["number"]].take(fields["text"])
        elif kind == "StepEnded":
            running = self._running.pop(step["number"])
            mark = "[cyan]CACHED[/cyan]" if fields["cached"] else "[green]DONE[/green]  "
            self._say(f"{mark} {running.title} [dim]{running.seconds:.1f}s[/dim]")
            if fields["reason"] and not fields["cached"]:
                self._say(f"       [dim]{_escaped(fields['reason'])}[/dim]")
        else:
            self._show_aside(kind, fields)
        if kind in ("StepBegan", "CommandOutput"):
            # what failed is what spoke last
            self._failed = self._running.get(step["number"])

    def _show_aside(self, kind: str, fields: dict[str, Any]) -> None:
        """What is of no step."""
        if kind == "Pushed":
            self.digest = fields["digest"]
            self._say(f"pushed {_escaped(fields['name'])} {self.digest}")
        elif kind == "Noted":
            self._say(_escaped(fields["text"].rstrip()))
        elif kind == "Warned":
            self._say(f"[yellow]{_escaped(fields['text'].rstrip())}[/yellow]")
        elif kind == "Built":
            self.image_id = fields["images"][-1]
            self._say(f"built {self.image_id} in {time.monotonic() - self._begun:.1f}s")
            for name in fields["names"]:
                self._say(f"named {_escaped(name)}")

    def fail(self, message: str) -> None:
        """See PlainView."""
        failed = self._failed
        if failed is not None:
            self._say(f"[red]FAILED[/red] {failed.title} [dim]{failed.seconds:.1f}s[/dim]")
            for line in failed.lines[-20:]:
                self._say(f"    {_escaped(line)}")
        self._say(f"[red]{_escaped(message)}[/red]")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _running_steps(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        rows = []
        for running in self._running.values():
            rows.append(Text.from_markup(f"[bold]RUNS[/bold]   {running.title} [dim]{running.seconds:.1f}s[/dim]"))
            rows += [Text(f"    {line}", style="dim", no_wrap=True) for line in running.lines[-_TAIL_LINES:]]
        return Group(*rows)


class _Running:
    """A step under way and its last lines."""

    def __init__(self, step: dict[str, Any]) -> None:
        stage = f"{step['stage_name']} " if step["stage_name"] else ""
        self.title = f"{_escaped(stage)}{step['number']}/{step['total']} {_escaped(step['source'].splitlines()[0])}"
        self.lines: list[str] = []
        self._begun = time.monotonic()
        self._rest = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        self.lines = [*self.lines, *(line.rpartition("\r")[2] for line in lines)][-_KEPT_LINES:]


def build_view(progress: str, *, quiet: bool, out: TextIO) -> PlainView:
    """The view that ``--progress`` asks for; *out* is where lines go. Raises UsageError."""
    if progress not in ("auto", "tty", "plain", "rawjson"):
        raise UsageError(f'invalid argument "{progress}" for "--progress" flag: it must be auto, tty, plain or rawjson')
    if quiet or progress == "plain":
        return PlainView(quiet=quiet, out=out)
    if progress == "rawjson":
        return JsonView(quiet=False, out=out)
    return (
        LiveView() if progress == "tty" or (out.isatty() and sys.stderr.isatty()) else PlainView(quiet=False, out=out)
    )


def _escaped(text: str) -> str:
    """A text whose brackets are no markup."""
    return text.replace("[", "\\[")
