"""Images and registries (Engine API, "Image", "Distribution"): pull, push, search, what a name means there, and logging in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from lamina.api.errors import error_body
from lamina.api.filters import Filters
from lamina.daemon.registry_auth import AuthConfig, credentials_of
from lamina.daemon.render.transfers import Fields, PullLines, push_end, push_line
from lamina.daemon.router import Route
from lamina.engine import Engine
from lamina.engine.events import Event
from lamina.errors import LaminaError
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.connection import ClientGone
from lamina.http.message import InvalidRequest, encode_json
from lamina.linux.worker import run_in_worker
from lamina.oci.platform import Platform
from lamina.oci.reference import DEFAULT_DOMAIN, InvalidReference, Reference
from lamina.registry import Access, Credentials
from lamina.registry.access import HUB_KEY, host_in
from lamina.registry.inspection import Found, describe, list_tags, log_in, search
from lamina.registry.outgoing import Form

_SEARCH_FILTERS = ("is-official", "is-automated", "stars")
_MOST_FOUND = 100
_log = logging.getLogger(__name__)

Tell = Callable[[Fields], None]


class NoSuchTag(InvalidReference):
    """A push of a repository that has no image here."""

    def __init__(self, repository: str) -> None:
        super().__init__(repository, f"An image does not exist locally with the tag: {repository}")


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module; a pull begins at ``POST /images/create``, as an import does."""
    resource = Registries(engine)
    return [
        Route("POST", "/images/{name:path}/push", resource.push),
        Route("GET", "/images/search", resource.search),
        Route("GET", "/distribution/{name:path}/json", resource.describe),
        Route("POST", "/auth", resource.log_in),
    ]


