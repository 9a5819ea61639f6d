"""Which handler answers which request: method and path, with or without a version before it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from lamina.api import versions
from lamina.errors import InvalidArgument, NotFound
from lamina.http.connection import Handler
from lamina.http.message import Request

_VERSION = re.compile(r"/v(\d{1,3}\.\d{1,3})(/.*)")
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


class PageNotFound(NotFound):
    """No endpoint has this path and method."""

    def __init__(self) -> None:
        super().__init__("page not found")


class UnsupportedVersion(InvalidArgument):
    """A client speaks a version of the API that lamina does not."""


@dataclass(frozen=True)
class Route:
    """An endpoint. ``{name}`` in the template takes one part of the path, ``{name:path}`` any number.

    With *cancellable*, the handler is cancelled when its client goes away.
    """

    method: str
    template: str
    handler: Handler
    cancellable: bool = False


class Router:
    """Finds routes; the more literal of two templates that fit wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._by_first: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for route in sorted(self.routes, key=lambda r: r.template.count("{")):
            first = route.template.split("/")[1]
            self._by_first.setdefault(first, []).append((_compile(route.template), route))

    def find(self, request: Request) -> Route:
        """The route for a request, whose version and path parameters are filled in.

        As with docker, a method that an endpoint does not have is a page that is not there. Raises PageNotFound or UnsupportedVersion.
        """
        path = request.path
        match = _VERSION.fullmatch(path)
        if match:
            request.api_version = _checked_version(match.group(1))
            path = match.group(2)
        else:
            request.api_version = versions.parse(versions.CURRENT)
        for pattern, route in self._by_first.get(path.split("/", 2)[1] if path.startswith("/") else "", ()):
            found = pattern.fullmatch(path)
            if found is not None and route.method == request.method:
                request.path_params = {k: unquote(v) for k, v in found.groupdict().items()}
                return route
        raise PageNotFound()


def _compile(template: str) -> re.Pattern[str]:
    pattern = ""
    position = 0
    for match in _PARAMETER.finditer(template):
        pattern += re.escape(template[position : match.start()])
        pattern += f"(?P<{match.group(1)}>{'.+' if match.group(2) else '[^/]+'})"
        position = match.end()
    return re.compile(pattern + re.escape(template[position:]) + "/?")


def _checked_version(text: str) -> tuple[int, int]:
    wanted = versions.parse(text)
    if wanted < versions.parse(versions.MINIMUM):
        raise UnsupportedVersion(
            f"client version {text} is too old. Minimum supported API version is {versions.MINIMUM}, "
            "please upgrade your client to a newer version"
        )
    if wanted > versions.parse(versions.CURRENT):
        raise UnsupportedVersion(
            f"client version {text} is too new. Maximum supported API version is {versions.CURRENT}"
        )
    return wanted
