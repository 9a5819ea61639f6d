"""``port``: where a container's ports are published."""

from __future__ import annotations

import re
from typing import Any

from lamina.cli.grammar import CommandFailed, Parser
from lamina.cli.values import unsigned_16
from lamina.client.client import Client, quoted


def port(client: Client, argv: list[str]) -> int:
    """``lamina port``."""
    parser = Parser("port", "CONTAINER [PRIVATE_PORT[/PROTO]]")
    parser.add_argument("container")
    parser.add_argument("port", nargs="?")
    options = parser.parse(argv)
    record = client.request("GET", f"/containers/{quoted(options.container)}/json").json()
    published: dict[str, Any] = record["NetworkSettings"].get("Ports") or {}
    if options.port:
        places = published.get(_checked(options.port))
        if not places:
            raise CommandFailed(f"Error: No public port '{options.port}' published for {options.container}")
        lines = [_address(place) for place in places]
    else:
        lines = [f"{inner} -> {_address(place)}" for inner, places in published.items() for place in places or []]
    for line in sorted(lines, key=_natural):
        print(line)
    return 0


def _checked(text: str) -> str:
    """``80`` or ``80/udp`` as the API has it. Raises CommandFailed."""
    number, _, protocol = text.partition("/")
    try:
        unsigned_16(number)
    except ValueError as error:
        raise CommandFailed(f"Error: invalid port ({number}): {error}") from None
    return f"{number}/{protocol or 'tcp'}"


def _address(place: dict[str, str]) -> str:
    host = f"[{place['HostIp']}]" if ":" in place["HostIp"] else place["HostIp"]
    return f"{host}:{place['HostPort']}"


def _natural(line: str) -> list[tuple[bool, int, str]]:
    """A key by which numbers in a text come in the order of their values, before letters."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.findall(r"\d+|\D", line)]


COMMANDS = {"port": port}
