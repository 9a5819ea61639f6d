"""Commands about images."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from lamina.cli.grammar import Parser, UsageError
from lamina.cli.output import human_ago, human_size, print_rows, progress_lines, short_id
from lamina.client.client import Client, Response, filters_json, quoted
from lamina.errors import LaminaError

_READ_BYTES = 1 << 20
_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)
_HISTORY = (
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
)


def images(client: Client, argv: list[str]) -> int:
    """``lamina images``."""
    parser = Parser("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images")
    parser.flag("-a", "--all")
    parser.flag("-q", "--quiet")
    parser.flag("--no-trunc")
    parser.flag("--digests")
    parser.value("--format")
    parser.values("-f", "--filter")
    parser.add_argument("repository", nargs="?")
    options = parser.parse(argv)
    filters = [*options.filter, *([f"reference={options.repository}"] if options.repository else [])]
    found = client.request("GET", "/images/json", {"all": options.all, "filters": filters_json(filters)}).json()
    rows = [row for item in found for row in _rows(item, full=options.no_trunc)]
    columns = (*_COLUMNS[:2], ("DIGEST", "Digest"), *_COLUMNS[2:]) if options.digests else _COLUMNS
    print_rows(rows, columns, format_=options.format, quiet_field="ID" if options.quiet else None)
    return 0


def _rows(item: dict[str, Any], *, full: bool) -> Iterator[dict[str, Any]]:
    digests = dict(text.split("@", 1) for text in item.get("RepoDigests") or [])
    for name in item["RepoTags"] or ["<none>:<none>"]:
        repository, _, tag = name.rpartition(":")
        yield {
            "ID": item["Id"] if full else short_id(item["Id"]),
            "Repository": repository,
            "Tag": tag,
            "Digest": digests.get(repository, "<none>"),
            "CreatedSince": human_ago(item["Created"]),
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(item["Created"])),
            "Size": human_size(item["Size"]),
            "VirtualSize": human_size(item["Size"]),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": "N/A",
        }


def history(client: Client, argv: list[str]) -> int:
    """``lamina history``."""
    parser = Parser("history", "[OPTIONS] IMAGE", "Show the history of an image")
    parser.flag("-q", "--quiet")
    parser.flag("--no-trunc")
    parser.flag("-H", "--human")
    parser.value("--format")
    parser.add_argument("image")
    options = parser.parse(argv)
    rows = []
    for item in client.request("GET", f"/images/{quoted(options.image)}/history").json():
        by = item["CreatedBy"].replace("\t", " ")
        rows.append(
            {
                "ID": item["Id"] if options.no_trunc else short_id(item["Id"]),
                "CreatedSince": human_ago(item["Created"]) if item["Created"] > 0 else "N/A",
                "CreatedAt": str(item["Created"]),
                "CreatedBy": by if options.no_trunc or len(by) <= 45 else by[:44] + "…",
                "Size": human_size(item["Size"]),
                "Comment": item["Comment"],
            }
        )
    print_rows(rows, _HISTORY, format_=options.format, quiet_field="ID" if options.quiet else None)
    return 0


def tag(client: Client, argv: list[str]) -> int:
    """``lamina tag``."""
    parser = Parser(
        "tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"
    )
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
    parser = Parser("rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images")
    parser.flag("-f", "--force")
    parser.flag("--no-prune")
    parser.add_argument("images", nargs="+")
    options = parser.parse(argv)
    code = 0
    for name in options.images:
        try:
            query = {"force": options.force, "noprune": options.no_prune}
            for item in client.request("DELETE", f"/images/{quoted(name)}", query).json():
                print(*(f"{key}: {value}" for key, value in item.items()))
        except LaminaError as error:
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            code = 0 if options.force and type(error).__name__ == "NotFound" else 1
    return code


def save(client: Client, argv: list[str]) -> int:
    """``lamina save``."""
    parser = Parser(
        "save", "[OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)"
    )
    parser.value("-o", "--output")
    parser.add_argument("images", nargs="+")
    options = parser.parse(argv)
    if not options.output and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    return write_archive(client.request("GET", "/images/get", {"names": options.images}), options.output)


def write_archive(response: Response, output: str | None) -> int:
    """Write a body to a file, which appears when it is whole, or to standard output."""
    if not output:
        for chunk in response:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return 0
    temporary = f"{output}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            for chunk in response:
                file.write(chunk)
        os.replace(temporary, output)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return 0


def load(client: Client, argv: list[str]) -> int:
    """``lamina load``."""
    parser = Parser("load", "[OPTIONS]", "Load an image from a tar archive or STDIN")
    parser.value("-i", "--input")
    parser.flag("-q", "--quiet")
    options = parser.parse(argv)
    if not options.input and sys.stdin.isatty():
        raise UsageError("requested load from stdin, but stdin is empty")
    with open(options.input, "rb") if options.input else sys.stdin.buffer as source:
        chunks = with_progress(iter(lambda: source.read(_READ_BYTES), b""), "loading", _size_of(source))
        response = client.request("POST", "/images/load", {"quiet": options.quiet}, chunks=chunks)
    progress_lines(response.lines(), lambda fields: print(fields.get("stream", ""), end=""))
    return 0


def import_(client: Client, argv: list[str]) -> int:
    """``lamina import``."""
    parser = Parser(
        "import",
        "[OPTIONS] file|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
    )
    parser.values("-c", "--change")
    parser.value("-m", "--message")
    parser.value("--platform")
    parser.add_argument("source")
    parser.add_argument("name", nargs="?", default="")
    options = parser.parse(argv)
    with open(options.source, "rb") if options.source != "-" else sys.stdin.buffer as source:
        chunks = with_progress(iter(lambda: source.read(_READ_BYTES), b""), "importing", _size_of(source))
        print(import_stream(client, chunks, options.name, options.change, options.message, options.platform))
    return 0


def import_stream(
    client: Client,
    chunks: Iterator[bytes],
    name: str,
    changes: list[str],
    message: str | None = None,
    platform: str | None = None,
) -> str:
    """Import a root file system's tar; returns the image's ID."""
    repository, tag_name = split_tag(name)
    query = {
        "fromSrc": "-",
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


def with_progress(chunks: Iterator[bytes], what: str, total: int | None) -> Iterator[bytes]:
    """The same chunks, with a bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))


