"""Names for what a request can carry: ``GET /containers/json?all`` of a query, ``HostConfig.Memory`` of a body.

A field is named after the schema that it belongs to. Bodies without a name are called by their endpoint's last word: ``create``,
``update``, ``exec``, ``start``; what an inner object without a name has is called by the path to it, as in
``Mount.BindOptions.Propagation``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from compat.api_specification import specification

_COVERED = re.compile(r"/(containers/.*|exec/.*|commit|events|system/df)")
_VERSION = re.compile(r"/v1\.[0-9]+(?=/)")


_LINK = re.compile(r"(/containers/[^/]+)/[^/]+")


def template_of(method: str, url: str) -> str | None:
    """The specification's path for a URL; the one that says more of it literally, if two fit."""
    path = _VERSION.sub("", urlsplit(url).path, count=1)
    if method == "DELETE" and (link := _LINK.fullmatch(path)):
        path = link[1]  # a link's name is the container's, and behind it the alias
    paths = specification()["paths"]
    fitting = [t for t in paths if method.lower() in paths[t] and _pattern(t).fullmatch(path)]
    return min(fitting, key=lambda t: t.count("{"), default=None)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)))


def every_key() -> set[str]:
    """All that the endpoints of containers know."""
    found = set()
    for path, operations in specification()["paths"].items():
        if _COVERED.fullmatch(path):
            for method, operation in operations.items():
                for parameter in operation.get("parameters", []):
                    if parameter["in"] == "query":
                        found.add(f"{method.upper()} {path}?{parameter['name']}")
                    elif parameter["in"] == "body":
                        found.update(_of_schema(path.rpartition("/")[2], parameter["schema"], frozenset()))
    return found


def keys_in(method: str, url: str, body: Any) -> set[str]:
    """What a request carried."""
    template = template_of(method, url)
    if template is None or not _COVERED.fullmatch(template):
        return set()
    found = {f"{method} {template}?{name}" for name in parse_qs(urlsplit(url).query, keep_blank_values=True)}
    for parameter in specification()["paths"][template][method.lower()].get("parameters", []):
        if parameter["in"] == "body" and "binary" not in str(parameter["schema"]) and body:
            found.update(_of_value(template.rpartition("/")[2], parameter["schema"], json.loads(body)))
    return found


def _resolved(owner: str, schema: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A schema with the name that it has, or that of its place."""
    while "$ref" in schema:
        owner = schema["$ref"].rpartition("/")[2]
        schema = specification()["definitions"][owner]
    return owner, schema


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an object with those of the ones that it is made of."""
    fields: dict[str, Any] = {}
    for part in schema.get("allOf", []):
        fields.update(_properties(_resolved("", part)[1]))
    fields.update(schema.get("properties", {}))
    return fields


def _inner(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the items of a list, or the values of a map, are."""
    inner = schema.get("items") or schema.get("additionalProperties")
    return inner if isinstance(inner, dict) else None


def _of_schema(owner: str, schema: Mapping[str, Any], seen: frozenset[str]) -> Iterator[str]:
    owner, schema = _resolved(owner, schema)
    if owner in seen:
        return
    inner = _inner(schema)
    if inner is not None:
        yield from _of_schema(owner, inner, seen)
    for name, field in _properties(schema).items():
        yield f"{owner}.{name}"
        yield from _of_schema(f"{owner}.{name}", field, seen | {owner})


def _of_value(owner: str, schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    owner, schema = _resolved(owner, schema)
    inner = _inner(schema)
    if inner is not None and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _of_value(owner, inner, item)
    if isinstance(value, dict):
        given = {name.lower(): inner for name, inner in value.items()}  # Go's JSON takes them for the same
        for name, field in _properties(schema).items():
            if given.get(name.lower()) is not None:
                yield f"{owner}.{name}"
                yield from _of_value(f"{owner}.{name}", field, given[name.lower()])
