"""The classic build (Engine API, "Build an image")."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from lamina.api.errors import error_body
from lamina.api.filters import Filters
from lamina.build import kept
from lamina.build.builder import PreparedBuild
from lamina.build.errors import CommandFailed
from lamina.build.flatten import root_tar
from lamina.build.kept import PruneRequest
from lamina.build.request import BuildRequest, LocalContext
from lamina.container.times import parse_moment
from lamina.daemon.http import Request, Response, StreamingResponse, json_response
from lamina.daemon.http.connection import ClientGone
from lamina.daemon.http.message import InvalidRequest, encode_json
from lamina.daemon.render.builds import EventStream, Transcript
from lamina.daemon.router import Route
from lamina.dockerfile.lint import render_check
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import LaminaError, Unavailable, Unsupported
from lamina.oci.digest import ImageID
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

_log = logging.getLogger(__name__)
_NOTHING = ("", "0", "null", "[]", "{}", "false", "no", "none")
_SHM_BYTES = 64 << 20
_NETWORKS = {"": "bridge", "default": "bridge", "bridge": "bridge", "host": "host", "none": "none"}
_UNSUPPORTED = ("outputs", "memory", "memswap", "cpushares", "cpusetcpus", "cpusetmems", "cpuperiod",
                "cpuquota", "ulimits", "cgroupparent", "securityopt", "pull", "cachefrom")  # fmt: skip


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Builds(engine)
    return [
        Route("POST", "/build", resource.build),
        Route("POST", "/build/prune", resource.prune),
        Route("POST", "/lamina/build", resource.build_local),
        Route("GET", "/lamina/images/{name:path}/root", resource.root),
    ]


class _NamedContext(msgspec.Struct):
    """``--build-context``: a directory of this machine with its device and inode, or a text that says what else."""

    source: str
    device: int = 0
    inode: int = 0

    @property
    def meaning(self) -> LocalContext | str:
        """As the builder takes it."""
        is_directory = self.source.startswith("/") and "\0" not in self.source
        return LocalContext(Path(self.source), (self.device, self.inode)) if is_directory else self.source


class _LocalBuild(msgspec.Struct):
    """``POST /lamina/build``: a build whose context is a directory of the daemon's machine, read where it lies.

    *device* and *inode* are those of the directory as the client sees it. *secrets* are base64 by ID, *ssh* paths of agents' sockets.
    With *check* nothing is built and the answer is what lint has to say; with *events* it is one JSON object an event instead of the
    classic texts.
    """

    context: str
    device: int
    inode: int
    dockerfile: str = "Dockerfile"
    dockerfile_text: str | None = None
    tags: list[str] = []
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    targets: list[str] = []
    no_cache: bool = False
    no_cache_filter: list[str] = []
    network: str = ""
    extra_hosts: list[str] = []
    shm_size: int = 0
    jobs: int = 4
    secrets: dict[str, bytes] = {}
    ssh: dict[str, str] = {}
    quiet: bool = False
    events: bool = False
    check: bool = False
    squash: bool = False
    for_output: bool = False
    keep_failed: bool = False
    explain: bool = False
    contexts: dict[str, _NamedContext] = {}


class _Builds:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def build(self, request: Request) -> StreamingResponse:
        """What is wrong before the first step is told by the status, what is wrong later in the stream."""
        wanted = _read_request(request)
        remote = request.query("remote")
        builder = self._engine.builder
        preparing = builder.prepare_remote(wanted, remote) if remote else builder.prepare(wanted, aiter(request.body))
        return await self._start(request, wanted, preparing, Transcript(quiet=request.flag("q")))

    async def build_local(self, request: Request) -> Response | StreamingResponse:
        """As ``build``, of a directory of this machine."""
        body = await request.json(_LocalBuild)
        wanted, local = _read_local(body)
        preparing = self._engine.builder.prepare_local(wanted, local)
        if body.check:
            async with preparing as prepared:
                warnings = await prepared.check()
            return json_response({"warnings": len(warnings), "text": render_check(warnings)})
        teller = EventStream() if body.events else Transcript(quiet=body.quiet)
        return await self._start(request, wanted, preparing, teller)

    async def prune(self, request: Request) -> Response:
        """Remove what builds keep for later ones."""
        pruned = await self._engine.builder.prune(_read_prune(request))
        for image_id in pruned.images:
            self._engine.events.publish(Event("image", "delete", image_id, {"name": image_id}))
        self._engine.events.publish(Event("builder", "prune", "", {"reclaimed": str(pruned.freed_bytes)}))
        return json_response({"CachesDeleted": list(pruned.ids) or None, "SpaceReclaimed": pruned.freed_bytes})

    async def root(self, request: Request) -> StreamingResponse:
        """The files of an image as a tar."""
        image = self._engine.images.find(request.path_params["name"])
        return StreamingResponse(root_tar(image.config.diff_ids, self._engine.intake), "application/x-tar")

    async def _start(
        self,
        request: Request,
        wanted: BuildRequest,
        preparing: AbstractAsyncContextManager[PreparedBuild],
        teller: Transcript | EventStream,
    ) -> StreamingResponse:
        async with AsyncExitStack() as stack:
            prepared = await stack.enter_async_context(preparing)
            received = stack.pop_all()
            return StreamingResponse(_Receiving(self._progress(request, wanted, prepared, teller), received))
        raise AssertionError("unreachable")

    async def _progress(
        self, request: Request, wanted: BuildRequest, prepared: PreparedBuild, teller: Transcript | EventStream
    ) -> AsyncGenerator[bytes, None]:
        """The progress lines as they come; if the client goes away, the build ends."""
        work = asyncio.ensure_future(self._engine.builder.track(_told(prepared, teller)))
        work.add_done_callback(lambda _: teller.end())
        gone = asyncio.ensure_future(request.disconnected.wait())
        gone.add_done_callback(lambda _: teller.end())
        try:
            async for fields in teller:
                yield _line(fields)
            if not work.done():
                raise ClientGone("the client of a build went away")
            for line in self._outcome(work, wanted, teller):
                yield line
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.wait((work,))

    def _outcome(
        self, work: asyncio.Future[list[ImageID]], wanted: BuildRequest, teller: Transcript | EventStream
    ) -> list[bytes]:
        error = CancelledBuild() if work.cancelled() else work.exception()
        if error is not None:
            if not isinstance(error, LaminaError):
                _log.error("build failed", exc_info=error)
            body = error_body(error)
            code = {"code": error.code} if isinstance(error, CommandFailed) else {}
            failure = {"errorDetail": {**code, **body}, "error": body["message"]}
            return [_line(fields) for fields in (*teller.withheld(), failure)]
        images = work.result()
        for image_id in images:
            self._engine.events.publish(Event("image", "build", image_id, {"name": image_id}))
        return [_line(fields) for fields in teller.conclusion(images, [name.familiar for name in wanted.tags])]


class CancelledBuild(Unavailable):
    """The daemon is ending."""

    def __init__(self) -> None:
        super().__init__("the build was cancelled: the daemon is shutting down")


class _Receiving:
    """A stream that holds what was received for it, and lets go of it also when nobody ever read from it."""

    def __init__(self, lines: AsyncGenerator[bytes, None], received: AsyncExitStack) -> None:
        self._lines = lines
        self._received = received

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._lines

    async def aclose(self) -> None:
        """End the build, then remove its context."""
        await self._lines.aclose()
        await self._received.aclose()


def _read_request(request: Request) -> BuildRequest:
    if request.query("version") == "2":
        raise Unsupported("BuildKit's protocol is not served yet: use DOCKER_BUILDKIT=0")
    for name in _UNSUPPORTED:
        if request.query(name).lower() not in _NOTHING:
            raise Unsupported(f"build option {name!r} is not supported by lamina yet")
    platform = request.query("platform")
    if platform and not Platform.of_host().matches(Platform.parse(platform)):
        raise Unsupported(f"--platform={platform}: this host builds for {Platform.of_host()} only")
    hosts = [h for text in request.query_all("extrahosts") for h in text.split(",") if h]
    build_args = _map(request, "buildargs")
    return BuildRequest(
        dockerfile=request.query("dockerfile") or "Dockerfile",
        tags=[Reference.parse_tagged(text) for text in request.query_all("t") if text],
        build_args=build_args,
        labels=_map(request, "labels"),
        targets=[name for name in (request.query("target"),) if name],
        source_date_epoch_s=_epoch(build_args),
        use_cache=not request.flag("nocache"),
        network=_network(request.query("networkmode")),
        extra_hosts=hosts,
        shm_size=request.integer("shmsize") or _SHM_BYTES,
        squash=request.flag("squash"),
    )


def _read_prune(request: Request) -> PruneRequest:
    filters = Filters.parse(request.query("filters"), ("until", "unused-for", *kept.FIELDS))
    fields = {}
    for name in filters:
        if len(filters[name]) > 1:
            raise InvalidRequest(f"filter {name} expects only one value")
        fields[name] = next(iter(filters[name]), "")
    moments = [parse_moment(fields.pop(name)) for name in ("until", "unused-for") if name in fields]
    return PruneRequest(
        everything=request.flag("all"),
        used_before_ns=min(moments, default=None),
        fields=fields,
        reserved_bytes=request.integer("reserved-space") or request.integer("keep-storage") or 0,
        maximum_bytes=request.integer("max-used-space") or 0,
        minimum_free_bytes=request.integer("min-free-space") or 0,
    )


def _epoch(build_args: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH as reproducible-builds.org has it: seconds, given as a build argument."""
    text = build_args.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdigit() or len(text) > 11:
        raise InvalidRequest(f"invalid SOURCE_DATE_EPOCH: {text}")
    return int(text)