def _size_of(source: Any) -> int | None:
    import stat

    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def verify(client: Client, argv: list[str]) -> int:
    """``lamina verify``."""
    parser = Parser("verify", "IMAGE [IMAGE...]", "Hash every blob of images again and compare")
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


def image_prune(client: Client, argv: list[str]) -> int:
    """``lamina image prune``."""
    parser = Parser("image prune", "[OPTIONS]", "Remove unused images")
    parser.flag("-a", "--all")
    parser.flag("-f", "--force")
    parser.values("--filter")
    options = parser.parse(argv)
    from lamina.cli.containers import confirmed

    what = "all images without at least one container associated to them" if options.all else "all dangling images"
    if not options.force and not confirmed(f"WARNING! This will remove {what}."):
        return 0
    filters = [*options.filter, f"dangling={'false' if options.all else 'true'}"]
    result = client.request("POST", "/images/prune", {"filters": filters_json(filters)}).json()
    for item in result["ImagesDeleted"] or []:
        print(*(f"{key.lower()}: {value}" for key, value in item.items()))
    print(f"Total reclaimed space: {human_size(result['SpaceReclaimed'])}")
    return 0


COMMANDS = {
    "images": images,
    "history": history,
    "tag": tag,
    "rmi": rmi,
    "save": save,
    "load": load,
    "import": import_,
    "verify": verify,
    "image-prune": image_prune,
}
