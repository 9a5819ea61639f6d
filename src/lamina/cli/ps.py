"""``lamina ps``: the list of containers. On its own, as the command that is typed most is to import least."""

from __future__ import annotations

from typing import Any

from lamina.api.sizes import human_size
from lamina.cli.grammar import Options, Parser, name_and_value, whole
from lamina.cli.output import (
    Listing,
    go_quoted,
    go_time,
    human_ago,
    joined_labels,
    print_rows,
    short_id,
    shortened,
    stderr,
)
from lamina.cli.port_ranges import shown_ports
from lamina.client.client import Client, filters_json

_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_COMMAND_LENGTH = 20
_MOUNT_LENGTH = 15
_LISTING = Listing(
    {
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
    },
    kind="*formatter.ContainerContext",
    raw="container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n"
    "state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n"
    "labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n",
    raw_quiet="container_id: {{.ID}}",
    # docker reads the template of this list alone before it asks the daemon, to learn whether sizes are wanted
    faults=("failed to parse template", "failed to execute template"),
)


def ps(client: Client, argv: list[str]) -> int:
    """``lamina ps``."""
    options = _options(argv)
    form = options.format
    if options.quiet and form:
        stderr("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        form = form if form == "raw" else None
    shows_size = options.size or any(asks in (form or "") for asks in (".Size", "json ."))
    last = 1 if options.latest and options.last < 0 else options.last
    query = {
        "all": options.all,
        "limit": last if last > 0 else None,
        "size": shows_size,
        "filters": filters_json(options.filter),
    }
    found = client.request("GET", "/containers/json", query).json()
    rows = [_row(item, full=options.no_trunc) for item in found]
    columns = (*_COLUMNS, "Size") if options.size else _COLUMNS
    print_rows(rows, _LISTING.with_size() if options.size else _LISTING, columns, form=form, quiet=options.quiet)
    return 0


def _options(argv: list[str]) -> Options:
    parser = Parser("ps", "[OPTIONS]")
    parser.flag("-a", "--all", help="Show all containers (default shows just running)")
    parser.values("-f", "--filter", convert=name_and_value, metavar="filter", help="Filter output by conditions")
    parser.value("--format", help="table, table TEMPLATE, json, raw, or a Go template")
    parser.value("-n", "--last", convert=whole, default=-1, metavar="int", help="Show n last created containers")
    parser.flag("-l", "--latest", help="Show the latest created container (includes all states)")
    parser.flag("--no-trunc", help="Don't truncate output")
    parser.flag("-q", "--quiet", help="Only display container IDs")
    parser.flag("-s", "--size", help="Display total file sizes")
    return parser.parse(argv)


def _row(item: dict[str, Any], *, full: bool) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    mounts = item.get("Mounts") or []
    names = [m.get("Name") or m.get("Source", "") for m in mounts]
    size = human_size(item.get("SizeRw") or 0)
    image = item["Image"]
    return {
        "ID": item["Id"] if full else item["Id"][:12],
        "Image": short_id(image) if image.startswith("sha256:") and not full else image,
        "Command": go_quoted(item["Command"] if full else shortened(item["Command"], _COMMAND_LENGTH)),
        "CreatedAt": go_time(item["Created"]),
        "RunningFor": human_ago(item["Created"]),
        "Ports": shown_ports(item.get("Ports") or []),
        "State": item["State"],
        "Status": item["Status"],
        "Size": f"{size} (virtual {human_size(item['SizeRootFs'])})" if "SizeRootFs" in item else size,
        "Names": ",".join(_names(item["Names"], full=full)),
        "Labels": joined_labels(labels),
        "Label": lambda name: labels.get(name, ""),
        "Mounts": ",".join(names if full else (shortened(name, _MOUNT_LENGTH) for name in names)),
        "LocalVolumes": str(sum(1 for m in mounts if m["Type"] == "volume")),
        "Networks": ",".join(item["NetworkSettings"]["Networks"]),
        "Platform": None,
    }


def _names(names: list[str], *, full: bool) -> list[str]:
    """A container's name, and in full also those that links to it give it."""
    plain = [name.removeprefix("/") for name in names]
    return plain if full else [name for name in plain if "/" not in name][:1] or plain


COMMANDS = {"ps": ps}
