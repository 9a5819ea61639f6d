"""Volumes (Engine API, "Volume"): list, create, inspect, delete, prune."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from lamina.api.filters import Filters
from lamina.container.config import docker_name
from lamina.daemon.render import volumes as render
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.engine.disk_use import volumes_use
from lamina.engine.events import Event
from lamina.errors import Conflict, NotFound
from lamina.http import Request, Response, json_response
from lamina.image.listing import has_labels
from lamina.volume import VolumeDriverNotFound, VolumeInUse
from lamina.volume.snapshots import VolumeHasSnapshots

_PRUNE_FILTERS = ("all", "label", "label!")
_ANONYMOUS_ALONE_SINCE = (1, 42)
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
        Route("POST", "/volumes/prune", resource.prune),
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
        return json_response({"Volumes": [render.volume(volume) for volume in chosen], "Warnings": None})

    async def create(self, request: Request) -> Response:
        body = await request.json(_CreateBody)
        if body.driver not in ("", "local"):
            raise VolumeDriverNotFound(body.name, body.driver)
        volume = await self._engine.volumes.create(body.name or None, body.labels, body.driver_opts)
        return json_response(render.volume(volume), 201)

    async def inspect(self, request: Request) -> Response:
        return json_response(render.volume(self._engine.volumes.get(request.path_params["name"])))

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._engine.volumes and request.flag("force"):
            return Response(204)
        self._engine.volumes.get(name)
        users = self._users(name)
        if users:
            raise VolumeInUse(name, users)
        if not request.flag("force") and await self._engine.care.snapshots(name):
            raise VolumeHasSnapshots(name)
        await self._engine.volumes.remove(name)
        return Response(204)

    async def prune(self, request: Request) -> Response:
        """Anonymous volumes that no container refers to; with ``all`` named ones, too."""
        filters = Filters.parse(request.query("filters"), _PRUNE_FILTERS)
        takes_all = filters.boolean("all") or request.api_version < _ANONYMOUS_ALONE_SINCE
        deleted, freed = [], 0
        for use in await volumes_use(self._engine):
            volume = use.volume
            if use.containers or not (takes_all or volume.anonymous):
                continue
            if not has_labels(volume.labels, filters.values_of("label")):
                continue
            if any(has_labels(volume.labels, [unwanted]) for unwanted in filters.values_of("label!")):
                continue
            with suppress(Conflict, NotFound):  # used, or removed by somebody else, meanwhile
                if not self._users(volume.name) and not await self._engine.care.snapshots(volume.name):
                    await self._engine.volumes.remove(volume.name)
                    deleted.append(volume.name)
                    freed += use.size
        self._engine.events.publish(Event("volume", "prune", "", {"reclaimed": str(freed)}))
        return json_response({"VolumesDeleted": deleted or None, "SpaceReclaimed": freed})

    def _users(self, name: str) -> list[str]:
        return [r.id for r in self._engine.containers if any(m.name == name for m in r.mounts)]
