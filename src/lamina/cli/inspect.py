"""``inspect``: everything that the daemon knows of a thing, whatever kind it is."""

from __future__ import annotations

import json
import sys
from typing import Any

from lamina.cli.grammar import Parser, UsageError
from lamina.client.client import Client, quoted
from lamina.errors import NotFound

_PATHS = {
    "container": "/containers/{name}/json",
    "image": "/images/{name}/json",
    "volume": "/volumes/{name}",
    "network": "/networks/{name}",
}


def inspect(client: Client, argv: list[str]) -> int:
    """``lamina inspect``."""
    parser = Parser("inspect", "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on lamina objects")
    parser.value("-f", "--format")
    parser.value("--type")
    parser.flag("-s", "--size")
    parser.add_argument("names", nargs="+")
    options = parser.parse(argv)
    if options.type and options.type not in _PATHS:
        raise UsageError(f'unknown type: "{options.type}"')
    kinds = [options.type] if options.type else list(_PATHS)
    found, code = [], 0
    for name in options.names:
        item = _find(client, name, kinds, size=options.size)
        if item is None:
            print(f"Error: No such {options.type or 'object'}: {name}", file=sys.stderr)
            code = 1
        else:
            found.append(item)
    if options.format and options.format != "json":
        from lamina.cli.template import Template

        template = Template(options.format)
        for item in found:
            print(template.render(item))
    else:
        print(json.dumps(found, indent=None if options.format else 4, ensure_ascii=False))
    return code


def _find(client: Client, name: str, kinds: list[str], *, size: bool) -> Any:
    for kind in kinds:
        try:
            query = {"size": size} if kind == "container" else None
            return client.request("GET", _PATHS[kind].format(name=quoted(name)), query).json()
        except NotFound:
            continue
    return None


COMMANDS = {"inspect": inspect}
