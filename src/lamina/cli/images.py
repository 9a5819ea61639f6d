"""Commands about images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from lamina.api.sizes import human_size
from lamina.cli.archives import check_output, size_of, with_progress, write_archive
from lamina.cli.grammar import CommandFailed, Parser, name_and_value
from lamina.cli.output import (
    Listing,
    go_time,
    human_ago,
    print_rows,
    progress_lines,
    rfc3339,
    short_id,
    shortened,
    stderr,
)
from lamina.client.client import Client, filters_json, quoted, told
from lamina.errors import LaminaError, NotFound

_READ_BYTES = 1 << 20
_CREATED_BY_LENGTH = 45
_NONE = "<none>"
_SYSTEMS = frozenset({"linux", "windows", "freebsd", "darwin"})
_ARCHITECTURES = frozenset({"amd64", "x86_64", "arm64", "aarch64", "arm", "386", "riscv64", "ppc64le", "s390x"})
_IMAGES = Listing(
    {
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    },
    kind="*formatter.imageContext",
    raw="repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\n"
    "virtual_size: {{.Size}}\n",
    raw_quiet="image_id: {{.ID}}",
)
_HISTORY = Listing(
    {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
    kind="*formatter.historyContext",
)


def images(client: Client, argv: list[str]) -> int:
    """``lamina images``."""
    parser = Parser("images", "[OPTIONS] [REPOSITORY[:TAG]]")
    parser.flag("-a", "--all", help="Show all images (default hides intermediate images)")
    parser.flag("--digests", help="Show digests")
    parser.values("-f", "--filter", convert=name_and_value, metavar="filter", help="Filter output by conditions")
    parser.value("--format", help="table, table TEMPLATE, json, raw, or a Go template")
    parser.flag("--no-trunc", help="Don't truncate output")
    parser.flag("-q", "--quiet", help="Only show image IDs")
    parser.flag("--tree", help="Show each image with its names below it")
    parser.add_argument("repository", nargs="?")
    options = parser.parse(argv)
    filters = [*options.filter, *([f"reference={options.repository}"] if options.repository else [])]
    found = client.request("GET", "/images/json", {"all": options.all, "filters": filters_json(filters)}).json()
    if options.tree:
        for flag in ("quiet", "no_trunc", "digests", "format"):
            if getattr(options, flag):
                raise CommandFailed(f"--{flag.replace('_', '-')} is not yet supported with --tree")
        _print_tree(found)
        return 0
    needs_digests = options.digests or ".Digest" in (options.format or "")
    rows = [
        _row(item, *names, full=options.no_trunc)
        for item in found
        for names in _names(item, with_digests=options.digests, needs_digests=needs_digests)
    ]
    digest = ("Digest",) if options.digests else ()
    columns = ("Repository", "Tag", *digest, "ID", "CreatedSince", "Size")
    print_rows(rows, _IMAGES, columns, form=options.format, quiet=options.quiet)
    return 0


def _names(item: dict[str, Any], *, with_digests: bool, needs_digests: bool) -> Iterator[tuple[str, str, str]]:
    """(repository, tag, digest) of each of an image's rows, as docker's command line divides them (formatter/image.go)."""
    digests: dict[str, list[str]] = {}
    for text in item.get("RepoDigests") or []:
        repository, _, digest = text.partition("@")
        digests.setdefault(repository, []).append(digest)
    if not item["RepoTags"] and not digests:
        yield _NONE, _NONE, _NONE
    tagged = set()
    for name in item["RepoTags"]:
        repository, _, tag = name.rpartition(":")
        tagged.add(repository)
        for digest in digests.get(repository, [_NONE]) if needs_digests else [_NONE]:
            yield repository, tag, digest
    for repository, own in digests.items():
        if repository not in tagged:
            for digest in own if with_digests else [""]:
                yield repository, _NONE, digest


def _row(item: dict[str, Any], repository: str, tag: str, digest: str, *, full: bool) -> dict[str, Any]:
    return {
        "ID": item["Id"] if full else short_id(item["Id"]),
        "Repository": repository,
        "Tag": tag,
        "Digest": digest,
        "CreatedSince": human_ago(item["Created"]),
        "CreatedAt": go_time(item["Created"]),
        "Size": human_size(item["Size"]),
        "VirtualSize": human_size(item["Size"], digits=4),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
    }


def _print_tree(found: list[dict[str, Any]]) -> None:
    from lamina.cli.output import print_table

    rows = [["IMAGE", "ID", "DISK USAGE", "IN USE"]]
    for item in found:
        first, *others = item["RepoTags"] or [_NONE]
        in_use = "U" if item.get("Containers", 0) > 0 else ""
        rows.append([first, short_id(item["Id"]), human_size(item["Size"]), in_use])
        rows += [[f"├─ {name}" if name != others[-1] else f"└─ {name}", "", "", ""] for name in others]
    print_table(rows)


def history(client: Client, argv: list[str]) -> int:
    """``lamina history``."""
    parser = Parser("history", "[OPTIONS] IMAGE")
    parser.value("--format", help="table, table TEMPLATE, json, or a Go template")
    parser.flag("-H", "--human", default=True, help="Print sizes and dates in human readable format (default true)")
    parser.flag("--no-trunc", help="Don't truncate output")
    parser.value("--platform", convert=platform_json, help="Show history for the given platform")
    parser.flag("-q", "--quiet", help="Only show image IDs")
    parser.add_argument("image")
    options = parser.parse(argv)
    query = {"platform": options.platform}
    layers = client.request("GET", f"/images/{quoted(options.image)}/history", query).json()
    rows = [_layer(item, full=options.no_trunc, human=options.human) for item in layers]
    created = "CreatedSince" if options.human else "CreatedAt"
    columns = ("ID", created, "CreatedBy", "Size", "Comment")
    print_rows(rows, _HISTORY, columns, form=options.format, quiet=options.quiet)
    return 0


def _layer(item: dict[str, Any], *, full: bool, human: bool) -> dict[str, Any]:
    by = item["CreatedBy"].replace("\t", " ")
    is_known = item["Created"] > 0
    return {
        "ID": item["Id"] if full else short_id(item["Id"]),
        "CreatedSince": human_ago(item["Created"]) if is_known else "N/A",
        "CreatedAt": rfc3339(item["Created"]) if is_known else "N/A",
        "CreatedBy": by if full else shortened(by, _CREATED_BY_LENGTH),
        "Size": human_size(item["Size"]) if human else str(item["Size"]),
        "Comment": item["Comment"],
    }


def platform_json(text: str) -> str:
    """``--platform`` as the API takes it, JSON. Raises CommandFailed."""
    import json

    check_platform(text, "invalid platform: ")
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = [parts[0], ""] if parts[0] in _SYSTEMS else ["linux", parts[0]]
    names = ("os", "architecture", "variant")
    return json.dumps({name: part for name, part in zip(names, parts, strict=False) if part})


def check_platform(text: str, prefix: str = "") -> None:
    """Raise CommandFailed for what is no platform: one word names a system or an architecture that is known."""
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(parts) or (len(parts) == 1 and parts[0] not in _SYSTEMS | _ARCHITECTURES):
        raise CommandFailed(f'{prefix}"{text}": unknown operating system or architecture: invalid argument')


def tag(client: Client, argv: list[str]) -> int:
    """``lamina tag``."""
    parser = Parser("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")
    parser.add_argument("source")
    parser.add_argument("target")
    options = parser.parse(argv)
    repository, name = split_tag(options.target)
    client.request("POST", f"/images/{quoted(options.source)}/tag", {"repo": repository, "tag": name}).read()
    return 0


def split_tag(text: str) -> tuple[str, str]:
    """Repository and tag of a name; an empty tag for none."""
    head, colon, tail = text.rpartition(":")
    return (head, tail) if colon and "/" not in tail and "@" not in text else (text, "")


def rmi(client: Client, argv: list[str]) -> int:
    """``lamina rmi``."""
    parser = Parser("rmi", "[OPTIONS] IMAGE [IMAGE...]")
    parser.flag("-f", "--force", help="Force removal of the image")
    parser.flag("--no-prune", help="Do not delete untagged parents")
    parser.values("--platform", convert=platform_json, help="Remove only the given platform variant")
    parser.add_argument("images", nargs="+")
    options = parser.parse(argv)
    query = {"force": options.force, "noprune": options.no_prune, "platforms": options.platform}
    code = 0
    for name in options.images:
        try:
            for item in client.request("DELETE", f"/images/{quoted(name)}", query).json():
                print(*(f"{key}: {value}" for key, value in item.items()), flush=True)
        except LaminaError as error:
            stderr(told(error))
            if not (options.force and isinstance(error, NotFound)):
                code = 1
    return code


def save(client: Client, argv: list[str]) -> int:
    """``lamina save``."""
    parser = Parser("save", "[OPTIONS] IMAGE [IMAGE...]")
    parser.value("-o", "--output", help="Write to a file, instead of STDOUT")
    parser.value("--platform", convert=platform_json, help="Save only the given platform variant")
    parser.add_argument("images", nargs="+")
    options = parser.parse(argv)
    check_output(options.output, "failed to save image")
    query = {"names": options.images, "platform": options.platform}
    return write_archive(client.request("GET", "/images/get", query), options.output)


def load(client: Client, argv: list[str]) -> int:
    """``lamina load``."""
    parser = Parser("load", "[OPTIONS]")
    parser.value("-i", "--input", help="Read from tar archive file, instead of STDIN")
    parser.value("--platform", convert=platform_json, help="Load only the given platform variant")
    parser.flag("-q", "--quiet", help="Suppress the load output")
    options = parser.parse(argv)
    if not options.input and sys.stdin.isatty():
        raise CommandFailed("requested load from stdin, but stdin is empty")
    with open(options.input, "rb") if options.input else sys.stdin.buffer as source:
        chunks = with_progress(iter(lambda: source.read(_READ_BYTES), b""), "loading", size_of(source))
        query = {"quiet": options.quiet, "platform": options.platform}
        response = client.request("POST", "/images/load", query, chunks=chunks)
    progress_lines(response.lines(), lambda fields: print(fields.get("stream", ""), end=""))
    return 0


def import_(client: Client, argv: list[str]) -> int:
    """``lamina import``."""
    parser = Parser("import", "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]")
    parser.values("-c", "--change", help="Apply Dockerfile instruction to the created image")
    parser.value("-m", "--message", help="Set commit message for imported image")
    parser.value("--platform", help="Set platform if server is multi-platform capable")
    parser.add_argument("source")
    parser.add_argument("name", nargs="?")
    parser.add_argument("ignored", nargs="*")  # docker takes them, too
    options = parser.parse(argv)
    if options.platform:
        check_platform(options.platform)
    details = (options.name, options.change, options.message, options.platform)
    if options.source.startswith(("http://", "https://")):
        print(import_stream(client, None, *details, source=options.source))
        return 0
    with open(options.source, "rb") if options.source != "-" else sys.stdin.buffer as source:
        chunks = with_progress(iter(lambda: source.read(_READ_BYTES), b""), "importing", size_of(source))
        print(import_stream(client, chunks, *details))
    return 0


def import_stream(
    client: Client,
    chunks: Iterable[bytes] | None,
    name: str,
    changes: list[str],
    message: str | None = None,
    platform: str | None = None,
    source: str = "-",
) -> str:
    """Import a root file system's tar, from *chunks* or from a URL that the daemon fetches; returns the image's ID."""
    repository, tag_name = split_tag(name)
    query = {
        "fromSrc": source,
        "repo": repository,
        "tag": tag_name,
        "changes": changes,
        "message": message,
        "platform": platform,
    }
    response = client.request("POST", "/images/create", query, chunks=chunks)
    result: list[str] = []
    progress_lines(response.lines(), lambda fields: result.append(str(fields.get("status", ""))))
    return result[-1]


def verify(client: Client, argv: list[str]) -> int:
    """``lamina verify``."""
    parser = Parser("verify", "IMAGE [IMAGE...]")
    parser.add_argument("images", nargs="+")
    options = parser.parse(argv)
    code = 0
    for name in options.images:
        found: list[dict[str, Any]] = []
        response = client.request("POST", f"/lamina/images/{quoted(name)}/verify")
        progress_lines(response.lines(), found.append)
        for blob in found:
            print(f"{blob['status']:8} {blob['kind']:16} {blob['digest']} {human_size(blob['size'])}")
        sound = all(blob["status"] == "ok" for blob in found)
        print(f"{name}: {'ok' if sound else 'DAMAGED'}")
        code = code if sound else 1
    return code


COMMANDS = {
    "images": images,
    "history": history,
    "tag": tag,
    "rmi": rmi,
    "save": save,
    "load": load,
    "import": import_,
    "verify": verify,
}
