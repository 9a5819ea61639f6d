"""``build``: the context becomes a tar on its way to the daemon."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.cli.grammar import Parser, UsageError
from lamina.cli.run import parse_size
from lamina.client.client import Client
from lamina.dockerfile.ignore import IgnoreRules

_READ_BYTES = 1 << 20
_OUTSIDE = ".dockerfile.outside-the-context"
_IGNORE = ".dockerignore"


def build(client: Client, argv: list[str]) -> int:
    """``lamina build``."""
    options = _parser().parse(argv)
    chunks, dockerfile = _context(options.path, options.file)
    query = {
        "dockerfile": dockerfile,
        "t": options.tag,
        "buildargs": json.dumps(_arguments(options.build_arg)) if options.build_arg else "",
        "labels": json.dumps(dict(text.partition("=")[::2] for text in options.label)) if options.label else "",
        "target": options.target,
        "nocache": options.no_cache,
        "networkmode": options.network,
        "extrahosts": options.add_host,
        "pull": options.pull,
        "q": options.quiet,
        "shmsize": parse_size(options.shm_size) if options.shm_size else "",
        "platform": options.platform,
    }
    response = client.request("POST", "/build", query, chunks=chunks)
    image_id = ""
    for line in response.lines():
        fields = json.loads(line)
        if "error" in fields:
            # the message is about the user's own Dockerfile, and the exit code that of the command that failed
            print(fields["error"], file=sys.stderr)
            return int((fields.get("errorDetail") or {}).get("code") or 1)
        image_id = str((fields.get("aux") or {}).get("ID") or image_id)
        if options.quiet:
            image_id = fields.get("stream", "").strip() or image_id
            continue
        sys.stdout.write(fields.get("stream", ""))
        sys.stdout.flush()
    if options.iidfile:
        Path(options.iidfile).write_text(image_id, encoding="ascii")
    if options.quiet:
        print(image_id)
    return 0


def _parser() -> Parser:
    parser = Parser("build", "[OPTIONS] PATH | -", "Build an image from a Dockerfile")
    for name in ("target", "iidfile", "network", "shm-size", "platform"):
        parser.value(f"--{name}")
    parser.value("-f", "--file")
    parser.values("-t", "--tag")
    for name in ("build-arg", "label", "add-host"):
        parser.values(f"--{name}")
    for name in ("no-cache", "pull", "rm", "force-rm"):
        parser.flag(f"--{name}")
    parser.flag("-q", "--quiet")
    parser.add_argument("path")
    return parser


def _context(path: str, dockerfile: str | None) -> tuple[Iterator[bytes], str]:
    """The context's tar in pieces, and the Dockerfile's name in it."""
    if path == "-":
        return _from_stdin(dockerfile)
    if not os.path.isdir(path):
        raise UsageError(f'unable to prepare context: path "{path}" not found')
    root = Path(path)
    if dockerfile == "-":
        return _tar(root, sys.stdin.buffer.read()), _OUTSIDE
    file = Path(dockerfile) if dockerfile else root / "Dockerfile"
    if not dockerfile and not file.exists() and (root / "dockerfile").exists():
        file = root / "dockerfile"
    if not file.exists():
        raise UsageError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {file}: no such file"
        )
    try:
        return _tar(root, None), str(file.resolve().relative_to(root.resolve()))
    except ValueError:
        return _tar(root, file.read_bytes()), _OUTSIDE


def _from_stdin(dockerfile: str | None) -> tuple[Iterator[bytes], str]:
    """Standard input is a context's tar, or a Dockerfile alone."""
    head = sys.stdin.buffer.read(512)
    is_tar = (
        head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd" or head[:3] == b"BZh"
    )
    if is_tar or head[:6] == b"\xfd7zXZ\x00":
        return _prefixed(head), dockerfile or "Dockerfile"
    text = head + sys.stdin.buffer.read()
    return iter([_single_file(_OUTSIDE, text)]), _OUTSIDE


def _prefixed(head: bytes) -> Iterator[bytes]:
    yield head
    yield from iter(lambda: sys.stdin.buffer.read(_READ_BYTES), b"")


def _single_file(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add_bytes(archive, name, data)
    return buffer.getvalue()


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(data), 0o600
    archive.addfile(header, io.BytesIO(data))


class _Sink(io.RawIOBase):
    """Collects what the tar writer writes, to be sent on."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)


def _tar(root: Path, outside_dockerfile: bytes | None) -> Iterator[bytes]:
    """The directory's tar, .dockerignore applied; owners are root's, as docker sends them.

    A Dockerfile from elsewhere comes along under a name that the .dockerignore is made to leave out.
    """
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_READ_BYTES) as archive:
        for path, name in _files(root):
            if outside_dockerfile is not None and name == _IGNORE:
                continue
            header = archive.gettarinfo(str(path), name)
            if header is None:  # a socket
                continue
            header.uid = header.gid = 0
            header.uname = header.gname = ""
            if header.isreg():
                with open(path, "rb") as file:
                    archive.addfile(header, file)
            else:
                archive.addfile(header)
            yield from sink.pieces
            sink.pieces.clear()
        if outside_dockerfile is not None:
            ignore = root / _IGNORE
            rules = ignore.read_bytes() if ignore.is_file() else _IGNORE.encode()
            _add_bytes(archive, _IGNORE, rules + f"\n{_OUTSIDE}\n".encode())
            _add_bytes(archive, _OUTSIDE, outside_dockerfile)
    yield from sink.pieces


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """(path, name in the context) of everything that .dockerignore leaves in, parents first, in order."""
    ignore = root / _IGNORE
    rules = (
        IgnoreRules.parse(ignore.read_text(encoding="utf-8", errors="replace")) if ignore.is_file() else IgnoreRules(())
    )
    for directory, names, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        prefix = "" if relative == "." else relative + "/"
        names.sort()
        links = [n for n in names if os.path.islink(os.path.join(directory, n))]
        for name in sorted([*files, *links]):
            always = not prefix and (name == _IGNORE or name.lower().endswith("dockerfile"))
            if always or not rules.excludes(prefix + name):
                yield Path(directory, name), prefix + name
        names[:] = [n for n in names if n not in links]
        kept = []
        for name in names:
            excluded = bool(rules) and rules.excludes(prefix + name)
            if not excluded:
                yield Path(directory, name), prefix + name
            if not excluded or rules.may_contain_included(prefix + name):
                kept.append(name)
        names[:] = kept


def _arguments(texts: list[str]) -> dict[str, str]:
    """``--build-arg``s; one without a value takes the environment's."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals or name in os.environ:
            pairs[name] = value if equals else os.environ[name]
    return pairs


COMMANDS = {"build": build}
