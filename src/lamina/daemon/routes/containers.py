"""Containers (Engine API, "Container"): create, start, attach, wait, logs, inspect, list, stop, kill, restart, delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import cast

from lamina.api import frames
from lamina.api.filters import Filters
from lamina.container.config import ContainerConfig, HostConfig, NetworkingConfig, docker_name
from lamina.container.creation import CreateRequest
from lamina.container.errors import (
    CannotKill,
    ContainerBeingRemoved,
    ContainerIsPaused,
    ContainerIsRestarting,
    ContainerNotFound,
    ContainerNotRunning,
    LogsNotKept,
)
from lamina.container.links import names_by_links, without_link
from lamina.container.listing import ContainerQuery, select_containers
from lamina.container.log_lines import LogLine
from lamina.container.log_options import details_of
from lamina.container.logs import LogQuery
from lamina.container.record import Record
from lamina.container.times import parse_moment
from lamina.container.waiting import Condition
from lamina.daemon.joining import Joint, Stream, carry, detach_keys, stream_type
from lamina.daemon.render import containers as render
from lamina.daemon.render.images import size_of
from lamina.daemon.router import PageNotFound, Route
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import Conflict, LaminaError, NotFound
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.connection import ClientGone
from lamina.http.message import InvalidRequest, encode_json
from lamina.image.errors import PlatformMismatch
from lamina.image.store import Image
from lamina.oci.digest import Digest, ImageID
from lamina.oci.platform import InvalidPlatform, Platform

_LIST_FILTERS = ("ancestor", "before", "exited", "expose", "health", "id", "isolation", "is-task", "label", "name",
                 "network", "publish", "since", "status", "volume")  # fmt: skip
_PRUNE_FILTERS = ("label", "label!", "until")
_WAIT_CONDITIONS_SINCE = (1, 30)
_ARCHITECTURES = frozenset("386 amd64 arm arm64 loong64 mips64le ppc64le riscv64 s390x".split())
_CREATE_LIMIT = 64 << 20
_CONDITIONS = ("not-running", "next-exit", "removed")


class _CreateBody(ContainerConfig, rename=docker_name, kw_only=True):
    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Containers(engine)
    return [
        Route("GET", "/containers/json", resource.list_all),
        Route("POST", "/containers/create", resource.create),
        Route("POST", "/containers/prune", resource.prune),
        Route("GET", "/containers/{id}/json", resource.inspect),
        Route("GET", "/containers/{id}/logs", resource.logs),
        Route("DELETE", "/lamina/containers/{id}/logs", resource.clear_logs),
        Route("POST", "/containers/{id}/start", resource.start),
        Route("POST", "/containers/{id}/stop", resource.stop),
        Route("POST", "/containers/{id}/restart", resource.restart),
        Route("POST", "/containers/{id}/kill", resource.kill),
        Route("POST", "/containers/{id}/pause", resource.pause),
        Route("POST", "/containers/{id}/unpause", resource.unpause),
        Route("POST", "/containers/{id}/rename", resource.rename),
        Route("POST", "/containers/{id}/wait", resource.wait, cancellable=True),
        Route("POST", "/containers/{id}/attach", resource.attach),
        Route("GET", "/containers/{id}/attach/ws", resource.attach_websocket),
        Route("POST", "/containers/{id}/resize", resource.resize),
        Route("DELETE", "/containers/{id}", resource.delete),
        Route("DELETE", "/containers/{id}/{alias}", resource.delete_link),
    ]


class _Containers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, request: Request) -> Record:
        return self._engine.containers.find(request.path_params["id"])

    async def list_all(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _LIST_FILTERS)
        query = ContainerQuery(
            include_stopped=request.flag("all"),
            limit=request.integer("limit"),
            filters={name: filters.values_of(name) for name in filters},
        )
        chosen = select_containers(self._engine.containers, self._engine.images, query)
        with_sizes = request.flag("size")
        names = names_by_links(self._engine.containers)
        shown = [
            render.summary(r, self._engine, await self._sizes(r) if with_sizes else None, names.get(r.id, ()))
            for r in chosen
        ]
        return json_response([s | {"Image": self._image_name(r)} for s, r in zip(shown, chosen, strict=True)])

    async def create(self, request: Request) -> Response:
        body = await request.json(_CreateBody, limit=_CREATE_LIMIT)
        if not body.image:
            raise InvalidRequest("Config cannot be empty in order to create a container")
        image = self._engine.images.find(body.image)
        wanted = _platform(request.query("platform"))
        if wanted is not None and not image.config.platform.matches(wanted):
            raise PlatformMismatch(body.image, wanted, image.config.platform)
        config = ContainerConfig(**{f: getattr(body, f) for f in ContainerConfig.__struct_fields__})
        host, networking = body.host_config or HostConfig(), body.networking_config or NetworkingConfig()
        request_to_create = CreateRequest(config, host, networking, image, request.query("name") or None)
        record, warnings = await self._engine.creation.create(request_to_create)
        self._emit("create", record)
        return json_response({"Id": record.id, "Warnings": warnings}, 201)

    async def inspect(self, request: Request) -> Response:
        record = self._find(request)
        sizes = await self._sizes(record) if request.flag("size") else None
        return json_response(render.inspect(record, self._engine, sizes))

    async def start(self, request: Request) -> Response:
        if (await request.read()).strip() not in (b"", b"{}", b"null"):
            raise InvalidRequest(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        await self._engine.lifecycle.start(self._find(request).id)
        return Response(204)

    async def stop(self, request: Request) -> Response:
        timeout, signal = request.integer("t"), request.query("signal") or None
        await self._engine.lifecycle.stop(self._find(request).id, timeout, signal)
        return Response(204)

    async def restart(self, request: Request) -> Response:
        timeout, signal = request.integer("t"), request.query("signal") or None
        await self._engine.lifecycle.restart(self._find(request).id, timeout, signal)
        return Response(204)

    async def kill(self, request: Request) -> Response:
        record = self._find(request)
        try:
            await self._engine.lifecycle.kill(record.id, request.query("signal") or None)
        except ContainerNotRunning as error:
            raise CannotKill(request.path_params["id"], error) from None
        return Response(204)

    async def pause(self, request: Request) -> Response:
        await self._engine.freezing.pause(self._find(request).id)
        return Response(204)

    async def unpause(self, request: Request) -> Response:
        await self._engine.freezing.unpause(self._find(request).id)
        return Response(204)

    async def rename(self, request: Request) -> Response:
        await self._engine.lifecycle.rename(self._find(request).id, request.query("name"))
        return Response(204)

    async def delete(self, request: Request) -> Response:
        if request.flag("link"):
            self._find(request)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        try:
            await self._engine.lifecycle.remove(
                self._find(request).id, force=request.flag("force"), volumes=request.flag("v")
            )
        except ContainerNotFound as error:
            # found a moment ago: it removed itself meanwhile
            if error.name != request.path_params["id"]:
                raise ContainerBeingRemoved(request.path_params["id"]) from None
            raise
        return Response(204)

    async def delete_link(self, request: Request) -> Response:
        """The link goes; both containers stay."""
        if not request.flag("link"):
            raise PageNotFound
        alias = request.path_params["alias"]
        await self._engine.lifecycle.change(self._find(request).id, lambda record: without_link(record, alias))
        return Response(204)

    async def prune(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _PRUNE_FILTERS)
        until = filters.values_of("until")
        if len(until) > 1:
            raise InvalidRequest("more than one until filter specified")
        until_ns = parse_moment(until[0]) if until else None
        query = ContainerQuery(include_stopped=True, filters={n: filters.values_of(n) for n in filters if n != "until"})
        deleted, freed = [], 0
        for record in select_containers(self._engine.containers, self._engine.images, query):
            if record.state.is_running or (until_ns is not None and record.created_ns >= until_ns):
                continue
            size = (await self._sizes(record))[0]
            with suppress(Conflict, NotFound):  # started, or removed by somebody else, meanwhile
                await self._engine.lifecycle.remove(record.id)
                deleted.append(record.id)
                freed += size
        self._engine.events.publish(Event("container", "prune", "", {"reclaimed": str(freed)}))
        return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": freed})

    async def wait(self, request: Request) -> Response | StreamingResponse:
        record = self._find(request)
        condition = request.query("condition") or "not-running"
        if request.api_version < _WAIT_CONDITIONS_SINCE:
            condition = "not-running"
        if condition not in _CONDITIONS:
            raise InvalidRequest(f'invalid condition: "{condition}"')
        waiting = asyncio.ensure_future(self._engine.lifecycle.wait(record.id, cast(Condition, condition)))
        if request.api_version < _WAIT_CONDITIONS_SINCE:
            return json_response({"StatusCode": await waiting})
        return StreamingResponse(_wait_body(waiting), is_endless=True)

    async def resize(self, request: Request) -> Response:
        record = self._find(request)
        height, width = request.integer("h"), request.integer("w")
        if height is None or width is None:
            raise InvalidRequest("a terminal's size needs a height and a width: h and w")
        if not (0 <= height < 1 << 16 and 0 <= width < 1 << 16):
            raise InvalidRequest(f"a terminal cannot have {height} lines of {width} columns")
        if not record.state.has_process:
            raise ContainerNotRunning(record.id)
        try:
            self._engine.processes.resize(record.id, height, width)
        except OSError as error:
            raise ContainerNotRunning(record.id) from error
        self._engine.lifecycle.tell("resize", record, {"height": str(height), "width": str(width)})
        return Response(200)

    async def logs(self, request: Request) -> StreamingResponse:
        record = self._find(request)
        query = _log_query(request)
        if not query.stdout and not query.stderr:
            raise InvalidRequest("Bad parameters: you must choose at least one stream")
        lines = self._log_lines(record, query)
        details = f"{details_of(record)} ".encode() if request.flag("details") else b""
        prefix = _Prefix(timestamps=request.flag("timestamps"), details=details)
        encode = _plain if record.config.tty else _framed
        return StreamingResponse(
            encode(lines, prefix), stream_type(request, plain=record.config.tty), is_endless=query.follow
        )

    async def clear_logs(self, request: Request) -> Response:
        record = self._find(request)
        if record.host_config.log_config.type == "none":
            raise LogsNotKept
        await self._engine.logs.clear(record)
        return Response(204)

    def _log_lines(self, record: Record, query: LogQuery) -> AsyncIterator[LogLine]:
        if record.host_config.log_config.type == "none":
            raise LogsNotKept
        return self._engine.logs.lines(record, query)

    async def attach(self, request: Request) -> Response | None:
        record = self._find(request)
        plain = record.config.tty
        await self._attach(request, record, plain, lambda: request.hijack(stream_type(request, plain=plain)))
        return None

    async def attach_websocket(self, request: Request) -> Response | None:
        """The same through messages, in which the streams are not told apart."""
        from lamina.http.websocket import accept_websocket

        await self._attach(request, self._find(request), True, lambda: accept_websocket(request))
        return None

    async def _attach(
        self, request: Request, record: Record, plain: bool, take_over: Callable[[], Awaitable[Stream]]
    ) -> None:
        if record.state.status == "paused":
            raise ContainerIsPaused(record.id, "attach")
        if record.state.status == "restarting":
            raise ContainerIsRestarting(record.id)
        wants = {name: request.flag(name) for name in ("stdin", "stdout", "stderr", "stream", "logs")}
        config = record.config
        joint = Joint(
            shown={number for number, name in ((1, "stdout"), (2, "stderr")) if wants[name]},
            plain=plain,
            takes_input=wants["stdin"] and config.open_stdin,
            closes_input=config.stdin_once and not config.tty,
            keys=detach_keys(request.query("detachKeys")) if config.tty else None,
        )
        attached = await self._engine.lifecycle.attach(record.id) if wants["stream"] else None
        try:
            stream = await take_over()
            self._emit("attach", record)
            with closing(stream), suppress(ClientGone, ConnectionError):  # a client may go whenever it likes
                if wants["logs"]:
                    query = LogQuery(stdout=wants["stdout"], stderr=wants["stderr"])
                    encode = _plain if plain else _framed
                    async for data in encode(self._log_lines(record, query), _Prefix()):
                        await stream.write(data)
                if attached is not None and await carry(
                    stream, self._engine.lifecycle.console(record.id), attached, joint
                ):
                    self._emit("detach", record)
                await stream.finish()
        finally:
            if attached is not None:
                attached.close()

    async def _sizes(self, record: Record) -> tuple[int, int]:
        written = await asyncio.to_thread(self._engine.snapshots.size_bytes, record.id)
        image = self._image_of(record)
        return written, written + (size_of(image, self._engine) if image else 0)

    def _image_name(self, record: Record) -> str:
        """The name that the container was made with, or the image's ID if it means another image now, or none."""
        with suppress(LaminaError):
            if self._engine.images.find_named(record.image_name)[0] == record.image_id:
                return record.image_name
        return record.image_id

    def _image_of(self, record: Record) -> Image | None:
        image_id = ImageID(Digest(record.image_id))
        return self._engine.images.get(image_id) if image_id in self._engine.images else None

    def _emit(self, action: str, record: Record) -> None:
        self._engine.lifecycle.tell(action, record)


