"""Exec (Engine API, "Exec"): create, start, resize, inspect."""

from __future__ import annotations

from contextlib import closing, suppress

import msgspec

from lamina.container.config import ExecConfig, docker_name
from lamina.container.execs import ExecSession
from lamina.daemon.joining import Joint, carry, detach_keys, stream_type
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.errors import Conflict, ContainerStartError, InvalidArgument, LaminaError
from lamina.http import Request, Response, json_response
from lamina.http.connection import ClientGone
from lamina.http.message import InvalidRequest


class _StartBody(msgspec.Struct, rename=docker_name):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _Execs(engine)
    return [
        Route("POST", "/containers/{id}/exec", resource.create),
        Route("POST", "/exec/{id}/start", resource.start),
        Route("POST", "/exec/{id}/resize", resource.resize),
        Route("GET", "/exec/{id}/json", resource.inspect),
    ]


class _Execs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, request: Request) -> ExecSession:
        return self._engine.execs.get(request.path_params["id"])

    async def create(self, request: Request) -> Response:
        record = self._engine.containers.find(request.path_params["id"])
        config = await request.json(ExecConfig)
        detach_keys(config.detach_keys)
        return json_response({"Id": self._engine.execs.create(record, config).id}, 201)

    async def start(self, request: Request) -> Response | None:
        session = self._find(request)
        body = await request.json(_StartBody)
        execs, config = self._engine.execs, session.config
        record = execs.check_startable(session)
        size = _size(body.console_size or config.console_size)
        if body.detach:
            try:
                await execs.start(session, size)
            except ContainerStartError as error:
                raise InvalidArgument(error.message) from None
            return Response(200)
        shown = {stream for stream, wanted in ((1, config.attach_stdout), (2, config.attach_stderr)) if wanted}
        keys = detach_keys(config.detach_keys) if config.tty else None
        joint = Joint(shown, body.tty, config.attach_stdin, closes_input=not config.tty, keys=keys)
        subscription = session.console.subscribe()
        try:
            raw = await request.hijack(stream_type(request, plain=body.tty))
            with closing(raw), suppress(ClientGone, ConnectionError):  # a client may go whenever it likes
                try:
                    await execs.start(session, size)
                except LaminaError as error:
                    await raw.write(joint.encode(1, f"{error.message}\r\n".encode()))
                    return None
                if await carry(raw, session.console, subscription, joint):
                    self._engine.lifecycle.tell("exec_detach", record, {"execID": session.id})
                else:
                    await session.ended.wait()  # the exit code is asked for as soon as the stream ends
        finally:
            subscription.close()
        return None

    async def resize(self, request: Request) -> Response:
        session = self._find(request)
        height, width = request.integer("h"), request.integer("w")
        if height is None or width is None:
            raise InvalidRequest("a terminal's size needs a height and a width: h and w")
        if not (0 <= height < 1 << 16 and 0 <= width < 1 << 16):
            raise InvalidRequest(f"a terminal cannot have {height} lines of {width} columns")
        try:
            await self._engine.execs.until_begun(session)
            self._engine.execs.resize(session, height, width)
        except (OSError, TimeoutError):
            raise Conflict(f"exec session {session.id} has no terminal that runs") from None
        return Response(200)

    async def inspect(self, request: Request) -> Response:
        session = self._find(request)
        config = session.config
        arguments = config.cmd or [""]
        return json_response(
            {
                "ID": session.id,
                "Running": session.is_running,
                "ExitCode": session.exit_code,
                "ProcessConfig": {
                    "tty": config.tty,
                    "entrypoint": arguments[0],
                    "arguments": arguments[1:],
                    "privileged": config.privileged,
                    **({"user": config.user} if config.user else {}),
                },
                "OpenStdin": config.attach_stdin,
                "OpenStderr": config.attach_stderr,
                "OpenStdout": config.attach_stdout,
                "CanRemove": session.ended_s is not None,
                "ContainerID": session.container_id,
                "DetachKeys": config.detach_keys,
                "Pid": session.pid,
            }
        )


def _size(given: list[int] | None) -> tuple[int, int] | None:
    if given is None:
        return None
    if len(given) != 2 or min(given) < 0:
        raise InvalidRequest("ConsoleSize must be a height and a width")
    return given[0], given[1]
