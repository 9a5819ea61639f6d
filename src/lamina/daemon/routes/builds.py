"""The classic build (Engine API, "Build an image")."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from lamina.api.builds import FRAMED
from lamina.api.errors import error_body
from lamina.build.builder import PreparedBuild
from lamina.build.errors import CommandFailed
from lamina.build.flatten import root_tar
from lamina.build.request import BuildRequest, LocalContext
from lamina.daemon.render.builds import EventStream, Transcript
from lamina.daemon.router import Route
from lamina.daemon.routes.build_requests import BuildBody, read_framed, read_prune, read_query
from lamina.dockerfile.lint import render_check
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import LaminaError, Unavailable
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.connection import ClientGone
from lamina.http.message import encode_json
from lamina.oci.digest import ImageID

_log = logging.getLogger(__name__)


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Builds(engine)
    return [
        Route("POST", "/build", resource.build),
        Route("POST", "/build/prune", resource.prune),
        Route("POST", "/lamina/build", resource.build_own),
        Route("GET", "/lamina/images/{name:path}/root", resource.root),
    ]


class _Builds:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def build(self, request: Request) -> StreamingResponse:
        """What is wrong before the first step is told by the status, what is wrong later in the stream."""
        wanted = read_query(request)
        preparing = self._preparing(wanted, None, request.query("remote"), aiter(request.body))
        return await self._start(request, wanted, preparing, Transcript(quiet=request.flag("q")))

    async def build_own(self, request: Request) -> Response | StreamingResponse:
        """As ``build``, with more options, and of a directory of this machine too."""
        if request.headers.get("Content-Type", "") == FRAMED:
            body, tar = await read_framed(request)
        else:
            body, tar = await request.json(BuildBody), _nothing()
        wanted = body.wanted
        preparing = self._preparing(wanted, body.local, body.remote, tar)
        if body.check:
            async with preparing as prepared:
                warnings = await prepared.check()
            return json_response({"warnings": len(warnings), "text": render_check(warnings)})
        teller = EventStream() if body.events else Transcript(quiet=body.quiet)
        return await self._start(request, wanted, preparing, teller)

    def _preparing(
        self, wanted: BuildRequest, local: LocalContext | None, remote: str, tar: AsyncIterator[bytes]
    ) -> AbstractAsyncContextManager[PreparedBuild]:
        builder = self._engine.builder
        if local is not None:
            return builder.prepare_local(wanted, local)
        return builder.prepare_remote(wanted, remote) if remote else builder.prepare(wanted, tar)

    async def prune(self, request: Request) -> Response:
        """Remove what builds keep for later ones."""
        pruned = await self._engine.builder.prune(read_prune(request))
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
            detail = {"code": error.code, "source": error.source} if isinstance(error, CommandFailed) else {}
            failure = {"errorDetail": {**detail, **body}, "error": body["message"]}
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


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def _told(prepared: PreparedBuild, teller: Transcript | EventStream) -> list[ImageID]:
    try:
        return await prepared.run(teller.tell)
    except LaminaError:
        await teller.flush()
        raise


def _line(fields: dict[str, Any]) -> bytes:
    return encode_json(fields) + b"\r\n"
