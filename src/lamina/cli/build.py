"""``build``: what the command asks for, said to a daemon in lamina's words, or in docker's if it is docker's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.api.builds import FRAMED
from lamina.cli.build_cache import read_cache
from lamina.cli.build_context import Context, is_remote, read_context
from lamina.cli.build_output import Output, metadata, read_each, write
from lamina.cli.build_view import PlainView, build_view
from lamina.cli.grammar import HIDDEN, Options, Parser, UsageError, whole
from lamina.cli.values import extra_host, parse_size, ulimit
from lamina.client.client import Client, Response
from lamina.errors import Conflict, NotFound
from lamina.oci.reference import Reference

_OWN = (
    "cache_to",
    "push",
    "secret",
    "ssh",
    "check",
    "keep_failed",
    "explain",
    "build_context",
    "allow",
    "timestamp",
    "no_cache_filter",
)
"""What docker's own request has no words for."""
_EPOCH = "SOURCE_DATE_EPOCH"
_NO_CONTEXTS = ("oci-layout://", "target:")
"""Named contexts that buildx has: an image in a directory, and another target of a bake file."""


def build(client: Client, argv: list[str]) -> int:
    """``lamina build``."""
    options = _parser().parse(argv)
    options.cache_from = _read_cache(options.cache_from, "from")
    options.cache_to = _read_cache(options.cache_to, "to")
    outputs = read_each(options.output)
    options.tag = [*options.tag, *(name for output in outputs for name in output.names)]
    options.for_output = bool(outputs) and not any(output.is_image for output in outputs)
    options.push = options.push or any(output.push for output in outputs)
    if options.push and not options.tag:
        raise UsageError("tag is needed when pushing to registry")
    is_busy = any(output.takes_stdout for output in outputs)
    view = build_view(options.progress, quiet=options.quiet, out=sys.stderr if is_busy else sys.stdout)
    context = read_context(options.path, options.file)
    response = _start(client, options, context, events=view.takes_events)
    if response is None:
        view = build_view("plain", quiet=options.quiet, out=sys.stderr if is_busy else sys.stdout)
        response = _start_classic(client, options, context)
    if options.check:
        answer = response.json()
        print(answer["text"])
        return 1 if answer["warnings"] else 0
    code = _show(response, view)
    if code == 0:
        _finish(client, options, outputs, view)
        if options.quiet and not is_busy:
            print(view.image_id)
    return code


def _read_cache(texts: list[str], name: str) -> list[dict[str, str]]:
    try:
        return read_cache(texts)
    except ValueError as error:
        raise UsageError(f'invalid argument for "--cache-{name}" flag: {error}') from None


def _show(response: Response, view: PlainView) -> int:
    """Show what the daemon tells until the end; returns the exit code."""
    with view:
        for line in response.lines():
            fields = json.loads(line)
            if "error" in fields:
                # the message is about the user's own Dockerfile, and the exit code that of the command that failed
                detail = fields.get("errorDetail") or {}
                source = f"{detail['source']}\n" if detail.get("source") else ""
                view.fail(f"{source}{fields['error']}")
                return int(detail.get("code") or 1)
            view.show(fields)
    return 0


def _finish(client: Client, options: Options, outputs: list[Output], view: PlainView) -> None:
    """Write what was asked for beside the image."""
    image_id = view.image_id
    names = [str(Reference.parse_tagged(name)) for name in options.tag]
    for output in outputs:
        write(client, output, image_id, names)
    if options.iidfile:
        Path(options.iidfile).write_text(image_id, encoding="ascii")
    if options.metadata_file:
        text = json.dumps(metadata(client, image_id, names, view.digest), indent=2)
        Path(options.metadata_file).write_text(text + "\n", encoding="utf-8")


def _start(client: Client, options: Options, context: Context, *, events: bool) -> Response | None:
    """Ask a daemon that is lamina's; None if it is not. One of this machine reads a directory where it lies."""
    if not _is_here(client):
        _refuse_elsewhere(options)
    body = _body(options, context, events=events)
    try:
        if context.directory is not None and _is_here(client):
            try:
                status = context.directory.stat()
                place = {"context": str(context.directory), "device": status.st_dev, "inode": status.st_ino}
                return client.request("POST", "/lamina/build", body=body | place)
            except Conflict:
                pass  # the daemon's files are others, as in a container of its own
        if context.directory is None and context.tar is None:
            return client.request("POST", "/lamina/build", body=body)
        if not _is_lamina(client):  # standard input is not to be read twice
            return None
        return client.request("POST", "/lamina/build", chunks=_framed(body, context), content_type=FRAMED)
    except NotFound:
        return None


