"""Removing what nobody uses: ``container prune``, ``image prune``, ``network prune``, ``volume prune``, and all of them in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from lamina.api.sizes import human_size
from lamina.cli.grammar import CommandFailed, Options, Parser, name_and_value
from lamina.cli.output import confirmed
from lamina.client.client import Client, filters_json

_ACTIVE = ("running", "paused", "restarting")


class _Pruned(NamedTuple):
    """What went: a heading with lines below it, and the bytes that are free now."""

    heading: str
    lines: list[str]
    freed: int = 0


def container_prune(client: Client, argv: list[str]) -> int:
    """``lamina container prune``."""
    options = _parser("container prune", "Which to remove (until=, label=)").parse(argv)
    if not options.force and not confirmed("WARNING! This will remove all stopped containers."):
        return 0
    return _print([_prune_containers(client, options.filter)])


def image_prune(client: Client, argv: list[str]) -> int:
    """``lamina image prune``."""
    parser = _parser("image prune", "Which to remove (until=, label=)")
    parser.flag("-a", "--all", help="Remove all unused images, not just dangling ones")
    options = parser.parse(argv)
    what = "all images without at least one container associated to them" if options.all else "all dangling images"
    if not options.force and not confirmed(f"WARNING! This will remove {what}."):
        return 0
    pruned = _prune_images(client, options.filter, all_=options.all)
    return _print([pruned._replace(heading="")])


def volume_prune(client: Client, argv: list[str]) -> int:
    """``lamina volume prune``."""
    parser = _parser("volume prune", 'Which to remove (e.g. "label=LABEL")')
    parser.flag("-a", "--all", help="Remove all unused volumes, not just anonymous ones")
    options = parser.parse(argv)
    what = "all local volumes" if options.all else "anonymous local volumes"
    if not options.force and not confirmed(f"WARNING! This will remove {what} not used by at least one container."):
        return 0
    return _print([_prune_volumes(client, options.filter, all_=options.all)])


def network_prune(client: Client, argv: list[str]) -> int:
    """``lamina network prune``."""
    options = _parser("network prune", "Which to remove (until=, label=)").parse(argv)
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if options.force or confirmed(warning):
        pruned = _prune_networks(client, options.filter)
        if pruned.lines:
            print(pruned.heading, *pruned.lines, "", sep="\n")
    return 0


def system_prune(client: Client, argv: list[str]) -> int:
    """``lamina system prune``."""
    parser = _parser("system prune", 'Which to remove (e.g. "label=KEY=VALUE")')
    parser.flag("-a", "--all", help="Remove all unused images not just dangling ones")
    parser.flag("--dry-run", help="Tell what would be removed, and remove nothing")
    parser.flag("--volumes", help="Prune anonymous volumes")
    options = parser.parse(argv)
    if options.volumes and any(text.startswith("until=") for text in options.filter):
        raise CommandFailed('the "until" filter is not supported with "--volumes"')
    if options.dry_run:
        return _tell_what_would_go(client, options)
    if not options.force and not confirmed(_warning(options)):
        return 0
    pruned = [_prune_containers(client, options.filter), _prune_networks(client, options.filter)]
    if options.volumes:
        pruned.append(_prune_volumes(client, options.filter, all_=False))
    pruned.append(_prune_images(client, options.filter, all_=options.all))
    pruned.append(_prune_cache(client, options.filter, all_=options.all))
    return _print(pruned)


def _parser(name: str, filter_help: str) -> Parser:
    parser = Parser(name, "[OPTIONS]")
    parser.values("--filter", convert=name_and_value, metavar="filter", help=filter_help)
    parser.flag("-f", "--force", help="Do not prompt for confirmation")
    return parser


def _warning(options: Options) -> str:
    lines = ["all stopped containers", "all networks not used by at least one container"]
    lines += ["all anonymous volumes not used by at least one container"] if options.volumes else []
    lines.append(
        "all images without at least one container associated to them" if options.all else "all dangling images"
    )
    lines.append("all build cache" if options.all else "unused build cache")
    text = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if options.filter:
        text += "\n  Items to be pruned will be filtered with:\n" + "".join(
            f"  - {f}\n" for f in sorted(options.filter)
        )
    return text


def _prune_containers(client: Client, filters: list[str]) -> _Pruned:
    result = _post(client, "/containers/prune", filters)
    return _Pruned("Deleted Containers:", result["ContainersDeleted"] or [], result["SpaceReclaimed"])


def _prune_networks(client: Client, filters: list[str]) -> _Pruned:
    return _Pruned("Deleted Networks:", _post(client, "/networks/prune", filters)["NetworksDeleted"] or [])


def _prune_volumes(client: Client, filters: list[str], *, all_: bool) -> _Pruned:
    result = _post(client, "/volumes/prune", [*filters, *(["all=true"] if all_ else [])])
    return _Pruned("Deleted Volumes:", result["VolumesDeleted"] or [], result["SpaceReclaimed"])


def _prune_images(client: Client, filters: list[str], *, all_: bool) -> _Pruned:
    result = _post(client, "/images/prune", [*filters, f"dangling={'false' if all_ else 'true'}"])
    items = [f"{key.lower()}: {value}" for item in result["ImagesDeleted"] or [] for key, value in item.items()]
    return _Pruned("Deleted Images:", items, result["SpaceReclaimed"])


def _prune_cache(client: Client, filters: list[str], *, all_: bool) -> _Pruned:
    query = {"all": all_, "filters": filters_json(f for f in filters if f.startswith("until="))}
    result = client.request("POST", "/build/prune", query).json()
    return _Pruned("Deleted build cache objects:", result["CachesDeleted"] or [], result["SpaceReclaimed"])


def _post(client: Client, path: str, filters: Iterable[str]) -> dict[str, Any]:
    result: dict[str, Any] = client.request("POST", path, {"filters": filters_json(filters)}).json()
    return result


def _print(parts: list[_Pruned]) -> int:
    for pruned in parts:
        if pruned.lines:
            print(*([pruned.heading] if pruned.heading else []), *pruned.lines, sep="\n")
            if pruned.heading:
                print()
    print(f"Total reclaimed space: {human_size(sum(pruned.freed for pruned in parts), digits=4)}")
    return 0


def _tell_what_would_go(client: Client, options: Options) -> int:
    """What a prune at this moment would remove, found by the daemon's lists."""
    if options.filter:
        raise CommandFailed("--dry-run and --filter cannot be used together")
    use = client.request("GET", "/system/df").json()
    stopped = [c for c in use["Containers"] or [] if c["State"] not in _ACTIVE]
    left = {c["ImageID"] for c in use["Containers"] or []} - {c["ImageID"] for c in stopped}
    names = {m.get("Name") for c in use["Containers"] or [] if c not in stopped for m in c["Mounts"]}
    parts = [_Pruned("Containers:", [c["Id"] for c in stopped], sum(c["SizeRw"] for c in stopped))]
    if options.volumes:
        unused = [v for v in use["Volumes"] or [] if v["Name"] not in names and _is_anonymous(v)]
        parts.append(_Pruned("Volumes:", [v["Name"] for v in unused], sum(v["UsageData"]["Size"] for v in unused)))
    images = [i for i in use["Images"] or [] if i["Id"] not in left and (options.all or not i["RepoTags"])]
    parts.append(_Pruned("Images:", [_image_line(i) for i in images], sum(i["Size"] - i["SharedSize"] for i in images)))
    cache = [c for c in use["BuildCache"] or [] if not c["InUse"] and (options.all or not c["Shared"])]
    parts.append(_Pruned("Build cache objects:", [c["ID"] for c in cache], sum(c["Size"] for c in cache)))
    for part in parts:
        if part.lines:
            print(f"Would delete {part.heading}", *part.lines, "", sep="\n")
    print(f"Would reclaim about: {human_size(sum(part.freed for part in parts), digits=4)}")
    return 0


def _is_anonymous(volume: dict[str, Any]) -> bool:
    return "com.docker.volume.anonymous" in (volume["Labels"] or {})


def _image_line(image: dict[str, Any]) -> str:
    return " ".join([image["Id"], *(image["RepoTags"] or [])])


COMMANDS = {
    "container prune": container_prune,
    "image prune": image_prune,
    "network prune": network_prune,
    "system prune": system_prune,
    "volume prune": volume_prune,
}
