"""``pull``, ``push``, ``login``, ``logout`` and ``search``."""

from __future__ import annotations

import sys
from typing import Any

from lamina.cli.grammar import HIDDEN, CommandFailed, Parser, name_and_value, whole
from lamina.cli.output import Listing, print_rows, shortened, stderr
from lamina.cli.transfers import pull_image, show_transfer, with_default_tag
from lamina.client.client import Client, filters_json, quoted
from lamina.client.credentials import auth_headers, forget, keep, key_of, known_of
from lamina.errors import LaminaError
from lamina.oci.reference import InvalidReference, Reference

_DESCRIPTION_LENGTH = 45
_FOUND = Listing(
    {
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "StarCount": "STARS",
        "IsOfficial": "OFFICIAL",
        "IsAutomated": "AUTOMATED",
    },
    kind="*search.searchContext",
)


def pull(client: Client, argv: list[str]) -> int:
    """``lamina pull``."""
    parser = Parser("pull", "[OPTIONS] NAME[:TAG|@DIGEST]")
    parser.flag("-a", "--all-tags", help="Download all tagged images in the repository")
    parser.flag("--disable-content-trust", default=True, help=HIDDEN)
    parser.value("--platform", help="Set platform if server is multi-platform capable")
    parser.flag("-q", "--quiet", help="Suppress verbose output")
    parser.add_argument("name")
    options = parser.parse(argv)
    if options.all_tags:
        reference = _reference(options.name)
        if reference.tag or reference.digest:
            raise CommandFailed("tag can't be used with --all-tags/-a")
        name = reference.familiar
    else:
        name = with_default_tag(options.name, quiet=options.quiet)
    pull_image(client, name, platform=options.platform, quiet=options.quiet, to=sys.stdout)
    print(_reference(name))
    return 0


def push(client: Client, argv: list[str]) -> int:
    """``lamina push``."""
    parser = Parser("push", "[OPTIONS] NAME[:TAG]")
    parser.flag("-a", "--all-tags", help="Push all tags of an image to the repository")
    parser.value(
        "--compression", help='Compress layers anew: "gzip", "zstd" or "none" (default: as they came, else gzip)'
    )
    parser.value("--compression-level", convert=whole, metavar="int", help="How much to compress (gzip 1-9, zstd 1-22)")
    parser.flag("--disable-content-trust", default=True, help=HIDDEN)
    parser.value("--platform", help=HIDDEN)
    parser.flag("-q", "--quiet", help="Suppress verbose output")
    parser.add_argument("name")
    options = parser.parse(argv)
    reference = _reference(options.name)
    if options.all_tags and reference.tag:
        raise CommandFailed("tag can't be used with --all-tags/-a")
    if not options.all_tags:
        reference = _reference(with_default_tag(options.name, quiet=options.quiet))
    query = {
        "tag": reference.tag,
        "compression": options.compression,
        "level": options.compression_level,
    }
    path = f"/images/{quoted(reference.familiar_repository)}/push"
    response = client.request("POST", path, query, headers=auth_headers(reference.domain))
    show_transfer(response.lines(), sys.stdout, quiet=options.quiet)
    if options.quiet:
        print(reference)
    return 0


def login(client: Client, argv: list[str]) -> int:
    """``lamina login``."""
    parser = Parser("login", "[OPTIONS] [SERVER]")
    parser.value("-p", "--password", help="Password or Personal Access Token (PAT)")
    parser.flag("--password-stdin", help="Take the Password or Personal Access Token (PAT) from stdin")
    parser.value("-u", "--username", help="Username")
    parser.add_argument("server", nargs="?")
    options = parser.parse(argv)
    username, password = _asked(options.username, options.password, options.password_stdin, options.server)
    server = key_of(options.server)
    body = {"username": username, "password": password, "serveraddress": server}
    answer = client.request("POST", "/auth", body=body).json()
    path = keep(server, username, password, str(answer.get("IdentityToken") or ""))
    if path is not None:
        stderr(
            f"\nWARNING! Your credentials are stored unencrypted in '{path}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    print(answer.get("Status") or "Login Succeeded")
    return 0


def _asked(username: str | None, password: str | None, from_stdin: bool, server: str) -> tuple[str, str]:
    """Name and password, from the options, standard input, or whoever sits there. Raises CommandFailed."""
    if password is not None:
        stderr("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if from_stdin:
            raise CommandFailed("conflicting options: cannot specify both --password and --password-stdin")
    if from_stdin:
        if not username:
            raise CommandFailed("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    if username and password:
        return username, password
    if from_stdin or not sys.stdin.isatty():
        raise CommandFailed("Error: Cannot perform an interactive login from a non TTY device")
    from getpass import getpass

    known = known_of(server).get("username", "")
    while not username:
        username = input(f"Username ({known}): " if known else "Username: ").strip() or known
    password = password or getpass("Password: ")
    if not password:
        raise CommandFailed("Error: Password Required")
    return username, password


def logout(client: Client, argv: list[str]) -> int:
    """``lamina logout``."""
    parser = Parser("logout", "[SERVER]")
    parser.add_argument("server", nargs="?")
    server = key_of(parser.parse(argv).server)
    print(f"Removing login credentials for {server}")
    try:
        was_known = forget(server)
    except LaminaError as error:
        stderr(f"WARNING: could not erase credentials:\n{server}: {error}")
        return 0
    if not was_known:
        print(f"Not logged in to {server}")
    return 0


def search(client: Client, argv: list[str]) -> int:
    """``lamina search``."""
    parser = Parser("search", "[OPTIONS] TERM")
    parser.values("-f", "--filter", convert=name_and_value, metavar="filter", help="Filter output based on conditions")
    parser.value("--format", help="table TEMPLATE, json, or a Go template")
    parser.value("--limit", convert=whole, metavar="int", help="Max number of search results")
    parser.flag("--no-trunc", help="Don't truncate output")
    parser.add_argument("term")
    options = parser.parse(argv)
    query = {"term": options.term, "limit": options.limit, "filters": filters_json(options.filter)}
    domain = options.term.partition("/")[0] if "/" in options.term else ""
    found = client.request("GET", "/images/search", query, headers=auth_headers(domain)).json() or []
    columns = ("Name", "Description", "StarCount", "IsOfficial")
    print_rows([_found(item, full=options.no_trunc) for item in found], _FOUND, columns, form=options.format)
    return 0


def _found(item: dict[str, Any], *, full: bool) -> dict[str, Any]:
    description = str(item["description"]).replace("\n", " ").replace("\r", " ")
    return {
        "Name": item["name"],
        "Description": description if full else shortened(description, _DESCRIPTION_LENGTH),
        "StarCount": str(item["star_count"]),
        "IsOfficial": "[OK]" if item["is_official"] else "",
        "IsAutomated": "[OK]" if item["is_automated"] else "",
    }


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidReference as error:
        raise CommandFailed(str(error)) from None


COMMANDS = {"pull": pull, "push": push, "login": login, "logout": logout, "search": search}
