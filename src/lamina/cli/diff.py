"""``diff``: which files a container has added, changed and deleted."""

from __future__ import annotations

from lamina.cli.grammar import CommandFailed, Parser
from lamina.client.client import Client, quoted

_KINDS = ("C", "A", "D")  # as the API numbers them


def diff(client: Client, argv: list[str]) -> int:
    """``lamina diff``."""
    parser = Parser("diff", "CONTAINER")
    parser.add_argument("container")
    name = parser.parse(argv).container
    if not name:
        raise CommandFailed("Container name cannot be empty")
    for change in client.request("GET", f"/containers/{quoted(name)}/changes").json() or []:
        print(_KINDS[change["Kind"]], change["Path"])
    return 0


COMMANDS = {"diff": diff}
