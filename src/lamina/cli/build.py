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

from lamina.cli.build_output import Output, metadata, read_each, write
from lamina.cli.build_view import PlainView, build_view
from lamina.cli.grammar import Options, Parser, UsageError, whole
from lamina.cli.values import extra_host, parse_size
from lamina.client.client import Client, Response
from lamina.dockerfile.ignore import IgnoreRules
from lamina.errors import Conflict, NotFound
from lamina.oci.reference import Reference

_READ_BYTES = 1 << 20
_OUTSIDE = ".dockerfile.outside-the-context"
_IGNORE = ".dockerignore"


def build(client: Client, argv: list[str]) -> int:
    """``lamina build``."""
    options = _parser().parse(argv)
    outputs = read_each(options.output)
    options.tag = [*options.tag, *(name for output in outputs for name in output.names)]
    options.for_output = bool(outputs) and not any(output.is_image for output in outputs)
    is_busy = any(output.takes_stdout for output in outputs)
    view = build_view(options.progress, quiet=options.quiet, out=sys.stderr if is_busy else sys.stdout)
    response = _start_local(client, options, events=view.takes_events)
    if response is None:
        _refuse_local_options(options)
        view = build_view("plain", quiet=options.quiet, out=sys.stderr if is_busy else sys.stdout)
        response = _send(client, options)
    if options.check:
        answer = response.json()
        print(answer["text"])
        return 1 if answer["warnings"] else 0
    code = _show(response, view)
    if code == 0:
        _finish(client, options, outputs, view.image_id)
        if options.quiet and not is_busy:
            print(view.image_id)
    return code


def _show(response: Response, view: PlainView) -> int:
    """Show what the daemon tells until the end; returns the exit code."""
    with view:
        for line in response.lines():
            fields = json.loads(line)
            if "error" in fields:
                # the message is about the user's own Dockerfile, and the exit code that of the command that failed
                view.fail(str(fields["error"]))
                return int((fields.get("errorDetail") or {}).get("code") or 1)
            view.show(fields)
    return 0


def _finish(client: Client, options: Options, outputs: list[Output], image_id: str) -> None:
    """Write what was asked for beside the image."""
    names = [str(Reference.parse_tagged(name)) for name in options.tag]
    for output in outputs:
        write(client, output, image_id, names)
    if options.iidfile:
        Path(options.iidfile).write_text(image_id, encoding="ascii")
    if options.metadata_file:
        text = json.dumps(metadata(client, image_id, names), indent=2)
        Path(options.metadata_file).write_text(text + "\n", encoding="utf-8")


def _refuse_local_options(options: Options) -> None:
    for name in ("secret", "ssh", "check", "keep_failed", "explain", "build_context"):
        if getattr(options, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} needs a directory and a daemon on this machine")


def _start_local(client: Client, options: Options, *, events: bool) -> Response | None:
    """Let a daemon of this machine read the context where it lies; None if there is no such daemon, or no such context."""
    if options.path == "-" or _is_remote(options.path) or not (client.host or "unix:").startswith("unix:"):
        return None
    root, text, name = _local_dockerfile(options.path, options.file)
    status = root.stat()
    body = {
        "context": str(root),
        "device": status.st_dev,
        "inode": status.st_ino,
        "dockerfile": name,
        "dockerfile_text": text,
        "tags": options.tag,
        "build_args": _arguments(options.build_arg),
        "labels": dict(text.partition("=")[::2] for text in options.label),
        "targets": options.target,
        "no_cache": options.no_cache,
        "no_cache_filter": [name for text in options.no_cache_filter for name in text.split(",")],
        "network": options.network or "",
        "extra_hosts": options.add_host,
        "shm_size": options.shm_size,
        "jobs": options.jobs,
        "secrets": dict(map(_secret, options.secret)),
        "ssh": dict(map(_agent, options.ssh)),
        "quiet": options.quiet,
        "events": events,
        "check": options.check,
        "squash": options.squash,
        "for_output": options.for_output,
        "keep_failed": options.keep_failed,
        "explain": options.explain,
        "contexts": dict(map(_named_context, options.build_context)),
    }
    try:
        return client.request("POST", "/lamina/build", body=body)
    except (Conflict, NotFound):
        return None


def _send(client: Client, options: Options) -> Response:
    """Send the context as a tar, as docker does."""
    if len(options.target) > 1:
        raise UsageError("several --target need a daemon on this machine")
    remote = options.path if _is_remote(options.path) else ""
    chunks, dockerfile = (iter(()), options.file or "Dockerfile") if remote else _context(options.path, options.file)
    query = {
        "remote": remote,
        "dockerfile": dockerfile,
        "t": options.tag,
        "buildargs": json.dumps(_arguments(options.build_arg)) if options.build_arg else "",
        "labels": json.dumps(dict(text.partition("=")[::2] for text in options.label)) if options.label else "",
        "target": options.target[0] if options.target else "",
        "nocache": options.no_cache,
        "networkmode": options.network,
        "extrahosts": options.add_host,
        "pull": options.pull,
        "q": options.quiet,
        "shmsize": options.shm_size or "",
        "platform": options.platform,
        "squash": options.squash,
    }
    return client.request("POST", "/build", query, chunks=chunks)