def _auths(options: Options, context: Context) -> dict[str, dict[str, str]]:
    """The credentials for the registries that the build may ask: those that are named, also in the Dockerfile, and all that are on file."""
    from lamina.cli.build_images import registries_of
    from lamina.client.credentials import auths

    caches = [fields["ref"] for fields in (*options.cache_from, *options.cache_to) if fields.get("ref")]
    names = [*caches, *(options.tag if options.push else [])]
    domains = registries_of(context.dockerfile_bytes(), _arguments(options.build_arg))
    return auths(domains | {Reference.parse_tagged(name).domain for name in names})


def _framed(body: dict[str, Any], context: Context) -> Iterator[bytes]:
    yield json.dumps(body).encode() + b"\n"
    yield from context.files()


def _is_here(client: Client) -> bool:
    return (client.host or "unix:").startswith("unix:")


def _is_lamina(client: Client) -> bool:
    platform = client.request("GET", "/version").json().get("Platform") or {}
    return bool(platform.get("Name") == "lamina")


def _refuse_elsewhere(options: Options) -> None:
    """What lies on this machine cannot be asked of a daemon on another. Raises UsageError."""
    for name, places in (("from", options.cache_from), ("to", options.cache_to)):
        if any(fields.get("type") == "local" for fields in places):
            raise UsageError(f"--cache-{name} type=local needs a daemon on this machine")
    if options.ssh:
        raise UsageError("--ssh needs a daemon on this machine")


def _body(options: Options, context: Context, *, events: bool) -> dict[str, Any]:
    return {
        **context.fields(),
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
        "platform": options.platform or "",
        "allow": [name for text in options.allow for name in text.split(",")],
        "epoch": options.timestamp or "",
        "cache_from": options.cache_from,
        "cache_to": options.cache_to,
        "auths": _auths(options, context),
        "push": options.push,
        "pull": options.pull,
        "limits": {
            "memory": options.memory,
            "memory_swap": options.memory_swap,
            "cpu_shares": options.cpu_shares,
            "cpu_period": options.cpu_period,
            "cpu_quota": options.cpu_quota,
            "cpuset_cpus": options.cpuset_cpus or "",
            "cpuset_mems": options.cpuset_mems or "",
            "ulimits": options.ulimit,
            "cgroup_parent": options.cgroup_parent or "",
            "security_opt": options.security_opt,
        },
    }


def _start_classic(client: Client, options: Options, context: Context) -> Response:
    """Ask as docker's own command line does. Raises UsageError for what that has no words for."""
    for name in _OWN:
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} needs a daemon of lamina's")
    if len(options.target) > 1:
        raise UsageError("several --target need a daemon of lamina's")
    dockerfile, chunks = context.classic()
    query = {
        "remote": context.remote,
        "dockerfile": dockerfile,
        "t": options.tag,
        "buildargs": json.dumps(_arguments(options.build_arg)),
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
        "memory": options.memory or "",
        "memswap": options.memory_swap or "",
        "cpushares": options.cpu_shares or "",
        "cpuperiod": options.cpu_period or "",
        "cpuquota": options.cpu_quota or "",
        "cpusetcpus": options.cpuset_cpus,
        "cpusetmems": options.cpuset_mems,
        "ulimits": json.dumps(options.ulimit) if options.ulimit else "",
        "cgroupparent": options.cgroup_parent,
        "securityopt": options.security_opt,
        "cachefrom": json.dumps([fields.get("ref", "") for fields in options.cache_from]) if options.cache_from else "",
    }
    return client.request("POST", "/build", query, chunks=chunks)


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
    for kind in _NO_CONTEXTS:
        if source.startswith(kind):
            raise UsageError(f"build context {name}: {kind} is not supported by lamina")
    if is_remote(source):
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


def _nothing_attested(text: str) -> str:
    """Attestations are not made; scripts often say that they want none. Raises ValueError."""
    if text.lower() not in ("false", "0", "disabled", ""):
        raise ValueError("attestations are not supported by lamina")
    return text


