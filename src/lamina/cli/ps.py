"""``lamina ps``: the list of containers. On its own, as the command that is typed most is to import least."""

from __future__ import annotations

from typing import Any

from lamina.cli.grammar import Parser
from lamina.cli.output import human_ago, human_size, print_rows, short_id
from lamina.client.client import Client, filters_json

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)


def ps(client: Client, argv: list[str]) -> int:
    """``lamina ps``."""
    parser = Parser("ps", "[OPTIONS]", "List containers")
    parser.flag("-a", "--all")
    parser.flag("-q", "--quiet")
    parser.flag("-s", "--size")
    parser.flag("-l", "--latest")
    parser.flag("--no-trunc")
    parser.value("-n", "--last")
    parser.value("--format")
    parser.values("-f", "--filter")
    options = parser.parse(argv)
    limit = "1" if options.latest else options.last
    wants_size = options.size or ".Size" in (options.format or "")
    query = {"all": options.all, "limit": limit, "size": wants_size, "filters": filters_json(options.filter)}
    found = client.request("GET", "/containers/json", query).json()
    rows = [_row(item, full=options.no_trunc) for item in found]
    columns = (*_COLUMNS, ("SIZE", "Size")) if options.size else _COLUMNS
    print_rows(rows, columns, format_=options.format, quiet_field="ID" if options.quiet else None)
    return 0


def _row(item: dict[str, Any], *, full: bool) -> dict[str, Any]:
    command = item["Command"] if full or len(item["Command"]) <= 20 else item["Command"][:19] + "…"
    image = item["Image"]
    labels = item.get("Labels") or {}
    size = human_size(item.get("SizeRw") or 0)
    return {
        "ID": item["Id"] if full else item["Id"][:12],
        "Image": short_id(image) if image.startswith("sha256:") and not full else image,
        "Command": f'"{command}"',
        "CreatedAt": str(item["Created"]),
        "RunningFor": human_ago(item["Created"]),
        "Ports": ", ".join(_port(p) for p in item.get("Ports") or []),
        "State": item["State"],
        "Status": item["Status"],
        "Size": f"{size} (virtual {human_size(item['SizeRootFs'])})" if "SizeRootFs" in item else size,
        "Names": ",".join(name.removeprefix("/") for name in item["Names"]),
        "Labels": ",".join(f"{k}={v}" for k, v in labels.items()),
        "Mounts": ",".join(m.get("Name") or m.get("Source", "") for m in item.get("Mounts") or []),
        "LocalVolumes": str(sum(1 for m in item.get("Mounts") or [] if m["Type"] == "volume")),
        "Networks": ",".join(item["NetworkSettings"]["Networks"]),
    }


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '')}:{port['PublicPort']}->{inside}" if "PublicPort" in port else inside


COMMANDS = {"ps": ps}