async def _told(prepared: PreparedBuild, teller: Transcript | EventStream) -> list[ImageID]:
    try:
        return await prepared.run(teller.tell)
    except LaminaError:
        await teller.flush()
        raise


def _read_local(body: _LocalBuild) -> tuple[BuildRequest, LocalContext]:
    if not body.context.startswith("/") or "\0" in body.context:
        raise InvalidRequest(f"the build context must be an absolute path: {body.context!r}")
    request = BuildRequest(
        dockerfile=body.dockerfile,
        tags=[Reference.parse_tagged(text) for text in body.tags],
        build_args=body.build_args,
        labels=body.labels,
        targets=body.targets,
        use_cache=not body.no_cache,
        no_cache_filter=frozenset(body.no_cache_filter),
        network=_network(body.network),
        extra_hosts=body.extra_hosts,
        shm_size=body.shm_size or _SHM_BYTES,
        jobs=body.jobs,
        source_date_epoch_s=_epoch(body.build_args),
        warn=True,
        squash=body.squash,
        for_output=body.for_output,
        keep_failed=body.keep_failed,
        explain=body.explain,
        contexts={name.lower(): given.meaning for name, given in body.contexts.items()},
        secrets=body.secrets,
        ssh={name: Path(path) for name, path in body.ssh.items()},
    )
    text = body.dockerfile_text
    dockerfile = None if text is None else text.encode("utf-8", "surrogateescape")
    return request, LocalContext(Path(body.context), (body.device, body.inode), dockerfile)


def _network(name: str) -> str:
    if name not in _NETWORKS:
        raise Unsupported(f"build network {name!r}: lamina has the networks bridge, host and none so far")
    return _NETWORKS[name]


def _map(request: Request, name: str) -> dict[str, str]:
    text = request.query(name)
    try:
        values = msgspec.json.decode(text, type=dict[str, str | None] | None) if text else None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid {name}: {error}") from None
    return {key: value for key, value in (values or {}).items() if value is not None}


def _line(fields: dict[str, Any]) -> bytes:
    return encode_json(fields) + b"\r\n"
