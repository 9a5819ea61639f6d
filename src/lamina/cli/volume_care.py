"""What lamina adds to volumes: ``volume backup``, ``restore``, ``clone`` and ``snapshot``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lamina.api.sizes import human_size
from lamina.cli.archives import check_output, size_of, with_progress, write_archive
from lamina.cli.each import each
from lamina.cli.grammar import CommandFailed, HelpWanted, Options, Parser
from lamina.cli.output import Listing, print_rows, stderr
from lamina.client.client import Client, quoted

_READ_BYTES = 1 << 20
_COLUMNS = ("Name", "CreatedAt", "Files", "Size", "Shared", "Containers")
_LISTING = Listing(
    {
        "Name": "NAME",
        "CreatedAt": "CREATED",
        "Files": "FILES",
        "Size": "SIZE",
        "Shared": "SHARED",
        "Containers": "CONTAINERS",
        "Quiesced": "QUIESCED",
    },
    kind="*volume.snapshotContext",
    raw="name: {{.Name}}\ncreated: {{.CreatedAt}}\n",
    quiet_field="Name",
    raw_quiet="name: {{.Name}}",
)
_SNAPSHOT_HELP = """Usage:  lamina volume snapshot COMMAND

Manage snapshots of a volume

Commands:
  create      Make a snapshot of a volume
  ls          List the snapshots of a volume
  restore     Let a volume have a snapshot's files again
  rm          Remove one or more snapshots"""


def _quiesce_flags(parser: Parser) -> None:
    parser.value("--quiesce", metavar="container", help="Freeze this container for the copy")
    parser.value(
        "--pre",
        metavar="command",
        help="Run a command in the quiesced container before the copy, instead of freezing it",
    )
    parser.value("--post", metavar="command", help="Run a command in the quiesced container after the copy")


def _quiesce(options: Options) -> dict[str, Any]:
    if (options.pre or options.post) and not options.quiesce:
        raise CommandFailed("--pre and --post need --quiesce CONTAINER")
    return {"quiesce": options.quiesce, "pre": options.pre, "post": options.post}


def backup(client: Client, argv: list[str]) -> int:
    """``lamina volume backup``."""
    parser = Parser("volume backup", "[OPTIONS] VOLUME")
    parser.value("-o", "--output", help="Write to a file, instead of STDOUT")
    _quiesce_flags(parser)
    parser.add_argument("volume")
    options = parser.parse(argv)
    check_output(options.output, "failed to back up volume")
    path = f"/lamina/volumes/{quoted(options.volume)}/backup"
    return write_archive(client.request("POST", path, _quiesce(options)), options.output)


def restore(client: Client, argv: list[str]) -> int:
    """``lamina volume restore``."""
    parser = Parser("volume restore", "[OPTIONS] [VOLUME]")
    parser.flag("-f", "--force", help="Replace what is in the volume")
    parser.value("-i", "--input", help="Read from a file, instead of STDIN")
    parser.add_argument("volume", nargs="?")
    options = parser.parse(argv)
    if not options.input and sys.stdin.isatty():
        raise CommandFailed("requested restore from stdin, but stdin is empty")
    path = f"/lamina/volumes/{quoted(options.volume)}/restore" if options.volume else "/lamina/volumes/restore"
    with open(options.input, "rb") if options.input else sys.stdin.buffer as source:
        chunks = with_progress(iter(lambda: source.read(_READ_BYTES), b""), "restoring", size_of(source))
        done = client.request("POST", path, {"force": options.force}, chunks=chunks).json()
    about = done["Backup"]
    stderr(f"of volume {about['volume']}, taken {about['taken']}")
    print(done["Volume"]["Name"])
    return 0


def clone(client: Client, argv: list[str]) -> int:
    """``lamina volume clone``."""
    parser = Parser("volume clone", "[OPTIONS] VOLUME [NEW]")
    _quiesce_flags(parser)
    parser.add_argument("volume")
    parser.add_argument("new", nargs="?")
    options = parser.parse(argv)
    query = {"target": options.new, **_quiesce(options)}
    print(client.request("POST", f"/lamina/volumes/{quoted(options.volume)}/clone", query).json()["Name"])
    return 0


def snapshot(client: Client, argv: list[str]) -> int:
    """``lamina volume snapshot COMMAND``."""
    if not argv:
        raise CommandFailed(_SNAPSHOT_HELP, 0)
    command = _SNAPSHOT_COMMANDS.get(argv[0])
    if command is None:
        if argv[0] in ("-h", "--help"):
            raise HelpWanted(_SNAPSHOT_HELP)
        raise CommandFailed(f"lamina: unknown command: lamina volume snapshot {argv[0]}\n\n{_SNAPSHOT_HELP}")
    return command(client, argv[1:])


def _create(client: Client, argv: list[str]) -> int:
    parser = Parser("volume snapshot create", "[OPTIONS] VOLUME [SNAPSHOT]")
    _quiesce_flags(parser)
    parser.add_argument("volume")
    parser.add_argument("snapshot", nargs="?")
    options = parser.parse(argv)
    query = {"name": options.snapshot, **_quiesce(options)}
    print(client.request("POST", f"/lamina/volumes/{quoted(options.volume)}/snapshots", query).json()["Name"])
    return 0


def _list(client: Client, argv: list[str]) -> int:
    parser = Parser("volume snapshot ls", "[OPTIONS] VOLUME")
    parser.value("--format", help="table, table TEMPLATE, json, raw, or a Go template")
    parser.flag("-q", "--quiet", help="Only display names")
    parser.add_argument("volume")
    options = parser.parse(argv)
    found = client.request("GET", f"/lamina/volumes/{quoted(options.volume)}/snapshots").json()
    print_rows([_row(item) for item in found], _LISTING, _COLUMNS, form=options.format, quiet=options.quiet)
    return 0


def _row(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": item["Name"],
        "CreatedAt": item["CreatedAt"],
        "Files": str(item["Files"]),
        "Size": human_size(item["Size"]),
        "Shared": human_size(item["Shared"]),
        "Containers": ",".join(item["Containers"]),
        "Quiesced": item["Quiesced"],
    }


def _restore(client: Client, argv: list[str]) -> int:
    parser = Parser("volume snapshot restore", "[OPTIONS] VOLUME SNAPSHOT")
    parser.value("--to", metavar="volume", help="Make it another volume's files, and leave this one alone")
    parser.add_argument("volume")
    parser.add_argument("snapshot")
    options = parser.parse(argv)
    path = f"/lamina/volumes/{quoted(options.volume)}/snapshots/{quoted(options.snapshot)}/restore"
    print(client.request("POST", path, {"target": options.to}).json()["Name"])
    return 0


def _remove(client: Client, argv: list[str]) -> int:
    parser = Parser("volume snapshot rm", "VOLUME SNAPSHOT [SNAPSHOT...]")
    parser.add_argument("volume")
    parser.add_argument("snapshots", nargs="+")
    options = parser.parse(argv)
    path = f"/lamina/volumes/{quoted(options.volume)}/snapshots"
    return each(options.snapshots, lambda name: client.request("DELETE", f"{path}/{quoted(name)}").read())


_SNAPSHOT_COMMANDS: dict[str, Callable[[Client, list[str]], int]] = {
    "create": _create,
    "list": _list,
    "ls": _list,
    "restore": _restore,
    "rm": _remove,
}

COMMANDS = {
    "volume backup": backup,
    "volume clone": clone,
    "volume restore": restore,
    "volume snapshot": snapshot,
}