def _is_remote(path: str) -> bool:
    """Whether a context is fetched by the daemon: a URL, or what looks like a repository and is no directory."""
    return "://" in path or (path.startswith(("git@", "github.com/")) and not os.path.exists(path))


def _local_dockerfile(path: str, dockerfile: str | None) -> tuple[Path, str | None, str]:
    """The context's directory; the Dockerfile's text if it lies elsewhere; its name. Raises UsageError."""
    if not os.path.isdir(path):
        raise UsageError(f'unable to prepare context: path "{path}" not found')
    root = Path(path).resolve()
    if dockerfile == "-":
        return root, sys.stdin.buffer.read().decode("utf-8", "surrogateescape"), "Dockerfile"
    file = _dockerfile_path(root, dockerfile)
    try:
        return root, None, str(file.resolve().relative_to(root))
    except ValueError:
        return root, file.read_bytes().decode("utf-8", "surrogateescape"), file.name


def _dockerfile_path(root: Path, dockerfile: str | None) -> Path:
    file = Path(dockerfile) if dockerfile else root / "Dockerfile"
    if not dockerfile and not file.exists() and (root / "dockerfile").exists():
        file = root / "dockerfile"
    if not file.exists():
        raise UsageError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {file}: no such file"
        )
    return file


def _secret(text: str) -> tuple[str, str]:
    """``id=NAME[,src=FILE|env=VARIABLE]`` as (ID, value in base64). Raises UsageError."""
    import base64

    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name = fields.get("id") or fields.get("src", "")
    source, variable = fields.get("src") or fields.get("source"), fields.get("env")
    try:
        value = Path(source).read_bytes() if source else os.environb[os.fsencode(variable or name)]
    except (OSError, KeyError) as error:
        raise UsageError(f"failed to read secret {name}: {error}") from None
    return name, base64.b64encode(value).decode("ascii")


def _named_context(text: str) -> tuple[str, dict[str, Any]]:
    """``NAME=DIR``, or what else a context can be. Raises UsageError."""
    name, equals, source = text.partition("=")
    if not equals or not name or not source:
        raise UsageError(f"invalid context value: {text}, expected key=value")
    if "://" in source or _is_remote(source):
        return name, {"source": source}
    if not os.path.isdir(source):
        raise UsageError(f'failed to get build context {name}: path "{source}" not found')
    root = Path(source).resolve()
    status = root.stat()
    return name, {"source": str(root), "device": status.st_dev, "inode": status.st_ino}


def _agent(text: str) -> tuple[str, str]:
    """``default`` or ``NAME=SOCKET`` as (ID, path of the agent's socket). Raises UsageError."""
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise UsageError("--ssh: no agent's socket was given and SSH_AUTH_SOCK is not set")
    return name, os.path.abspath(path)


def _parser() -> Parser:
    parser = Parser("build", "[OPTIONS] PATH | -")
    parser.values("--add-host", convert=extra_host, help="Add a custom host-to-IP mapping (host:ip)")
    parser.values("--build-arg", help="Set build-time variables")
    parser.values("--build-context", help="Additional build context: NAME=DIR, NAME=URL or NAME=image://REFERENCE")
    parser.flag("--check", help="Say what lint finds in the Dockerfile, and build nothing")
    parser.flag("--explain", help="Tell why each step is carried out: what changed since the last build")
    parser.value("-f", "--file", help='Name of the Dockerfile (default "PATH/Dockerfile")')
    parser.flag("--force-rm", help="Always remove intermediate containers")
    parser.value("--iidfile", help="Write the image ID to a file")
    parser.value("--jobs", default=4, convert=whole, metavar="int", help="How many steps run at once (default 4)")
    parser.flag("--keep-failed", help="Keep the state that a failing RUN leaves as an image")
    parser.values("--label", help="Set metadata for an image")
    parser.value("--metadata-file", help="Write what was built to a file, as JSON")
    parser.value("--network", help="Networking mode for the RUN instructions")
    parser.flag("--no-cache", help="Do not use cache when building the image")
    parser.values("--no-cache-filter", help="Do not cache the stages of these names")
    parser.values("-o", "--output", help='Where what was built goes (format: "type=local,dest=path"; or a directory)')
    parser.value("--platform", help="Set platform if server is multi-platform capable")
    parser.value("--progress", default="auto", help="auto, tty, plain or rawjson")
    parser.flag("--pull", help="Always attempt to pull a newer version of the image")
    parser.flag("-q", "--quiet", help="Suppress the build output and print the image ID on success")
    parser.flag("--rm", default=True, help="Remove intermediate containers after a successful build (default true)")
    parser.values("--secret", help="Secret to expose to the build: id=NAME[,src=FILE|env=VARIABLE]")
    parser.value("--shm-size", default=0, convert=parse_size, metavar="bytes", help="Size of /dev/shm")
    parser.flag("--squash", help="Make one layer of all that the build put on its base")
    parser.values("--ssh", help="SSH agent to expose to the build: default or NAME=SOCKET")
    parser.values("-t", "--tag", help='Name and optionally a tag (in the form "name:tag")')
    parser.values("--target", help="Stage to build; several are built at once")
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
    file = _dockerfile_path(root, dockerfile)
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
