"""Commands about networks."""

from __future__ import annotations

import re
from typing import Any

from lamina.cli.grammar import Parser, name_and_value
from lamina.cli.output import Listing, go_time, joined_labels, print_rows
from lamina.client.client import Client, filters_json

_COLUMNS = ("ID", "Name", "Driver", "Scope")
_LISTING = Listing(
    {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    kind="*network.networkContext",
    raw="network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
    raw_quiet="network_id: {{.ID}}",
)


def network_ls(client: Client, argv: list[str]) -> int:
    """``lamina network ls``."""
    parser = Parser("network ls", "[OPTIONS]")
    parser.values("-f", "--filter", convert=name_and_value, metavar="filter", help="Filter output by conditions")
    parser.value("--format", help="table, table TEMPLATE, json, raw, or a Go template")
    parser.flag("--no-trunc", help="Do not truncate the output")
    parser.flag("-q", "--quiet", help="Only display network IDs")
    options = parser.parse(argv)
    found = client.request("GET", "/networks", {"filters": filters_json(options.filter)}).json()
    rows = [_row(item, full=options.no_trunc) for item in sorted(found, key=lambda item: str(item["Name"]))]
    print_rows(rows, _LISTING, _COLUMNS, form=options.format, quiet=options.quiet)
    return 0


def _row(item: dict[str, Any], *, full: bool) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    return {
        "ID": item["Id"] if full else item["Id"][:12],
        "Name": item["Name"],
        "Driver": item["Driver"],
        "Scope": item["Scope"],
        "IPv4": "true" if item.get("EnableIPv4", True) else "false",
        "IPv6": "true" if item.get("EnableIPv6") else "false",
        "Internal": "true" if item.get("Internal") else "false",
        "Labels": joined_labels(labels),
        "Label": lambda name: labels.get(name, ""),
        "CreatedAt": _moment(item.get("Created", "")),
    }


def _moment(text: str) -> str:
    """A moment of the API as Go prints it; its fraction stays."""
    from datetime import datetime

    match = re.fullmatch(r"(.*?)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        return text
    whole, fraction, zone = match.groups()
    seconds = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone)).timestamp()
    date, clock, rest = go_time(seconds).split(" ", 2)
    return f"{date} {clock}{(fraction or '').rstrip('0').rstrip('.')} {rest}"


COMMANDS = {"network ls": network_ls}
