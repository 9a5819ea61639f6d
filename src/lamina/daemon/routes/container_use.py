"""What a container uses and may use (Engine API, "Container"): its processes, statistics, and other limits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from lamina.container.config import ContainerConfig, HostConfig
from lamina.container.errors import ContainerIsRestarting, ContainerNotRunning
from lamina.container.record import Record
from lamina.container.stats import Sample
from lamina.container.top import process_table
from lamina.container.warnings import warnings, without_effectless
from lamina.daemon.render import stats as render
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.message import InvalidRequest, encode_json

_NOTHING = Sample.nothing()


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _ContainerUse(engine)
    return [
        Route("GET", "/containers/{id}/top", resource.top),
        Route("GET", "/containers/{id}/stats", resource.stats),
        Route("POST", "/containers/{id}/update", resource.update),
    ]


class _ContainerUse:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, request: Request) -> Record:
        return self._engine.containers.find(request.path_params["id"])

    async def top(self, request: Request) -> Response:
        record = self._find(request)
        if record.state.status == "restarting":
            raise ContainerIsRestarting(record.id)
        if not record.state.has_process:
            raise ContainerNotRunning(record.id)
        pids = await asyncio.to_thread(self._engine.processes.pids, record)
        table = await process_table(pids, request.query("ps_args") or "-ef")
        self._engine.lifecycle.tell("top", record)
        return json_response({"Titles": table.titles, "Processes": table.rows})

    async def stats(self, request: Request) -> Response | StreamingResponse:
        record = self._find(request)
        if request.flag("stream", default=True) and request.flag("one-shot"):
            raise InvalidRequest("cannot have stream=true and one-shot=true")
        if request.flag("stream", default=True):
            return StreamingResponse(self._stream(record), is_endless=True)
        if not record.state.has_process:
            return json_response(render.stats(record, _NOTHING, None))
        if request.flag("one-shot"):
            return json_response(render.stats(record, await self._engine.stats.once(record), None))
        async with aclosing(self._engine.stats.follow(record)) as samples:
            async for sample, before in samples:
                if before is not None:
                    return json_response(render.stats(record, sample, before))
        return json_response(render.stats(record, _NOTHING, None))

    async def _stream(self, record: Record) -> AsyncIterator[bytes]:
        async with aclosing(self._engine.stats.follow(record)) as samples:
            async for sample, before in samples:
                yield encode_json(render.stats(record, sample, before)) + b"\n"

    async def update(self, request: Request) -> Response:
        asked = await request.json(HostConfig)
        hierarchies = self._engine.hierarchies
        await self._engine.lifecycle.update(self._find(request).id, without_effectless(asked, hierarchies))
        return json_response({"Warnings": list(warnings(ContainerConfig(), asked, hierarchies))})
