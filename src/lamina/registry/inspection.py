"""Questions about registries: who one is, what a name there means, what is there. Everything blocks and is meant for a worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import Descriptor, InvalidDocument, UnsupportedMediaType
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index, parse_document
from lamina.oci.platform import Platform
from lamina.oci.reference import DEFAULT_DOMAIN
from lamina.registry.access import Access
from lamina.registry.errors import RegistryRefused
from lamina.registry.hosts import Host
from lamina.registry.places import RegistryPlace

if TYPE_CHECKING:
    from lamina.registry.connection import Connection

_MAXIMUM = 32 << 20
_MOST_PAGES = 100


@dataclass(frozen=True)
class Named:
    """What a name means at a registry: a manifest or an index, its bytes, and the platforms that it is for."""

    descriptor: Descriptor
    data: bytes
    platforms: tuple[Platform, ...]


@dataclass(frozen=True)
class Found:
    """A repository that a search found."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False


def log_in(access: Access) -> str:
    """Ask a registry whether it knows who is asking; returns an identity token if it gives one, else an empty text.

    Raises LoginFailed, RegistryUnreachable.
    """
    return _connection(access).log_in()


def describe(place: RegistryPlace) -> Named:
    """What a name means. Raises NotInRegistry, InvalidDocument and the registry's errors."""
    media_type, data = place.manifest()
    digest = place.access.reference.digest or Digest.of(data)
    try:
        document = parse_document(data, media_type)
    except (InvalidDocument, UnsupportedMediaType):
        return Named(Descriptor(media_type, digest, len(data)), data, ())
    if isinstance(document, Index):
        entries = [entry.platform or {} for entry in document.manifests]
        platforms = [Platform(*(str(e.get(n) or "") for n in ("os", "architecture", "variant"))) for e in entries if e]
    else:
        try:
            platforms = [ImageConfig.parse(place.read_blob(document.config.digest)).platform]
        except InvalidDocument:
            platforms = []  # an artifact
    return Named(Descriptor(document.media_type, digest, len(data)), data, tuple(platforms))


def list_tags(place: RegistryPlace) -> list[str]:
    """All tags of a repository. Raises NotInRegistry."""
    return list(place.repository.tags())


def list_repositories(access: Access, limit: int | None = None) -> list[str]:
    """The repositories of a registry, where it tells (docker registry v2, "Listing Repositories")."""
    from lamina.registry.repository import next_page

    connection = _connection(access)
    names: list[str] = []
    below = "_catalog?n=1000"
    for _ in range(_MOST_PAGES):
        document, link = _json(connection, below, ("registry:catalog:*",))
        listed = document.get("repositories") if isinstance(document, dict) else None
        if not isinstance(listed, list) and listed is not None:
            raise RegistryRefused(access.host, 200, "and no list of repositories")
        names += map(str, listed or [])
        following = next_page(link)
        if not following or (limit is not None and len(names) >= limit):
            break
        below = "_catalog?" + "&".join(f"{k}={quote(v)}" for k, v in following.items())
    return names


def search(access: Access, term: str, limit: int) -> list[Found]:
    """Repositories by a word, by docker's old index API, or by the catalog of a registry that has no such."""
    host = access.hosts[-1]
    if access.reference.domain == DEFAULT_DOMAIN:
        host = Host("https://index.docker.io/v2")
    connection = _connection(access, host)
    try:
        document, _ = _json(connection, f"/v1/search?q={quote(term)}&n={limit}", ())
        results = document["results"]
        return [
            Found(
                str(item.get("name", "")),
                str(item.get("description") or ""),
                int(item.get("star_count") or 0),
                bool(item.get("is_official")),
            )
            for item in results
        ][:limit]
    except RegistryRefused as error:
        if error.status != 404 or access.reference.domain == DEFAULT_DOMAIN:
            raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RegistryRefused(host.name, 200, "and no search results") from None
    prefix = f"{access.reference.domain}/"
    return [Found(prefix + name) for name in list_repositories(access) if term in name][:limit]


def _connection(access: Access, host: Host | None = None) -> Connection:
    # here and not above: a daemon names these functions, and only its workers run them and need urllib3
    from lamina.registry.connection import Connection

    return Connection(host or access.hosts[-1], access)


def _json(connection: Connection, below: str, scopes: tuple[str, ...]) -> tuple[Any, str]:
    from lamina.registry.connection import finish

    response = connection.ask_server("GET", below, scopes=scopes)
    try:
        connection.expect(response, urlsplit(connection.host.base).netloc, 200)
        data = connection.read(response, _MAXIMUM, connection.host.name)
        return json.loads(data), response.headers.get("Link", "")
    except (ValueError, RecursionError):
        raise RegistryRefused(connection.host.name, response.status, "and no JSON") from None
    finally:
        finish(response)
