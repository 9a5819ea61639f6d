"""A container's files (Engine API, "Container"): into and out of it as tars, what it has changed, all of them, and an image of them."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from lamina.build.config import apply_changes
from lamina.container.changes import LayerBelow, changes
from lamina.container.commit import CommitRequest
from lamina.container.config import ContainerConfig
from lamina.container.creation import complete_config
from lamina.container.errors import ContainerNotRunning, PauseConflict
from lamina.container.export import export_rootfs
from lamina.container.file_copies import PathStat
from lamina.container.record import Record
from lamina.container.times import rfc3339
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.errors import NotFound
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.held import Held
from lamina.http.message import InvalidRequest, encode_json
from lamina.oci.config import RunConfig
from lamina.oci.digest import DiffID, Digest
from lamina.oci.reference import Reference

_TAR = "application/x-tar"


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _ContainerFiles(engine)
    return [
        Route("HEAD", "/containers/{id}/archive", resource.stat),
        Route("GET", "/containers/{id}/archive", resource.read),
        Route("PUT", "/containers/{id}/archive", resource.write),
        Route("GET", "/containers/{id}/changes", resource.changes),
        Route("GET", "/containers/{id}/export", resource.export),
        Route("POST", "/commit", resource.commit),
    ]


class _ContainerFiles:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, request: Request) -> Record:
        return self._engine.containers.find(request.path_params["id"])

    async def stat(self, request: Request) -> Response:
        record = self._find(request)
        return Response(200, headers=_stat_header(await self._engine.copies.stat(record, _path(request))))

    async def read(self, request: Request) -> StreamingResponse:
        record = self._find(request)
        stack = AsyncExitStack()
        try:
            stat, tar = await stack.enter_async_context(self._engine.copies.reading(record, _path(request)))
        except BaseException:
            await stack.aclose()
            raise
        self._engine.lifecycle.tell("archive-path", record)
        return StreamingResponse(Held(tar, stack), _TAR, headers=_stat_header(stat))

    async def write(self, request: Request) -> Response:
        record = self._find(request)
        await self._engine.copies.write(
            record,
            _path(request),
            aiter(request.body),
            keeps_kinds=request.flag("noOverwriteDirNonDir"),
            as_user=request.flag("copyUIDGID"),
        )
        self._engine.lifecycle.tell("extract-to-dir", record)
        return Response(200)

    async def changes(self, request: Request) -> Response:
        record = self._find(request)
        lowers = await self._engine.lowers.lower([DiffID(Digest(d)) for d in record.diff_ids])
        upper = self._engine.snapshots.upper(record.id)
        found = await asyncio.to_thread(changes, upper, LayerBelow(lowers, record.idmap))
        return json_response([{"Path": change.path, "Kind": int(change.kind)} for change in found])

    async def export(self, request: Request) -> StreamingResponse:
        record = self._find(request)
        self._engine.lifecycle.tell("export", record)
        return StreamingResponse(export_rootfs(record, self._engine.snapshots, self._engine.content), _TAR)

    async def commit(self, request: Request) -> Response:
        engine = self._engine
        record = engine.containers.find(request.query("container"))
        body = await request.json(ContainerConfig | None)  # type: ignore[arg-type]
        repository, tag = request.query("repo"), request.query("tag")
        name = Reference.parse_tagged(f"{repository}:{tag}" if tag else repository) if repository else None
        run = apply_changes(_run_document(record, body), request.query_all("changes"))
        asked = CommitRequest(run, request.query("comment"), request.query("author"), (name,) if name else ())
        async with AsyncExitStack() as stack:
            if request.flag("pause", default=True):
                await self._freeze(record, stack)
            image = await engine.commits.commit(record, asked)
        attributes = {"comment": asked.comment, "imageID": str(image.image_id)}
        if name is not None:
            attributes["imageRef"] = name.familiar
        engine.lifecycle.tell("commit", record, attributes)
        return json_response({"Id": str(image.image_id)}, 201)

    async def _freeze(self, record: Record, stack: AsyncExitStack) -> None:
        """Let a running container stand still until the stack is closed, so that its files are of one moment."""
        try:
            await self._engine.freezing.pause(record.id)
        except (ContainerNotRunning, PauseConflict):
            return

        async def go_on() -> None:
            try:
                await self._engine.freezing.unpause(record.id)
            except (PauseConflict, NotFound):
                return  # somebody else has, or it was removed

        stack.push_async_callback(go_on)


def _path(request: Request) -> str:
    path = request.query("path")
    if not path:
        raise InvalidRequest("missing parameter in path: path cannot be empty")
    return path


def _stat_header(found: PathStat) -> dict[str, str]:
    document = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": rfc3339(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    return {"X-Docker-Container-Path-Stat": base64.b64encode(encode_json(document)).decode("ascii")}


def _run_document(record: Record, given: ContainerConfig | None) -> dict[str, Any]:
    """An image's ``config`` object: the request's, with the container's in the places that it leaves empty, as if that were an image's."""
    own = msgspec.convert(_config_fields(record.config), RunConfig)
    merged = _config_fields(complete_config(given or ContainerConfig(), own, record.id))
    return {name: value for name, value in merged.items() if value not in (None, "", [], {})}


def _config_fields(config: ContainerConfig) -> dict[str, Any]:
    """The fields of a container's config that an image's has, too."""
    fields: dict[str, Any] = msgspec.to_builtins(config)
    return {name: fields[name] for name in RunConfig.__struct_encode_fields__ if name in fields}
