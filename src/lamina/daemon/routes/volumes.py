"""Volumes (Engine API, "Volume"): list, create, inspect, delete."""

from __future__ import annotations

from typing import Any

import msgspec

from lamina.api.filters import Filters
from lamina.container.config import docker_name
from lamina.container.errors import UnsupportedOption
from lamina.daemon.http import Request, Response, json_response
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.image.listing import has_labels
from lamina.volume import Volume, VolumeInUse

_FILTERS = ("dangling", "driver", "label", "name")


class _CreateBody(msgspec.Struct, rename=docker_name):
    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Volumes(engine)
    return [
        Route("GET", "/volumes", resource.list_all),
        Route("POST", "/volumes/create", resource.create),
        Route("GET", "/volumes/{name}", resource.inspect),
        Route("DELETE", "/volumes/{name}", resource.delete),
    ]


class _Volumes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_all(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _FILTERS)
        dangling = filters.boolean("dangling")
        chosen = [
            volume
            for volume in self._engine.volumes
            if (dangling is None or dangling != bool(self._users(volume.name)))
            and has_labels(volume.labels, filters.values_of("label"))
            and (not filters.values_of("name") or any(v in volume.name for v in filters.values_of("name")))
            and filters.allows("driver", "local")
        ]
        return json_response({"Volumes": [_render(volume) for volume in chosen], "Warnings": None})

    async def create(self, request: Request) -> Response:
        body = await request.json(_CreateBody)
        if body.driver not in ("", "local") or body.driver_opts:
            raise UnsupportedOption("volume driver and its options")
        volume = await self._engine.volumes.create(body.name or None, body.labels)
        return json_response(_render(volume), 201)

    async def inspect(self, request: Request) -> Response:
        return json_response(_render(self._engine.volumes.get(request.path_params["name"])))

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._engine.volumes and request.flag("force"):
            return Response(204)
        self._engine.volumes.get(name)
        users = self._users(name)
        if users:
            raise VolumeInUse(name, users)
        await self._engine.volumes.remove(name)
        return Response(204)

    def _users(self, name: str) -> list[str]:
        return [r.id for r in self._engine.containers if any(m.name == name for m in r.mounts)]


def _render(volume: Volume) -> dict[str, Any]:
    labels = dict(volume.labels)
    if volume.anonymous:
        labels["com.docker.volume.anonymous"] = ""
    return {
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": labels or None,
        "Mountpoint": str(volume.path),
        "Name": volume.name,
        "Options": None,
        "Scope": "local",
    }
