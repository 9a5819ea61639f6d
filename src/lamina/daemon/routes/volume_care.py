"""What lamina adds to volumes: backups, copies and snapshots, under ``/lamina/volumes``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import msgspec

from lamina.daemon.render import volumes as render
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.engine.volume_care import Quiesce
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.held import Held
from lamina.http.message import InvalidRequest
from lamina.volume.snapshots import Snapshot

_ZSTD = "application/zstd"


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _VolumeCare(engine)
    return [
        Route("POST", "/lamina/volumes/{name}/backup", resource.back_up),
        Route("POST", "/lamina/volumes/restore", resource.restore),
        Route("POST", "/lamina/volumes/{name}/restore", resource.restore),
        Route("POST", "/lamina/volumes/{name}/clone", resource.clone),
        Route("GET", "/lamina/volumes/{name}/snapshots", resource.list_snapshots),
        Route("POST", "/lamina/volumes/{name}/snapshots", resource.make_snapshot),
        Route("POST", "/lamina/volumes/{name}/snapshots/{snapshot}/restore", resource.restore_snapshot),
        Route("DELETE", "/lamina/volumes/{name}/snapshots/{snapshot}", resource.remove_snapshot),
    ]


class _VolumeCare:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def back_up(self, request: Request) -> StreamingResponse:
        """The backup's bytes; what fails behind the first of them ends the body without its end."""
        stack = AsyncExitStack()
        try:
            chunks = await stack.enter_async_context(
                self._engine.care.backing_up(request.path_params["name"], _quiesce(request))
            )
        except BaseException:
            await stack.aclose()
            raise
        return StreamingResponse(Held(chunks, stack), _ZSTD)

    async def restore(self, request: Request) -> Response:
        volume, about = await self._engine.care.restore(
            request.path_params.get("name"), aiter(request.body), force=request.flag("force")
        )
        return json_response({"Volume": render.volume(volume), "Backup": msgspec.to_builtins(about)}, 201)

    async def clone(self, request: Request) -> Response:
        target = request.query("target") or None
        volume = await self._engine.care.clone(request.path_params["name"], target, _quiesce(request))
        return json_response(render.volume(volume), 201)

    async def list_snapshots(self, request: Request) -> Response:
        found = await self._engine.care.snapshots(request.path_params["name"])
        return json_response([_shown(snapshot) for snapshot in found])

    async def make_snapshot(self, request: Request) -> Response:
        name = request.query("name") or None
        snapshot = await self._engine.care.snapshot(request.path_params["name"], name, _quiesce(request))
        return json_response(_shown(snapshot), 201)

    async def restore_snapshot(self, request: Request) -> Response:
        params = request.path_params
        volume = await self._engine.care.restore_snapshot(
            params["name"], params["snapshot"], request.query("target") or None
        )
        return json_response(render.volume(volume))

    async def remove_snapshot(self, request: Request) -> Response:
        await self._engine.care.remove_snapshot(request.path_params["name"], request.path_params["snapshot"])
        return Response(204)


def _quiesce(request: Request) -> Quiesce | None:
    container, before, after = (request.query(name) or "" for name in ("quiesce", "pre", "post"))
    if not container:
        if before or after:
            raise InvalidRequest("pre and post are commands of the container that quiesce names")
        return None
    return Quiesce(container, before, after)


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "Name": snapshot.name,
        "CreatedAt": snapshot.created,
        "Containers": snapshot.containers,
        "Quiesced": snapshot.quiesced,
        "Files": snapshot.files,
        "Size": snapshot.size,
        "Shared": snapshot.shared,
    }
