"""The application: the engine's endpoints behind one handler, with errors told as the API tells them."""

from __future__ import annotations

import asyncio
import logging

from lamina.api.errors import error_body, status_of
from lamina.daemon.router import Route, Router
from lamina.daemon.routes import (
    builds,
    container_files,
    container_use,
    containers,
    execs,
    images,
    networks,
    registries,
    system,
    volume_care,
    volumes,
)
from lamina.engine import Engine
from lamina.errors import LaminaError
from lamina.http import Request, Response, json_response
from lamina.http.connection import Answer, ClientGone

_log = logging.getLogger(__name__)


def all_routes(engine: Engine) -> list[Route]:
    """Every endpoint."""
    modules = (
        system,
        registries,
        images,
        builds,
        containers,
        container_files,
        container_use,
        execs,
        volumes,
        volume_care,
        networks,
    )
    return [route for module in modules for route in module.routes(engine)]


class Application:
    """Answers requests."""

    def __init__(self, engine: Engine) -> None:
        self._router = Router(all_routes(engine))

    async def handle(self, request: Request) -> Answer | None:
        """Find the endpoint and let it answer; every error becomes a response."""
        try:
            route = self._router.find(request)
            if route.cancellable:
                return await _unless_gone(route, request)
            return await route.handler(request)
        except (ClientGone, ConnectionError):
            raise
        except LaminaError as error:
            status = status_of(error)
            return Response(status) if status == 304 else json_response(error_body(error), status)
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            return json_response(error_body(error), 500)


async def _unless_gone(route: Route, request: Request) -> Answer | None:
    """Run a handler that waits, and cancel it when its client has gone."""
    work = asyncio.ensure_future(route.handler(request))
    gone = asyncio.ensure_future(request.disconnected.wait())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))
            raise ClientGone("the client closed the connection")
        return work.result()
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
