"""``inspect``: everything that the daemon knows of a thing, whatever kind it is."""

from __future__ import annotations

import json
import sys
from typing import Any

from lamina.cli.grammar import CommandFailed, Options, Parser, UsageError
from lamina.client.client import Client, quoted, told
from lamina.errors import LaminaError, NotFound

_PATHS = {
    "container": "/containers/{name}/json",
    "image": "/images/{name}/json",
    "network": "/networks/{name}",
    "volume": "/volumes/{name}",
}
_SYNTAX_FAULT = 64


def inspect(client: Client, argv: list[str]) -> int:
    """``lamina inspect``."""
    parser = _parser("inspect", "[OPTIONS] NAME|ID [NAME|ID...]")
    parser.flag("-s", "--size", help="Display total file sizes if the type is container")
    parser.value("--type", help="Only inspect objects of the given type")
    options = parser.parse(argv)
    if options.type is not None and options.type not in _PATHS:
        kinds = ", ".join(f'"{kind}"' for kind in _PATHS)
        raise UsageError(f'unknown type: "{options.type}": must be one of {kinds}')
    return _inspect(client, options, options.type)


def container_inspect(client: Client, argv: list[str]) -> int:
    """``lamina container inspect``."""
    parser = _parser("container inspect", "[OPTIONS] CONTAINER [CONTAINER...]")
    parser.flag("-s", "--size", help="Display total file sizes")
    return _inspect(client, parser.parse(argv), "container")


def image_inspect(client: Client, argv: list[str]) -> int:
    """``lamina image inspect``."""
    return _inspect(client, _parser("image inspect", "[OPTIONS] IMAGE [IMAGE...]").parse(argv), "image")


def network_inspect(client: Client, argv: list[str]) -> int:
    """``lamina network inspect``."""
    return _inspect(client, _parser("network inspect", "[OPTIONS] NETWORK [NETWORK...]").parse(argv), "network")


def volume_inspect(client: Client, argv: list[str]) -> int:
    """``lamina volume inspect``."""
    return _inspect(client, _parser("volume inspect", "[OPTIONS] VOLUME [VOLUME...]").parse(argv), "volume")


def _parser(command: str, usage: str) -> Parser:
    parser = Parser(command, usage)
    parser.value("-f", "--format", help="json, or a Go template")
    parser.add_argument("names", nargs="+")
    return parser


def _inspect(client: Client, options: Options, kind: str | None) -> int:
    form = _Form(options.format)
    size = getattr(options, "size", False)
    failures: list[str] = []
    for name in options.names:
        try:
            form.add(_found(client, name, [kind] if kind else list(_PATHS), size=size))
        except NotFound as error:
            failures.append(told(error) if kind else f"Error: No such object: {name}")
        except LaminaError as error:
            failures.append(told(error))
    form.finish()
    sys.stdout.flush()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _found(client: Client, name: str, kinds: list[str], *, size: bool) -> Any:
    """What has that name, of the first kind that has one. Raises NotFound."""
    for kind in kinds:
        try:
            query = {"size": size} if kind == "container" else None
            return client.request("GET", _PATHS[kind].format(name=quoted(name)), query).json()
        except NotFound:
            if kind == kinds[-1]:
                raise
    raise AssertionError("kinds is never empty")


class _Form:
    """How what was found is printed: one list of JSON, or each by a template."""

    def __init__(self, form: str | None) -> None:
        self._found: list[Any] = []
        self._is_compact = form == "json"
        self._template = None
        if form and form != "json":
            from lamina.cli.template import SyntaxFault, Template

            try:
                self._template = Template(form)
            except SyntaxFault as fault:
                raise CommandFailed(f"template parsing error: {fault}", _SYNTAX_FAULT) from None

    def add(self, item: Any) -> None:
        """One thing that was found. Raises CommandFailed if the template asks for what it has not."""
        if self._template is None:
            self._found.append(item)
            return
        from lamina.cli.template import ExecutionError
        from lamina.cli.template.shapes import shaped

        try:
            print(self._template.render(shaped(item)))
        except ExecutionError as error:
            print()
            raise CommandFailed(f"template parsing error: {error}") from None

    def finish(self) -> None:
        """There is no more."""
        if self._template is not None:
            return
        if self._is_compact:
            print(json.dumps(self._found, separators=(",", ":"), ensure_ascii=False))
        else:
            print(json.dumps(self._found, indent=4, ensure_ascii=False))


COMMANDS = {
    "inspect": inspect,
    "container inspect": container_inspect,
    "image inspect": image_inspect,
    "network inspect": network_inspect,
    "volume inspect": volume_inspect,
}
