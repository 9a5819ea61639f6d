"""``commit``: an image of what a container has done."""

from __future__ import annotations

from lamina.cli.grammar import CommandFailed, Parser
from lamina.client.client import Client, Query
from lamina.oci.reference import DEFAULT_TAG, InvalidReference, Reference


def commit(client: Client, argv: list[str]) -> int:
    """``lamina commit``."""
    parser = Parser("commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", flags_first=True)
    parser.value("-a", "--author", help='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")')
    parser.values("-c", "--change", help="Apply Dockerfile instruction to the created image")
    parser.value("-m", "--message", help="Commit message")
    parser.flag("-p", "--pause", default=True, help="Pause container during commit (default true)")
    parser.add_argument("container")
    parser.add_argument("reference", nargs="?")
    options = parser.parse(argv)
    query = {
        "container": options.container,
        "comment": options.message,
        "author": options.author,
        "changes": options.change,
        "pause": None if options.pause else "0",
        **_name(options.reference),
    }
    print(client.request("POST", "/commit", query).json()["Id"])
    return 0


def _name(text: str) -> Query:
    """The repository and tag that the image gets, as the API takes them. Raises CommandFailed."""
    if not text:
        return {}
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        raise CommandFailed(error.message) from None
    if reference.digest is not None:
        raise CommandFailed("refusing to create a tag with a digest reference")
    return {"repo": f"{reference.domain}/{reference.path}", "tag": reference.tag or DEFAULT_TAG}


COMMANDS = {"commit": commit}
