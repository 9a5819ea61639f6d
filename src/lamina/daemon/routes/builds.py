"""The classic build (Engine API, "Build an image")."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from lamina.api.errors import error_body
from lamina.build.builder import BuildRequest
from lamina.build.errors import CommandFailed
from lamina.daemon.http import Request, StreamingResponse
from lamina.daemon.http.connection import ClientGone
from lamina.daemon.http.message import InvalidRequest, encode_json
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import LaminaError, Unsupported
from lamina.oci.digest import ImageID
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

_log = logging.getLogger(__name__)
_NETWORKS = {"": "bridge", "default": "bridge", "bridge": "bridge", "host": "host", "none": "none"}
_UNSUPPORTED = ("squash", "remote", "outputs", "memory", "memswap", "cpushares", "cpusetcpus", "cpusetmems", "cpuperiod",
                "cpuquota", "ulimits", "cgroupparent", "securityopt")  # fmt: skip


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    return [Route("POST", "/build", _Builds(engine).build)]


class _Builds:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def build(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self._progress(request, _read_request(request)))

    async def _progress(self, request: Request, wanted: BuildRequest) -> AsyncIterator[bytes]:
        """The progress lines as they come; if the client goes away, the build ends."""
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        quiet = request.flag("q")
        report = (lambda text: None) if quiet else (lambda text: lines.put_nowait(_line({"stream": text})))
        work = asyncio.ensure_future(self._engine.builder.build(wanted, aiter(request.body), report))
        work.add_done_callback(lambda _: lines.put_nowait(None))
        gone = asyncio.ensure_future(request.disconnected.wait())
        gone.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield line
            if not work.done():
                raise ClientGone("the client of a build went away")
            for last in self._outcome(work, wanted, quiet=quiet):
                yield last
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))

    def _outcome(self, work: asyncio.Future[ImageID], wanted: BuildRequest, *, quiet: bool) -> list[bytes]:
        error = work.exception()
        if error is not None:
            if not isinstance(error, LaminaError):
                _log.error("build failed", exc_info=error)
            body = error_body(error)
            code = {"code": error.code} if isinstance(error, CommandFailed) else {}
            return [_line({"errorDetail": {**code, **body}, "error": body["message"]})]
        image_id = work.result()
        self._engine.events.publish(Event("image", "build", image_id, {"name": image_id}))
        if quiet:
            return [_line({"stream": f"{image_id}\n"})]
        texts = [f"Successfully built {image_id.hex[:12]}\n"]
        texts += [f"Successfully tagged {name.familiar}\n" for name in wanted.tags]
        return [_line({"aux": {"ID": str(image_id)}}), *(_line({"stream": text}) for text in texts)]


def _read_request(request: Request) -> BuildRequest:
    if request.query("version") == "2":
        raise Unsupported("BuildKit's protocol is not served yet: use DOCKER_BUILDKIT=0")
    for name in _UNSUPPORTED:
        if request.query(name) not in ("", "0", "null", "[]", "false"):
            raise Unsupported(f"build option {name!r} is not supported by lamina yet")
    platform = request.query("platform")
    if platform and not Platform.of_host().matches(Platform.parse(platform)):
        raise Unsupported(f"--platform={platform}: this host builds for {Platform.of_host()} only")
    network = request.query("networkmode")
    if network not in _NETWORKS:
        raise Unsupported(f"build network {network!r}: lamina has the networks bridge, host and none so far")
    hosts = [h for text in request.query_all("extrahosts") for h in text.split(",") if h]
    return BuildRequest(
        dockerfile=request.query("dockerfile") or "Dockerfile",
        tags=[Reference.parse_tagged(text) for text in request.query_all("t") if text],
        build_args=_map(request, "buildargs"),
        labels=_map(request, "labels"),
        target=request.query("target"),
        use_cache=not request.flag("nocache"),
        network=_NETWORKS[network],
        extra_hosts=hosts,
        shm_size=request.integer("shmsize") or 64 << 20,
    )


def _map(request: Request, name: str) -> dict[str, str]:
    text = request.query(name)
    try:
        values = msgspec.json.decode(text, type=dict[str, str | None] | None) if text else None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid {name}: {error}") from None
    return {key: value for key, value in (values or {}).items() if value is not None}


def _line(fields: dict[str, Any]) -> bytes:
    return encode_json(fields) + b"\r\n"
