"""``top``: the processes of a container, as ps(1) of the daemon's machine lists them."""

from __future__ import annotations

from lamina.cli.grammar import REMAINDER, Parser
from lamina.cli.output import print_table
from lamina.client.client import Client, quoted

_COLUMN = 20


def top(client: Client, argv: list[str]) -> int:
    """``lamina top``."""
    parser = Parser("top", "CONTAINER [ps OPTIONS]")
    parser.add_argument("container")
    parser.add_argument("words", nargs=REMAINDER)
    options = parser.parse(argv)
    query = {"ps_args": " ".join(options.words)}
    found = client.request("GET", f"/containers/{quoted(options.container)}/top", query).json()
    print_table([found["Titles"], *found["Processes"]], least=_COLUMN)
    return 0


COMMANDS = {"top": top}
