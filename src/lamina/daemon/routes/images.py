"""Images (Engine API, "Image"): list, inspect, history, import, load, save, tag, delete, prune; lamina's verify."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from lamina.api.errors import error_body
from lamina.api.filters import Filters
from lamina.build.config import apply_changes
from lamina.container.times import parse_moment
from lamina.daemon.render import images as render
from lamina.daemon.router import Route
from lamina.daemon.routes.registries import Registries
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import LaminaError, Unsupported
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.message import InvalidRequest, encode_json
from lamina.image.history import history
from lamina.image.listing import ImageQuery, select_images
from lamina.image.load import layers_of, load
from lamina.image.removal import Removed
from lamina.image.rootfs import import_rootfs
from lamina.image.save import save, select
from lamina.image.store import DamagedImage, Image
from lamina.image.verify import verify
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

_LIST_FILTERS = ("before", "dangling", "label", "label!", "reference", "since", "until")
_PRUNE_FILTERS = ("dangling", "label", "label!", "until")
_log = logging.getLogger(__name__)


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Images(engine)
    return [
        Route("GET", "/images/json", resource.list_all),
        Route("POST", "/images/create", resource.create),
        Route("POST", "/images/load", resource.load),
        Route("GET", "/images/get", resource.save_several),
        Route("POST", "/images/prune", resource.prune),
        Route("GET", "/images/{name:path}/json", resource.inspect),
        Route("GET", "/images/{name:path}/history", resource.history),
        Route("GET", "/images/{name:path}/get", resource.save_one),
        Route("POST", "/images/{name:path}/tag", resource.tag),
        Route("DELETE", "/images/{name:path}", resource.delete),
        Route("POST", "/lamina/images/{name:path}/verify", resource.verify),
        Route("GET", "/lamina/images/{name:path}/layers", resource.layers),
        Route("POST", "/lamina/images/lacking", resource.lacking),
        Route("POST", "/lamina/images/load", resource.load_rest),
    ]


class _Layer(msgspec.Struct):
    digest: str
    diff_id: str


class _Layers(msgspec.Struct):
    """``POST /lamina/images/lacking``."""

    layers: list[_Layer]


class _Images:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registries = Registries(engine)

    async def list_all(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _LIST_FILTERS)
        query = ImageQuery(
            include_intermediate=request.flag("all"),
            dangling=filters.boolean("dangling"),
            labels=filters.values_of("label"),
            without_labels=filters.values_of("label!"),
            references=filters.values_of("reference"),
            before=next(iter(filters.values_of("before")), None),
            since=next(iter(filters.values_of("since")), None),
            until_ns=_until(filters),
        )
        shared = request.flag("shared-size")
        chosen = select_images(self._engine.images, query)
        return json_response(
            [render.summary(i.image, self._engine, names=i.names, digests=i.digests, shared=shared) for i in chosen]
        )

    async def inspect(self, request: Request) -> Response:
        image = self._engine.images.find(request.path_params["name"])
        return json_response(render.inspect(image, self._engine))

    async def history(self, request: Request) -> Response:
        image = self._engine.images.find(request.path_params["name"])
        steps = history(image, self._engine.images, self._engine.content)
        return json_response([render.history_item(step) for step in steps])

    async def create(self, request: Request) -> StreamingResponse:
        source = request.query("fromSrc")
        if request.query("fromImage"):
            return await self._registries.pull(request)
        if not source:
            raise InvalidRequest("fromImage or fromSrc is needed")
        if source != "-":
            raise Unsupported(f"import from {source}: lamina imports from the request's body (fromSrc=-) so far")
        repository, tag = request.query("repo"), request.query("tag")
        name = Reference.parse_tagged(f"{repository}:{tag}" if tag else repository) if repository else None
        run = apply_changes({}, request.query_all("changes"))
        platform = _linux_platform(request.query("platform")) if request.query("platform") else None
        return StreamingResponse(self._import(request, source, name, run, platform))

    async def _import(
        self, request: Request, source: str, name: Reference | None, run: dict[str, Any], platform: Platform | None
    ) -> AsyncIterator[bytes]:
        engine = self._engine
        try:
            image = await import_rootfs(
                engine.images,
                engine.intake,
                aiter(request.body),
                source=source,
                run=run,
                tag=name,
                message=request.query("message") or None,
                platform=platform,
            )
        except Exception as error:
            yield _stream_error(error)
            return
        engine.events.publish(Event("image", "import", image.image_id, {"name": image.image_id}))
        yield _line({"status": image.image_id})

    async def load(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self._load(request))

    async def load_rest(self, request: Request) -> StreamingResponse:
        """As ``load``, of an archive that may lack layers that are stored."""
        return StreamingResponse(self._load(request, may_lack_stored=True))

    async def layers(self, request: Request) -> Response:
        """An image's layers: the digest of each blob, of its tar, and the blob's size."""
        image = self._engine.images.find(request.path_params["name"])
        pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
        return json_response([{"digest": blob.digest, "diff_id": i, "size": blob.size} for blob, i in pairs])

    async def lacking(self, request: Request) -> Response:
        """Of some layers the digests of those that are not stored in this form."""
        wanted = await request.json(_Layers)
        known = {blob.digest: diff_id for blob, diff_id in layers_of(self._engine.images).items()}
        content = self._engine.content
        return json_response(
            [
                layer.digest
                for layer in wanted.layers
                if known.get(Digest.parse(layer.digest)) != layer.diff_id
                or not (content.exists(Digest.parse(layer.digest)) and content.exists(Digest.parse(layer.diff_id)))
            ]
        )

    async def _load(self, request: Request, *, may_lack_stored: bool = False) -> AsyncIterator[bytes]:
        engine = self._engine
        try:
            loaded = await load(engine.images, engine.intake, aiter(request.body), may_lack_stored=may_lack_stored)
        except Exception as error:
            yield _stream_error(error)
            return
        for item in loaded:
            engine.events.publish(Event("image", "load", item.image.image_id, {"name": item.image.image_id}))
            for name in item.names:
                yield _line({"stream": f"Loaded image: {name.familiar}\n"})
            if not item.names:
                yield _line({"stream": f"Loaded image ID: {item.image.image_id}\n"})

    async def save_one(self, request: Request) -> StreamingResponse:
        return self._save([request.path_params["name"]])

    async def save_several(self, request: Request) -> StreamingResponse:
        names = [name for text in request.query_all("names") for name in text.split(",") if name]
        return self._save(names, frozenset(map(Digest.parse, request.query_all("without"))))

    def _save(self, names: list[str], without: frozenset[Digest] = frozenset()) -> StreamingResponse:
        selections = select(self._engine.images, names)
        archive = save(selections, self._engine.content, without=without)
        for selection in selections:
            image_id = selection.image.image_id
            self._engine.events.publish(Event("image", "save", image_id, {"name": image_id}))
        return StreamingResponse(archive, "application/x-tar")

    async def tag(self, request: Request) -> Response:
        image = self._engine.images.find(request.path_params["name"])
        repository, tag = request.query("repo"), request.query("tag")
        name = Reference.parse_tagged(f"{repository}:{tag}" if tag else repository)
        if name.digest is not None:
            raise InvalidRequest("refusing to create a tag with a digest reference")
        await self._engine.images.tag(image.image_id, [name])
        self._engine.events.publish(Event("image", "tag", image.image_id, {"name": name.familiar}))
        return Response(201)

    async def delete(self, request: Request) -> Response:
        removed = await self._engine.removal.remove(
            request.path_params["name"], force=request.flag("force"), prune_parents=not request.flag("noprune")
        )
        return json_response(self._tell(removed))

    async def prune(self, request: Request) -> Response:
        filters = Filters.parse(request.query("filters"), _PRUNE_FILTERS)
        dangling_only = filters.boolean("dangling") is not False
        query = ImageQuery(
            dangling=True if dangling_only else None,
            labels=filters.values_of("label"),
            without_labels=filters.values_of("label!"),
            until_ns=_until(filters),
        )
        candidates = [item.image for item in select_images(self._engine.images, query)]
        removed = await self._engine.removal.prune(candidates, named=not dangling_only)
        self._engine.events.publish(Event("image", "prune", "", {"reclaimed": str(removed.freed_bytes)}))
        return json_response({"ImagesDeleted": self._tell(removed) or None, "SpaceReclaimed": removed.freed_bytes})

    async def verify(self, request: Request) -> StreamingResponse:
        image_id, _ = self._engine.images.find_named(request.path_params["name"])
        return StreamingResponse(self._verify_lines(self._engine.images.stored(image_id)))

    async def _verify_lines(self, image: Image | DamagedImage) -> AsyncIterator[bytes]:
        async for blob in verify(image, self._engine.content):
            yield _line({"kind": blob.kind, "digest": blob.digest, "size": blob.size_bytes, "status": blob.status})

    def _tell(self, removed: Removed) -> list[dict[str, str]]:
        for name, image_id in removed.untagged:
            self._engine.events.publish(Event("image", "untag", image_id, {"name": name}))
        for image_id in removed.deleted:
            self._engine.events.publish(Event("image", "delete", image_id, {"name": image_id}))
        return [{"Untagged": name} for name, _ in removed.untagged] + [{"Deleted": str(i)} for i in removed.deleted]


def _until(filters: Filters) -> int | None:
    values = filters.values_of("until")
    return parse_moment(values[0]) if values else None


def _linux_platform(text: str) -> Platform:
    """What an import says that its files are for. Raises InvalidPlatform, or Unsupported for what no Linux runs."""
    platform = Platform.parse(text)
    if not platform.is_known:
        raise InvalidRequest(f'"{text}": unknown operating system or architecture: invalid argument')
    if platform.os != "linux":
        raise Unsupported("operating system is not supported")
    return platform


def _line(fields: dict[str, Any]) -> bytes:
    return encode_json(fields) + b"\r\n"


def _stream_error(error: Exception) -> bytes:
    """An error after a stream has begun; one that nobody foresaw goes to the log with all that is known of it."""
    if not isinstance(error, LaminaError):
        _log.error("a stream failed", exc_info=error)
    body = error_body(error)
    return _line({"errorDetail": body, "error": body["message"]})
