"""What builds keep for later ones: how much it is, and how to be rid of it."""

from __future__ import annotations

from typing import Any

from lamina.api.sizes import human_size
from lamina.cli.grammar import Parser, name_and_value
from lamina.cli.output import confirmed, human_ago, print_table
from lamina.cli.values import parse_size
from lamina.client.client import Client, filters_json


def du(client: Client, argv: list[str]) -> int:
    """``lamina builder du``."""
    parser = Parser("builder du", "[OPTIONS]")
    parser.flag("--verbose", help="Tell all that is known of each")
    options = parser.parse(argv)
    items: list[dict[str, Any]] = client.request("GET", "/system/df").json()["BuildCache"] or []
    items.sort(key=lambda item: str(item["LastUsedAt"]), reverse=True)
    if options.verbose:
        _print_items(items)
    else:
        rows = [["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "DESCRIPTION"]]
        print_table([*rows, *map(_row, items)])
    sizes = {
        "Shared": sum(item["Size"] for item in items if item["Shared"]),
        "Private": sum(item["Size"] for item in items if not item["Shared"]),
        "Reclaimable": sum(item["Size"] for item in items if _is_reclaimable(item)),
    }
    sizes["Total"] = sizes["Shared"] + sizes["Private"]
    print()
    for name, size in sizes.items():
        print(f"{name + ':':<13}{human_size(size, digits=4)}")
    return 0


def prune(client: Client, argv: list[str]) -> int:
    """``lamina builder prune``."""
    parser = Parser("builder prune", "[OPTIONS]")
    parser.flag("-a", "--all", help="Remove all unused build cache, not just what no image has")
    parser.values("--filter", convert=name_and_value, metavar="filter", help='Which to remove (e.g. "until=24h")')
    parser.flag("-f", "--force", help="Do not prompt for confirmation")
    parser.value("--keep-storage", default=0, convert=parse_size, metavar="bytes", help="Amount of disk space to keep")
    parser.value("--max-used-space", default=0, convert=parse_size, metavar="bytes", help="Most that may be kept")
    parser.value("--min-free-space", default=0, convert=parse_size, metavar="bytes", help="Space to be free after it")
    parser.value("--reserved-space", default=0, convert=parse_size, metavar="bytes", help="As --keep-storage")
    options = parser.parse(argv)
    what = "all build cache" if options.all else "all dangling build cache"
    if not options.force and not confirmed(f"WARNING! This will remove {what}."):
        return 0
    query = {
        "all": options.all,
        "filters": filters_json(options.filter),
        "reserved-space": options.reserved_space or options.keep_storage or "",
        "max-used-space": options.max_used_space or "",
        "min-free-space": options.min_free_space or "",
    }
    result = client.request("POST", "/build/prune", query).json()
    if result["CachesDeleted"]:
        print("Deleted build cache objects:", *result["CachesDeleted"], "", sep="\n")
    print(f"Total reclaimed space: {human_size(result['SpaceReclaimed'], digits=4)}")
    return 0


def unix_seconds(text: str) -> float:
    """The time of the API's RFC 3339 text, which is in UTC."""
    from datetime import datetime

    fraction = text[19:].rstrip("Z").lstrip(".")
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def _is_reclaimable(item: dict[str, Any]) -> bool:
    return not item["InUse"] and not item["Shared"]


def _row(item: dict[str, Any]) -> list[str]:
    size = human_size(item["Size"], digits=4) + ("*" if item["Shared"] else "")
    reclaimable = "false" if item["InUse"] else "true"
    return [item["ID"][:12], reclaimable, size, human_ago(unix_seconds(item["LastUsedAt"])), item["Description"][:60]]


def _print_items(items: list[dict[str, Any]]) -> None:
    for item in items:
        fields = {
            "ID": item["ID"],
            "Created at": item["CreatedAt"],
            "Mutable": str(item["Type"] == "exec.cachemount").lower(),
            "Reclaimable": str(not item["InUse"]).lower(),
            "Shared": str(item["Shared"]).lower(),
            "Size": human_size(item["Size"], digits=4),
            "Description": item["Description"],
            "Usage count": str(item["UsageCount"]),
            "Last used": human_ago(unix_seconds(item["LastUsedAt"])),
            "Type": item["Type"],
        }
        print("".join(f"{name + ':':<16}{value}\n" for name, value in fields.items()))


COMMANDS = {"builder du": du, "builder prune": prune}