def _parser() -> Parser:
    parser = Parser("build", "[OPTIONS] PATH | -")
    parser.values("--add-host", convert=extra_host, help="Add a custom host-to-IP mapping (host:ip)")
    parser.values("--allow", help="Allow a right that the Dockerfile asks for: network.host or security.insecure")
    parser.values("--build-arg", help="Set build-time variables")
    parser.values("--build-context", help="Additional build context: NAME=DIR, NAME=URL or NAME=image://REFERENCE")
    parser.values("--cache-from", help='Where cached steps are found: an image, or "type=local,src=path"')
    parser.values(
        "--cache-to", help='Where cached steps go: "type=registry,ref=name", "type=local,dest=path", "type=inline"'
    )
    parser.value("--cgroup-parent", help="Set the parent cgroup for the RUN instructions")
    parser.flag("--check", help="Say what lint finds in the Dockerfile, and build nothing")
    parser.flag("--compress", help=HIDDEN)  # a daemon of this machine is sent nothing
    parser.value(
        "--cpu-period", default=0, convert=whole, metavar="int", help="Limit the CPU CFS period (microseconds)"
    )
    parser.value("--cpu-quota", default=0, convert=whole, metavar="int", help="Limit the CPU CFS quota (microseconds)")
    parser.value("-c", "--cpu-shares", default=0, convert=whole, metavar="int", help="CPU shares (relative weight)")
    parser.value("--cpuset-cpus", help="CPUs in which to allow execution (0-3, 0,1)")
    parser.value("--cpuset-mems", help="MEMs in which to allow execution (0-3, 0,1)")
    parser.flag("--explain", help="Tell why each step is carried out: what changed since the last build")
    parser.value("-f", "--file", help='Name of the Dockerfile (default "PATH/Dockerfile")')
    parser.flag("--force-rm", help="Always remove intermediate containers")
    parser.value("--iidfile", help="Write the image ID to a file")
    parser.value("--jobs", default=4, convert=whole, metavar="int", help="How many steps run at once (default 4)")
    parser.flag("--keep-failed", help="Keep the state that a failing RUN leaves as an image")
    parser.values("--label", help="Set metadata for an image")
    parser.value("-m", "--memory", default=0, convert=parse_size, metavar="bytes", help="Memory limit")
    parser.value(
        "--memory-swap",
        default=0,
        convert=parse_size,
        metavar="bytes",
        help="Swap limit equal to memory plus swap: -1 to enable unlimited swap",
    )
    parser.flag("--load", help=HIDDEN)  # BuildKit's word for what is done in any case
    parser.value("--provenance", convert=_nothing_attested, help=HIDDEN)
    parser.value("--sbom", convert=_nothing_attested, help=HIDDEN)
    parser.value("--metadata-file", help="Write what was built to a file, as JSON")
    parser.value("--network", help="Networking mode for the RUN instructions")
    parser.flag("--no-cache", help="Do not use cache when building the image")
    parser.values("--no-cache-filter", help="Do not cache the stages of these names")
    parser.values("-o", "--output", help='Where what was built goes (format: "type=local,dest=path"; or a directory)')
    parser.value("--platform", help="Set platform if server is multi-platform capable")
    parser.value("--progress", default="auto", help="auto, tty, plain or rawjson")
    parser.flag("--pull", help="Always attempt to pull a newer version of the image")
    parser.flag("--push", help="Send the image to the registries of its tags")
    parser.flag("-q", "--quiet", help="Suppress the build output and print the image ID on success")
    parser.flag("--rm", default=True, help="Remove intermediate containers after a successful build (default true)")
    parser.values("--secret", help="Secret to expose to the build: id=NAME[,src=FILE|env=VARIABLE]")
    parser.values("--security-opt", help="Security options of the RUN instructions")
    parser.value("--shm-size", default=0, convert=parse_size, metavar="bytes", help="Size of /dev/shm")
    parser.flag("--squash", help="Make one layer of all that the build put on its base")
    parser.values("--ssh", help="SSH agent to expose to the build: default or NAME=SOCKET")
    parser.values("-t", "--tag", help='Name and optionally a tag (in the form "name:tag")')
    parser.value("--timestamp", help="The time of the image and the latest of its files (SOURCE_DATE_EPOCH)")
    parser.values("--ulimit", convert=ulimit, metavar="ulimit", help="Ulimit options")
    parser.values("--target", help="Stage to build; several are built at once")
    parser.add_argument("path")
    return parser


def _arguments(texts: list[str]) -> dict[str, str]:
    """``--build-arg``s; one without a value takes the environment's. SOURCE_DATE_EPOCH is always taken from there."""
    pairs = {_EPOCH: os.environ[_EPOCH]} if os.environ.get(_EPOCH) else {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals or name in os.environ:
            pairs[name] = value if equals else os.environ[name]
    return pairs


COMMANDS = {"build": build}