class Registries:
    """The endpoints."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def pull(self, request: Request) -> StreamingResponse:
        """What is wrong before anything is fetched is told by the status, what is wrong later in the stream."""
        name = _pulled_name(request.query("fromImage"), request.query("tag"))
        platform = Platform.parse(request.query("platform")) if request.query("platform") else None
        credentials = credentials_of(request)

        async def work(tell: Tell) -> None:
            names = [name]
            if name.tag is None and name.digest is None:
                place = self._engine.exchange.place(name, credentials)
                names = [name._replace(tag=tag) for tag in await run_in_worker(list_tags, (), place)]
            for each in names:
                await self._pull(each, platform, credentials, tell)

        return await _Telling(request, work).response()

    async def _pull(
        self, name: Reference, platform: Platform | None, credentials: Credentials | None, tell: Tell
    ) -> None:
        engine = self._engine
        lines = PullLines(name)
        place = engine.exchange.place(name, credentials)
        with engine.content.lease() as lease:
            pulled = await engine.exchange.pulls.pull(
                place, platform, lease, tell=lambda progress: _tell_all(tell, lines.layer(progress))
            )
        engine.events.publish(Event("image", "pull", name.familiar, {"name": name.familiar_repository}))
        _tell_all(tell, lines.end(pulled))

    async def push(self, request: Request) -> StreamingResponse:
        """Send one tag of a repository, or all of them."""
        name = Reference.parse(request.path_params["name"])
        tag = request.query("tag") or name.tag
        if name.digest is not None:
            raise InvalidRequest("cannot push a digest reference")
        engine, credentials = self._engine, credentials_of(request)
        held = [n for n in engine.images.tags() if n.repository == name.repository and tag in (None, "", n.tag)]
        if not held:
            raise NoSuchTag(name._replace(tag=tag or None).familiar)
        form = _form(request)

        async def work(tell: Tell) -> None:
            tell({"status": f"The push refers to repository [{name.repository}]"})
            for each in sorted(held):
                image = engine.images.find(str(each))
                place = engine.exchange.place(each, credentials)
                with engine.images.hold(image.image_id):
                    pushed = await engine.exchange.pushes.push(
                        image, place, form=form, tell=lambda progress: tell(push_line(progress))
                    )
                engine.events.publish(Event("image", "push", each.familiar, {"name": each.familiar_repository}))
                _tell_all(tell, push_end(each, pushed))

        return await _Telling(request, work).response()

    async def search(self, request: Request) -> Response:
        """Repositories by a word, of the default registry or of the one that the word names."""
        term, limit = request.query("term"), request.integer("limit") or 0
        if not term:
            raise InvalidRequest("a term to search for is needed")
        if not 0 <= limit <= _MOST_FOUND:
            raise InvalidRequest(f"limit {limit} is outside the range of [1, {_MOST_FOUND}]")
        filters = Filters.parse(request.query("filters"), _SEARCH_FILTERS)
        domain, word = _searched(term)
        access = Access.of(Reference(domain, word), self._engine.exchange.settings, credentials_of(request))
        found = await run_in_worker(search, (), access, word, limit or 25)
        return json_response([_found(item) for item in found if _is_wanted(item, filters)])

    async def describe(self, request: Request) -> Response:
        """The descriptor and the platforms of what a name means at its registry."""
        name = Reference.parse_tagged(request.path_params["name"])
        place = self._engine.exchange.place(name, credentials_of(request))
        named = await run_in_worker(describe, (), place)
        pointer = named.descriptor
        return json_response(
            {
                "Descriptor": {"mediaType": pointer.media_type, "digest": str(pointer.digest), "size": pointer.size},
                "Platforms": [_platform(platform) for platform in named.platforms],
            }
        )

    async def log_in(self, request: Request) -> Response:
        """Whether a registry knows who logs in."""
        config = await request.json(AuthConfig)
        server = config.serveraddress or HUB_KEY
        domain = host_in(server)
        if domain in ("index.docker.io", "registry-1.docker.io", ""):
            domain = DEFAULT_DOMAIN
        access = Access.of(Reference(domain, ""), self._engine.exchange.settings, config.meaning)
        token = await run_in_worker(log_in, (), access)
        return json_response({"Status": "Login Succeeded", "IdentityToken": token})


def _tell_all(tell: Tell, lines: Iterable[Fields]) -> None:
    for line in lines:
        tell(line)


class _Telling:
    """Work that tells lines, sent to a client while it goes on; it ends when the client goes away."""

    def __init__(self, request: Request, work: Callable[[Tell], Awaitable[None]]) -> None:
        self._request = request
        self._lines: asyncio.Queue[Fields | None] = asyncio.Queue()
        self._work = asyncio.ensure_future(work(self._lines.put_nowait))
        self._work.add_done_callback(lambda _: self._lines.put_nowait(None))

    async def response(self) -> StreamingResponse:
        """The answer, once there is a line. Raises what befell the work before that."""
        try:
            with self._request.cancel_when_gone():
                first = await self._lines.get()
        except BaseException:
            await self.aclose()
            raise
        if first is None:
            self._work.result()
        self._sending = self._stream(first)
        return StreamingResponse(self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._sending

    async def aclose(self) -> None:
        """End the work, also when nobody ever read from it."""
        self._work.cancel()
        await asyncio.wait((self._work,))

    async def _stream(self, first: Fields | None) -> AsyncGenerator[bytes, None]:
        gone = asyncio.ensure_future(self._request.disconnected.wait())
        gone.add_done_callback(lambda _: self._lines.put_nowait(None))
        try:
            line = first
            while line is not None:
                yield encode_json(line) + b"\r\n"
                line = await self._lines.get()
            if not self._work.done():
                raise ClientGone("the client of a transfer went away")
            error = self._work.exception()
            if error is not None:
                if not isinstance(error, LaminaError):
                    _log.error("a transfer failed", exc_info=error)
                body = error_body(error)
                yield encode_json({"errorDetail": body, "error": body["message"]}) + b"\r\n"
        finally:
            gone.cancel()
            await self.aclose()


def _pulled_name(text: str, tag: str) -> Reference:
    """What ``fromImage`` and ``tag`` mean together; a tag may be a digest, and stands against the name's own."""
    name = Reference.parse(text)
    if not tag or name.digest is not None:
        return name
    if ":" in tag:
        return Reference.parse(f"{name._replace(tag=None)}@{tag}")
    return Reference.parse(f"{name._replace(tag=None)}:{tag}")


def _form(request: Request) -> Form:
    """lamina's own parameters of a push: ``compression`` and ``level``."""
    kind = request.query("compression")
    if kind not in ("", "gzip", "zstd", "none"):
        raise InvalidRequest(f"unknown compression {kind!r}: gzip, zstd and none are known")
    level = request.integer("level")
    if level is not None and not 1 <= level <= (22 if kind == "zstd" else 9):
        raise InvalidRequest(f"compression level {level} is out of range")
    return Form(kind or "gzip", level, forced=bool(kind))  # type: ignore[arg-type]


def _searched(term: str) -> tuple[str, str]:
    """The registry and the word of a search term."""
    first, slash, rest = term.partition("/")
    if slash and (any(c in first for c in ".:") or first == "localhost"):
        return (DEFAULT_DOMAIN if first in ("docker.io", "index.docker.io") else first), rest
    return DEFAULT_DOMAIN, term


def _is_wanted(item: Found, filters: Filters) -> bool:
    stars = max((int(text) for text in filters.values_of("stars") if text.isascii() and text.isdigit()), default=0)
    official = filters.boolean("is-official")
    return item.stars >= stars and official in (None, item.official) and filters.boolean("is-automated") is not True


def _found(item: Found) -> dict[str, Any]:
    return {
        "name": item.name,
        "description": item.description,
        "star_count": item.stars,
        "is_official": item.official,
        "is_automated": False,
    }


def _platform(platform: Platform) -> dict[str, str]:
    shown = {"architecture": platform.architecture, "os": platform.os}
    return shown | ({"variant": platform.variant} if platform.variant else {})
