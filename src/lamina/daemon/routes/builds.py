"""The classic build (Engine API, "Build an image")."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from lamina.api.errors import error_body
from lamina.build.builder import PreparedBuild
from lamina.build.errors import CommandFailed
from lamina.build.request import BuildRequest
from lamina.daemon.http import Request, StreamingResponse
from lamina.daemon.http.connection import ClientGone
from lamina.daemon.http.message import InvalidRequest, encode_json
from lamina.daemon.render.builds import Transcript
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import LaminaError, Unavailable, Unsupported
from lamina.oci.digest import ImageID
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

_log = logging.getLogger(__name__)
_NOTHING = ("", "0", "null", "[]", "{}", "false", "no", "none")
_NETWORKS = {"": "bridge", "default": "bridge", "bridge": "bridge", "host": "host", "none": "none"}
_UNSUPPORTED = ("squash", "remote", "outputs", "memory", "memswap", "cpushares", "cpusetcpus", "cpusetmems", "cpuperiod",
                "cpuquota", "ulimits", "cgroupparent", "securityopt", "pull", "cachefrom")  # fmt: skip


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    return [Route("POST", "/build", _Builds(engine).build)]


class _Builds:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def build(self, request: Request) -> StreamingResponse:
        """What is wrong before the first step is told by the status, what is wrong later in the stream."""
        wanted = _read_request(request)
        async with AsyncExitStack() as stack:
            preparing = self._engine.builder.prepare(wanted, aiter(request.body))
            prepared = await stack.enter_async_context(preparing)
            received = stack.pop_all()
            return StreamingResponse(_Receiving(self._progress(request, wanted, prepared), received))
        raise AssertionError("unreachable")

    async def _progress(
        self, request: Request, wanted: BuildRequest, prepared: PreparedBuild
    ) -> AsyncGenerator[bytes, None]:
        """The progress lines as they come; if the client goes away, the build ends."""
        transcript = Transcript(quiet=request.flag("q"))
        work = asyncio.ensure_future(self._engine.builder.track(_told(prepared, transcript)))
        work.add_done_callback(lambda _: transcript.end())
        gone = asyncio.ensure_future(request.disconnected.wait())
        gone.add_done_callback(lambda _: transcript.end())
        try:
            async for text in transcript:
                yield _line({"stream": text})
            if not work.done():
                raise ClientGone("the client of a build went away")
            for line in self._outcome(work, wanted, transcript):
                yield line
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.wait((work,))

    def _outcome(
        self, work: asyncio.Future[list[ImageID]], wanted: BuildRequest, transcript: Transcript
    ) -> list[bytes]:
        error = CancelledBuild() if work.cancelled() else work.exception()
        if error is not None:
            if not isinstance(error, LaminaError):
                _log.error("build failed", exc_info=error)
            body = error_body(error)
            code = {"code": error.code} if isinstance(error, CommandFailed) else {}
            told = [_line({"stream": text}) for text in transcript.withheld]
            return [*told, _line({"errorDetail": {**code, **body}, "error": body["message"]})]
        image_id = work.result()[-1]
        self._engine.events.publish(Event("image", "build", image_id, {"name": image_id}))
        if transcript.quiet:
            return [_line({"stream": f"{image_id}\n"})]
        texts = [f"Successfully built {image_id.hex[:12]}\n"]
        texts += [f"Successfully tagged {name.familiar}\n" for name in wanted.tags]
        return [_line({"aux": {"ID": str(image_id)}}), *(_line({"stream": text}) for text in texts)]


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


class CancelledBuild(Unavailable):
    """The daemon is ending."""

    def __init__(self) -> None:
        super().__init__("the build was cancelled: the daemon is shutting down")


def _read_request(request: Request) -> BuildRequest:
    if request.query("version") == "2":
        raise Unsupported("BuildKit's protocol is not served yet: use DOCKER_BUILDKIT=0")
    for name in _UNSUPPORTED:
        if request.query(name).lower() not in _NOTHING:
            raise Unsupported(f"build option {name!r} is not supported by lamina yet")
    platform = request.query("platform")
    if platform and not Platform.of_host().matches(Platform.parse(platform)):
        raise Unsupported(f"--platform={platform}: this host builds for {Platform.of_host()} only")
    network = request.query("networkmode")
    if network not in _NETWORKS:
        raise Unsupported(f"build network {network!r}: lamina has the networks bridge, host and none so far")
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
        network=_NETWORKS[network],
        extra_hosts=hosts,
        shm_size=request.integer("shmsize") or 64 << 20,
    )


def _epoch(build_args: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH as reproducible-builds.org has it: seconds, given as a build argument."""
    text = build_args.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdigit() or len(text) > 11:
        raise InvalidRequest(f"invalid SOURCE_DATE_EPOCH: {text}")
    return int(text)


async def _told(prepared: PreparedBuild, transcript: Transcript) -> list[ImageID]:
    try:
        return await prepared.run(transcript.tell)
    except LaminaError:
        await transcript.flush()
        raise


def _map(request: Request, name: str) -> dict[str, str]:
    text = request.query(name)
    try:
        values = msgspec.json.decode(text, type=dict[str, str | None] | None) if text else None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid {name}: {error}") from None
    return {key: value for key, value in (values or {}).items() if value is not None}


def _line(fields: dict[str, Any]) -> bytes:
    return encode_json(fields) + b"\r\n"
