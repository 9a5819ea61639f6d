"""Commands about volumes."""

from __future__ import annotations

from typing import Any

from lamina.cli.each import each
from lamina.cli.grammar import CommandFailed, Parser, name_and_value
from lamina.cli.output import Listing, joined_labels, print_rows
from lamina.client.client import Client, filters_json, quoted

_COLUMNS = ("Driver", "Name")
_UNKNOWN = ("Availability", "Group", "Links", "Size", "Status")
_LISTING = Listing(
    {
        "Driver": "DRIVER",
        "Name": "VOLUME NAME",
        "Mountpoint": "MOUNTPOINT",
        "Scope": "SCOPE",
        "Labels": "LABELS",
        **{field: field.upper() for field in _UNKNOWN},
    },
    kind="*formatter.volumeContext",
    raw="name: {{.Name}}\ndriver: {{.Driver}}\n",
    quiet_field="Name",
    raw_quiet="name: {{.Name}}",
)


def volume_ls(client: Client, argv: list[str]) -> int:
    """``lamina volume ls``."""
    parser = Parser("volume ls", "[OPTIONS]")
    parser.values("-f", "--filter", convert=name_and_value, metavar="filter", help="Provide filter values")
    parser.value("--format", help="table, table TEMPLATE, json, raw, or a Go template")
    parser.flag("-q", "--quiet", help="Only display volume names")
    options = parser.parse(argv)
    found = client.request("GET", "/volumes", {"filters": filters_json(options.filter)}).json()["Volumes"] or []
    rows = [_row(item) for item in sorted(found, key=lambda item: str(item["Name"]))]
    print_rows(rows, _LISTING, _COLUMNS, form=options.format, quiet=options.quiet)
    return 0


def _row(item: dict[str, Any]) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    return {
        "Driver": item["Driver"],
        "Name": item["Name"],
        "Mountpoint": item["Mountpoint"],
        "Scope": item["Scope"],
        "Labels": joined_labels(labels),
        "Label": lambda name: labels.get(name, ""),
        **dict.fromkeys(_UNKNOWN, "N/A"),
    }


def volume_create(client: Client, argv: list[str]) -> int:
    """``lamina volume create``."""
    parser = Parser("volume create", "[OPTIONS] [VOLUME]")
    parser.value("-d", "--driver", default="local", help="Specify volume driver name")
    parser.values("--label", help="Set metadata for a volume")
    parser.value("--name", help="Specify volume name")
    parser.values("-o", "--opt", metavar="map", help="Set driver specific options")
    parser.add_argument("volume", nargs="?")
    options = parser.parse(argv)
    if options.name and options.volume:
        raise CommandFailed("conflicting options: either specify --name or provide positional arg, not both")
    body = {
        "Name": options.name or options.volume,
        "Driver": options.driver,
        "DriverOpts": _pairs(options.opt),
        "Labels": _pairs(options.label),
    }
    print(client.request("POST", "/volumes/create", body=body).json()["Name"])
    return 0


def volume_rm(client: Client, argv: list[str]) -> int:
    """``lamina volume rm``."""
    parser = Parser("volume rm", "[OPTIONS] VOLUME [VOLUME...]")
    parser.flag("-f", "--force", help="Force the removal of one or more volumes")
    parser.add_argument("volumes", nargs="+")
    options = parser.parse(argv)
    query = {"force": options.force}
    return each(options.volumes, lambda name: client.request("DELETE", f"/volumes/{quoted(name)}", query).read())


def _pairs(texts: list[str]) -> dict[str, str]:
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


COMMANDS = {"volume ls": volume_ls, "volume create": volume_create, "volume rm": volume_rm}
