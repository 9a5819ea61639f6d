"""Commands about the daemon and the host."""

from __future__ import annotations

import json
import os
from importlib.metadata import version as package_version
from typing import Any

from lamina.api.sizes import human_binary_size, human_size
from lamina.api.versions import CURRENT
from lamina.cli.builder import unix_seconds
from lamina.cli.grammar import CommandFailed, Parser, name_and_value
from lamina.cli.output import (
    Listing,
    go_quoted,
    human_ago,
    print_rows,
    print_table,
    rfc3339,
    short_id,
    shortened,
    stderr,
)
from lamina.client.client import Client, filters_json, told
from lamina.errors import LaminaError

_SYNTAX_FAULT = 64
_COMMAND_LENGTH = 20
_NO_COLON = object()
_FORMAT = "json, or a Go template"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DISK_USE = Listing(
    {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
    kind="*formatter.diskUsageContext",
)


def version(client: Client, argv: list[str]) -> int:
    """``lamina version``."""
    parser = Parser("version", "[OPTIONS]")
    parser.value("-f", "--format", help=_FORMAT)
    options = parser.parse(argv)
    failure = None
    try:
        server = client.request("GET", "/version").json()
    except LaminaError as error:
        server, failure = None, told(error)
    facts = {"Client": _own_version(), "Server": server}
    if options.format:
        _render(facts, options.format, "system.versionInfo", name="version")
    else:
        print(_version_text(facts))
    if failure is not None:
        raise CommandFailed(failure)
    return 0


def _own_version() -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "Version": package_version("lamina"),
        "ApiVersion": CURRENT,
        "DefaultAPIVersion": CURRENT,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "BuildTime": "",
        "Context": "default",
    }


def _version_text(facts: dict[str, Any]) -> str:
    own, server = facts["Client"], facts["Server"]
    lines = ["Client:"]
    lines += [
        f" {label + ':':<18} {own[key]}" for label, key in (("Version", "Version"), ("API version", "ApiVersion"))
    ]
    lines += [f" {'OS/Arch:':<18} {own['Os']}/{own['Arch']}", f" {'Context:':<18} {own['Context']}"]
    if server is None:
        return "\n".join(lines)
    engine, *others = server["Components"]
    lines += ["", f"Server: {server['Platform']['Name']}", " Engine:", f"  {'Version:':<17} {engine['Version']}"]
    api = f"{server['ApiVersion']} (minimum version {server['MinAPIVersion']})"
    lines += [f"  {'API version:':<17} {api}", f"  {'OS/Arch:':<17} {server['Os']}/{server['Arch']}"]
    lines.append(f"  {'Experimental:':<17} {str(server.get('Experimental', False)).lower()}")
    for component in others:
        lines += [f" {component['Name']}:", f"  {'Version:':<17} {component['Version']}"]
    return "\n".join(lines)


def info(client: Client, argv: list[str]) -> int:
    """``lamina info``."""
    parser = Parser("info", "[OPTIONS]")
    parser.value("-f", "--format", help=_FORMAT)
    options = parser.parse(argv)
    facts = client.request("GET", "/info").json()
    own = {"Version": package_version("lamina"), "Context": "default", "Debug": False, "Plugins": [], "Warnings": None}
    if options.format:
        _render({**facts, "ClientInfo": own}, options.format, "system.dockerInfo")
        return 0
    print(f"Client:\n Version:    {own['Version']}\n Context:    default\n Debug Mode: false\n\nServer:")
    print("\n".join(_info_lines(facts)))
    print()
    for warning in facts.get("Warnings") or []:
        stderr(warning)
    return 0


def _info_lines(facts: dict[str, Any]) -> list[str]:
    plugins = facts["Plugins"]
    rows: list[tuple[str, Any]] = [
        ("Containers", facts["Containers"]),
        (" Running", facts["ContainersRunning"]),
        (" Paused", facts["ContainersPaused"]),
        (" Stopped", facts["ContainersStopped"]),
        ("Images", facts["Images"]),
        ("Server Version", facts["ServerVersion"]),
        ("Storage Driver", facts["Driver"]),
        *((f" {name}", value) for name, value in facts["DriverStatus"]),
        ("Logging Driver", facts["LoggingDriver"]),
        ("Cgroup Driver", facts["CgroupDriver"]),
        ("Cgroup Version", facts["CgroupVersion"]),
        ("Plugins", None),
        *((f" {kind}", " ".join(plugins[kind])) for kind in ("Volume", "Network", "Log")),
        ("Swarm", facts["Swarm"]["LocalNodeState"]),
        ("Runtimes", " ".join(facts["Runtimes"])),
        ("Default Runtime", facts["DefaultRuntime"]),
        ("Init Binary", facts["InitBinary"]),
        (f"{facts['DefaultRuntime']} version", facts["RuncCommit"]["ID"]),
        ("init version", facts["InitCommit"]["ID"]),
        ("Security Options", None),
        *_security_rows(facts["SecurityOptions"]),
        ("Kernel Version", facts["KernelVersion"]),
        ("Operating System", facts["OperatingSystem"]),
        ("OSType", facts["OSType"]),
        ("Architecture", facts["Architecture"]),
        ("CPUs", facts["NCPU"]),
        ("Total Memory", human_binary_size(facts["MemTotal"])),
        ("Name", facts["Name"]),
        ("ID", facts["ID"]),
        ("Docker Root Dir", facts["DockerRootDir"]),
        ("Debug Mode", str(facts["Debug"]).lower()),
        ("Experimental", str(facts["ExperimentalBuild"]).lower()),
        ("Insecure Registries", None),
        *((f" {block}", _NO_COLON) for block in facts["RegistryConfig"]["InsecureRegistryCIDRs"]),
        ("Live Restore Enabled", str(facts["LiveRestoreEnabled"]).lower()),
    ]
    return [f" {name}" + ("" if value is _NO_COLON else ":" if value is None else f": {value}") for name, value in rows]