async def _wait_body(waiting: asyncio.Future[int]) -> AsyncIterator[bytes]:
    """The head goes out at once, which tells the client that its waiting has begun; the body when it is over."""
    try:
        yield encode_json({"StatusCode": await waiting}) + b"\n"
    finally:
        waiting.cancel()


def _platform(text: str) -> Platform | None:
    """``?platform=``; one word is an operating system or an architecture, and nothing else. Raises InvalidPlatform."""
    wanted = Platform.parse(text) if text else None
    if wanted is not None and "/" not in text and wanted.architecture not in _ARCHITECTURES:
        raise InvalidPlatform(text)
    return wanted


def _log_query(request: Request) -> LogQuery:
    since, until, tail = request.query("since"), request.query("until"), request.query("tail")
    return LogQuery(
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr"),
        since_ns=parse_moment(since) if since not in ("", "0") else None,
        until_ns=parse_moment(until) if until not in ("", "0") else None,
        tail=int(tail) if tail.isdigit() else None,
        follow=request.flag("follow"),
    )


@dataclass(frozen=True)
class _Prefix:
    """What stands before each line: its time, and what is told about the container, with a blank behind it."""

    timestamps: bool = False
    details: bytes = b""

    def before(self, line: LogLine) -> bytes:
        if line.goes_on:
            return b""
        return (f"{line.time} ".encode() if self.timestamps else b"") + self.details


async def _plain(lines: AsyncIterator[LogLine], prefix: _Prefix) -> AsyncIterator[bytes]:
    async for line in lines:
        yield prefix.before(line) + line.text


async def _framed(lines: AsyncIterator[LogLine], prefix: _Prefix) -> AsyncIterator[bytes]:
    async for line in lines:
        yield frames.encode(line.stream, prefix.before(line) + line.text)
