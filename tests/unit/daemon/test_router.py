"""Routing: templates, versions, methods."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lamina.daemon.router import PageNotFound, Route, Router, UnsupportedVersion
from lamina.http import Request, Response

_TEMPLATES = [
    ("GET", "/_ping"),
    ("HEAD", "/_ping"),
    ("GET", "/images/{name:path}/json"),
    ("GET", "/images/json"),
    ("GET", "/images/{name:path}/get"),
    ("GET", "/images/get"),
    ("DELETE", "/images/{name:path}"),
    ("GET", "/containers/{id}/json"),
    ("GET", "/containers/json"),
    ("DELETE", "/containers/{id}"),
]


async def handle(request: Request) -> Response:
    return Response(200)


def asked(method: str, path: str) -> Request:
    nothing = cast(Any, None)
    return Request(method, path, "", {}, nothing, nothing, nothing)


def found(method: str, path: str) -> tuple[str, dict[str, str]]:
    request = asked(method, path)
    route = Router(Route(m, t, handle) for m, t in _TEMPLATES).find(request)
    return route.template, dict(request.path_params)


@pytest.mark.parametrize(
    ("method", "path", "template", "params"),
    [
        ("GET", "/_ping", "/_ping", {}),
        ("GET", "/containers/json", "/containers/json", {}),
        ("GET", "/containers/json/json", "/containers/{id}/json", {"id": "json"}),
        ("GET", "/images/json", "/images/json", {}),
        ("GET", "/images/busybox/json", "/images/{name:path}/json", {"name": "busybox"}),
        ("GET", "/images/reg:5000/a/b:1/json", "/images/{name:path}/json", {"name": "reg:5000/a/b:1"}),
        ("GET", "/images/a%2Fb%3A1/json", "/images/{name:path}/json", {"name": "a/b:1"}),
        ("GET", "/images/a/json/json", "/images/{name:path}/json", {"name": "a/json"}),
        ("DELETE", "/images/a/b", "/images/{name:path}", {"name": "a/b"}),
    ],
)
def test_a_path_finds_its_route_with_and_without_version(
    method: str, path: str, template: str, params: dict[str, str]
) -> None:
    assert found(method, path) == (template, params)
    assert found(method, "/v1.47" + path) == (template, params)


def test_the_version_is_the_path_s_or_the_current_one() -> None:
    router = Router([Route("GET", "/_ping", handle)])
    for path, version in (("/v1.24/_ping", (1, 24)), ("/v1.51/_ping", (1, 51)), ("/_ping", (1, 51))):
        request = asked("GET", path)
        router.find(request)
        assert request.api_version == version


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "/v1.10/_ping",
            "client version 1.10 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/v1.99/_ping", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v2.0/_ping", "client version 2.0 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_out_of_range_are_refused_in_docker_s_words(path: str, message: str) -> None:
    with pytest.raises(UnsupportedVersion) as raised:
        found("GET", path)
    assert raised.value.message == message


@pytest.mark.parametrize("path", ["/", "", "*", "/nothing", "/containers/a/b/json", "/v1.51", "/v1.51/x", "//_ping"])
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(PageNotFound, match=r"^page not found$"):
        found("GET", path)


@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_another_method_s_path_is_not_found(method: str) -> None:
    with pytest.raises(PageNotFound):
        found(method, "/containers/json")


def test_the_routes_can_be_listed() -> None:
    router = Router(Route(m, t, handle) for m, t in _TEMPLATES)
    assert [(r.method, r.template) for r in router.routes] == _TEMPLATES
