"""Commands about networks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.cli.each import each
from lamina.cli.grammar import CommandFailed, Parser, name_and_value, whole
from lamina.cli.output import Listing, go_time, joined_labels, print_rows
from lamina.cli.values import pairs
from lamina.client.client import Client, filters_json, quoted
from lamina.errors import NotFound

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


def network_create(client: Client, argv: list[str]) -> int:
    """``lamina network create``."""
    parser = Parser("network create", "[OPTIONS] NETWORK")
    parser.flag("--attachable", help="Enable manual container attachment")
    parser.values("--aux-address", metavar="map", help="Auxiliary IPv4 or IPv6 addresses used by Network driver")
    parser.value("-d", "--driver", default="bridge", help="Driver to manage the Network")
    parser.values("--gateway", metavar="strings", help="IPv4 or IPv6 Gateway for the master subnet")
    parser.flag("--internal", help="Restrict external access to the network")
    parser.values("--ip-range", metavar="strings", help="Allocate container ip from a sub-range")
    parser.value("--ipam-driver", default="default", help="IP Address Management Driver")
    parser.values("--ipam-opt", metavar="map", help="Set IPAM driver specific options")
    parser.flag("--ipv4", default=True, help="Enable or disable IPv4 address assignment")
    parser.flag("--ipv6", help="Enable or disable IPv6 address assignment")
    parser.values("--label", help="Set metadata on a network")
    parser.values("-o", "--opt", metavar="map", help="Set driver specific options")
    parser.value("--scope", default="", help="Control the network's scope")
    parser.values("--subnet", metavar="strings", help="Subnet in CIDR format that represents a network segment")
    parser.add_argument("network")
    options = parser.parse(argv)
    body = {
        "Name": options.network,
        "Driver": options.driver,
        "Scope": options.scope,
        "Attachable": options.attachable,
        "Internal": options.internal,
        "EnableIPv4": options.ipv4,
        "EnableIPv6": options.ipv6 or None,
        "IPAM": {
            "Driver": options.ipam_driver,
            "Options": pairs(options.ipam_opt),
            "Config": subnets(options.subnet, options.ip_range, options.gateway, pairs(options.aux_address)),
        },
        "Options": pairs(options.opt),
        "Labels": pairs(options.label),
    }
    print(client.request("POST", "/networks/create", body=body).json()["Id"])
    return 0


def subnets(
    texts: Sequence[str], ranges: Sequence[str], gateways: Sequence[str], auxiliary: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Each subnet with the ranges and addresses that lie in it. Raises CommandFailed, in docker's words."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        for one in text.split(","):
            found[one] = {"Subnet": one}
    for what, field, values in (("range", "IPRange", ranges), ("gateway", "Gateway", gateways)):
        for value in (one for text in values for one in text.split(",")):
            place = _subnet_of(value, found)
            if place is None:
                raise CommandFailed(f"no matching subnet for {what} {value}")
            if field in place:
                raise CommandFailed(f"cannot configure multiple {what}s ({value}, {place[field]}) on the same subnet")
            place[field] = value
    for name, address in auxiliary.items():
        place = _subnet_of(address, found)
        if place is None:
            raise CommandFailed(f"no matching subnet for aux-address {address}")
        place.setdefault("AuxiliaryAddresses", {})[name] = address
    return list(found.values())


def _subnet_of(text: str, found: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    from ipaddress import ip_interface, ip_network

    try:
        address = ip_interface(text).ip
        return next((fields for subnet, fields in found.items() if address in ip_network(subnet, strict=False)), None)
    except ValueError as error:
        raise CommandFailed(f"invalid CIDR address: {error}") from None


def network_rm(client: Client, argv: list[str]) -> int:
    """``lamina network rm``."""
    parser = Parser("network rm", "NETWORK [NETWORK...]")
    parser.flag("-f", "--force", help="Do not error if the network does not exist")
    parser.add_argument("networks", nargs="+")
    options = parser.parse(argv)

    def remove(name: str) -> None:
        try:
            client.request("DELETE", f"/networks/{quoted(name)}")
        except NotFound:
            if not options.force:
                raise

    return each(options.networks, remove)


def network_connect(client: Client, argv: list[str]) -> int:
    """``lamina network connect``."""
    parser = Parser("network connect", "[OPTIONS] NETWORK CONTAINER")
    parser.values("--alias", metavar="strings", help="Add network-scoped alias for the container")
    parser.values("--driver-opt", metavar="strings", help="driver options for the network")
    parser.value("--gw-priority", default=0, convert=whole, help="Highest gw-priority provides the default gateway")
    parser.value("--ip", default="", help="IPv4 address (e.g., 172.30.100.104)")
    parser.value("--ip6", default="", help="IPv6 address (e.g., 2001:db8::33)")
    parser.values("--link", metavar="list", help="Add link to another container")
    parser.values("--link-local-ip", metavar="strings", help="Add a link-local address for the container")
    parser.add_argument("network")
    parser.add_argument("container")
    options = parser.parse(argv)
    endpoint = {
        "Aliases": options.alias or None,
        "Links": options.link or None,
        "DriverOpts": pairs(options.driver_opt) or None,
        "GwPriority": options.gw_priority,
        "IPAMConfig": {
            "IPv4Address": options.ip,
            "IPv6Address": options.ip6,
            "LinkLocalIPs": options.link_local_ip or None,
        },
    }
    body = {"Container": options.container, "EndpointConfig": endpoint}
    client.request("POST", f"/networks/{quoted(options.network)}/connect", body=body)
    return 0


def network_disconnect(client: Client, argv: list[str]) -> int:
    """``lamina network disconnect``."""
    parser = Parser("network disconnect", "[OPTIONS] NETWORK CONTAINER")
    parser.flag("-f", "--force", help="Force the container to disconnect from a network")
    parser.add_argument("network")
    parser.add_argument("container")
    options = parser.parse(argv)
    body = {"Container": options.container, "Force": options.force}
    client.request("POST", f"/networks/{quoted(options.network)}/disconnect", body=body)
    return 0


COMMANDS = {
    "network connect": network_connect,
    "network create": network_create,
    "network disconnect": network_disconnect,
    "network ls": network_ls,
    "network rm": network_rm,
}