def _security_rows(options: list[str]) -> list[tuple[str, Any]]:
    """``name=seccomp,profile=builtin`` as a line, and one for what it says more."""
    rows: list[tuple[str, Any]] = []
    for option in options:
        name, *others = (part.partition("=")[2] for part in option.split(","))
        keys = [part.partition("=")[0].title() for part in option.split(",")][1:]
        rows.append((f" {name}", _NO_COLON))
        rows += [(f"  {key}", value) for key, value in zip(keys, others, strict=True)]
    return rows


def events(client: Client, argv: list[str]) -> int:
    """``lamina events``."""
    parser = Parser("events", "[OPTIONS]")
    parser.values("-f", "--filter", convert=name_and_value, metavar="filter", help="Filter output by conditions")
    parser.value("--format", help=_FORMAT)
    parser.value("--since", help="Show all events created since a moment, or for a duration")
    parser.value("--until", help="Stream events until this moment")
    options = parser.parse(argv)
    show = _event_line if not options.format else _event_form(options.format)
    query = {"since": options.since, "until": options.until, "filters": filters_json(options.filter)}
    for line in client.request("GET", "/events", query).lines():
        print(show(json.loads(line)), flush=True)
    return 0


def _event_line(event: dict[str, Any]) -> str:
    seconds, nanoseconds = divmod(event["timeNano"], 1_000_000_000)
    moment = rfc3339(seconds)
    stamp = f"{moment[:19]}.{nanoseconds:09d}{moment[19:]}"
    attributes = ", ".join(f"{k}={v}" for k, v in sorted(event["Actor"]["Attributes"].items()))
    return f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']}" + (
        f" ({attributes})" if attributes else ""
    )


def _event_form(form: str) -> Any:
    """How ``--format`` prints an event: whole as JSON, or by a template, which knows its fields by Go's names."""
    if form == "json":
        return lambda event: json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    from lamina.cli.template import SyntaxFault, Template, TemplateFault
    from lamina.cli.template.shapes import Struct, shaped

    kind = type("Message", (Struct,), {"kind": "*events.Message", "__doc__": "An event."})
    try:
        template = Template(form)
    except SyntaxFault as fault:
        raise CommandFailed(f"Error parsing format: {fault}", _SYNTAX_FAULT) from None

    def show(event: dict[str, Any]) -> str:
        try:
            return template.render(kind(shaped(event)))
        except TemplateFault as fault:
            raise CommandFailed(f"Error parsing format: {fault}") from None

    return show


def system_df(client: Client, argv: list[str]) -> int:
    """``lamina system df``."""
    parser = Parser("system df", "[OPTIONS]")
    parser.value("--format", help="table, table TEMPLATE, json, or a Go template")
    parser.flag("-v", "--verbose", help="Show detailed information on space usage")
    options = parser.parse(argv)
    if options.verbose and options.format:
        raise CommandFailed("the verbose and the format options conflict")
    use = client.request("GET", "/system/df").json()
    if options.verbose:
        _print_details(use)
        return 0
    rows = [_images_row(use), _containers_row(use["Containers"] or []), _volumes_row(use["Volumes"] or [])]
    rows.append(_cache_row(use["BuildCache"] or []))
    print_rows(rows, _DISK_USE, tuple(_DISK_USE.headers), form=options.format)
    return 0


def _use_row(
    kind: str, total: int, active: int, size: float, reclaimable: float, *, percent: bool = True
) -> dict[str, str]:
    share = f" ({int(reclaimable * 100 / size)}%)" if percent and size > 0 else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size, digits=4),
        "Reclaimable": human_size(reclaimable, digits=4) + share,
    }


def _images_row(use: dict[str, Any]) -> dict[str, str]:
    images = use["Images"] or []
    used = [image for image in images if image["Containers"] > 0]
    kept = sum(i["Size"] - i["SharedSize"] for i in used if i["Size"] >= 0 and i["SharedSize"] >= 0)
    return _use_row("Images", len(images), len(used), use["LayersSize"], max(use["LayersSize"] - kept, 0))


def _containers_row(containers: list[dict[str, Any]]) -> dict[str, str]:
    active = [c for c in containers if c["State"] in ("running", "paused", "restarting")]
    size = sum(c.get("SizeRw", 0) for c in containers)
    return _use_row("Containers", len(containers), len(active), size, size - sum(c.get("SizeRw", 0) for c in active))


def _volumes_row(volumes: list[dict[str, Any]]) -> dict[str, str]:
    sizes = [(v.get("UsageData") or {}).get("Size", 0) for v in volumes]
    references = [(v.get("UsageData") or {}).get("RefCount", 0) for v in volumes]
    unused = sum(size for size, count in zip(sizes, references, strict=True) if count == 0)
    return _use_row("Local Volumes", len(volumes), sum(1 for count in references if count > 0), sum(sizes), unused)


def _private_bytes(items: list[dict[str, Any]]) -> int:
    return sum(item["Size"] for item in items if not item["Shared"])


def _cache_row(items: list[dict[str, Any]]) -> dict[str, str]:
    active = [item for item in items if item["InUse"]]
    size = _private_bytes(items)
    free = sum(item["Size"] for item in items if not item["Shared"] and not item["InUse"])
    return _use_row("Build Cache", len(items), len(active), size, free, percent=False)


def _print_details(use: dict[str, Any]) -> None:
    images = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    for item in use["Images"] or []:
        repository, _, tag = (item["RepoTags"] or ["<none>:<none>"])[0].rpartition(":")
        row = [repository, tag, short_id(item["Id"]), human_ago(item["Created"])]
        shares = (item["SharedSize"], item["Size"] - item["SharedSize"])
        sizes = [human_size(item["Size"]), *(human_size(size, digits=4) for size in shares)]
        images.append([*row, *sizes, str(item["Containers"])])
    containers = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for item in use["Containers"] or []:
        local = sum(1 for mount in item.get("Mounts") or [] if mount["Type"] == "volume")
        names = ",".join(name.removeprefix("/") for name in item["Names"])
        command = go_quoted(shortened(item["Command"], _COMMAND_LENGTH))
        row = [item["Id"][:12], item["Image"], command, str(local), human_size(item.get("SizeRw", 0))]
        containers.append([*row, human_ago(item["Created"]), item["Status"], names])
    volumes = [["VOLUME NAME", "LINKS", "SIZE"]]
    for item in use["Volumes"] or []:
        usage = item.get("UsageData") or {}
        volumes.append([item["Name"], str(usage.get("RefCount", 0)), human_size(usage.get("Size", 0))])
    for title, rows in (("Images", images), ("Containers", containers), ("Local Volumes", volumes)):
        print(f"{title} space usage:\n")
        print_table(rows)
        print()
    _print_cache(use["BuildCache"] or [])


def _print_cache(items: list[dict[str, Any]]) -> None:
    rows = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    for item in items:
        times = [human_ago(unix_seconds(item[name])) for name in ("CreatedAt", "LastUsedAt")]
        row = [item["ID"][:12], item["Type"], human_size(item["Size"]), *times, str(item["UsageCount"])]
        rows.append([*row, str(item["Shared"]).lower()])
    print(f"Build cache usage: {human_size(_private_bytes(items), digits=4)}\n")
    print_table(rows)


def doctor(client: Client, argv: list[str]) -> int:
    """``lamina doctor``: asks this host, not the daemon."""
    parser = Parser("doctor", "[OPTIONS]")
    parser.value("--root", default="/var/lib/lamina", help="Where the daemon keeps its state")
    options = parser.parse(argv)
    from pathlib import Path

    from lamina.engine.doctor import checks

    code = 0
    for check in checks(Path(options.root)):
        mark = "ok" if check.ok else ("MISSING" if check.required else "warning")
        print(f"{mark:8} {check.name:12} {check.detail}" + ("" if check.ok else f": {check.remedy}"))
        code = code if check.ok or not check.required else 1
    return code


def _render(value: dict[str, Any], form: str, kind: str, *, name: str = "") -> None:
    """Print one thing as JSON or by a template; *kind* is Go's name of its type."""
    if form == "json":
        print(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
        return
    from lamina.cli.template import ExecutionError, SyntaxFault, Template
    from lamina.cli.template.shapes import Struct, shaped

    struct = type("Facts", (Struct,), {"kind": kind, "__doc__": "What is printed."})
    try:
        print(Template(form, name).render(struct(shaped(value))))
    except SyntaxFault as fault:
        raise CommandFailed(f"template parsing error: {fault}", _SYNTAX_FAULT) from None
    except ExecutionError as error:
        print()
        raise CommandFailed(str(error)) from None


COMMANDS = {"version": version, "info": info, "events": events, "system df": system_df, "doctor": doctor}
