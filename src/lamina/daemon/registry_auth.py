"""What clients know of registries: the headers ``X-Registry-Auth`` and ``X-Registry-Config`` (Engine API, "Authentication")."""

from __future__ import annotations

import base64

import msgspec

from lamina.http import Request, documents
from lamina.http.message import InvalidRequest
from lamina.registry import Credentials


class AuthConfig(msgspec.Struct):
    """A registry's entry: ``auth`` is name and password in base64, which stands in for them."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    @property
    def meaning(self) -> Credentials:
        """As the registry client takes it. Raises InvalidRequest."""
        username, password = self.username, self.password
        if self.auth and not username:
            try:
                decoded = base64.b64decode(self.auth + "==").decode("utf-8", "replace")
            except ValueError:
                raise InvalidRequest("a registry's auth is not base64") from None
            username, _, password = decoded.partition(":")
        return Credentials(username, password.strip("\0"), self.identitytoken, self.registrytoken)


def credentials_of_all(request: Request) -> dict[str, Credentials]:
    """X-Registry-Config: base64url of JSON, by registry. As with dockerd, what cannot be read counts as nobody's."""
    try:
        data = _decoded(request.headers.get("X-Registry-Config", "")) or b"null"
        known = documents.decode(data, dict[str, AuthConfig] | None) or {}  # type: ignore[arg-type]
        return {name: auth.meaning for name, auth in known.items()}
    except (ValueError, InvalidRequest):
        return {}


def credentials_of(request: Request) -> Credentials | None:
    """X-Registry-Auth: those for the one registry that a request is about; None for nobody's, which is what cannot be read, too."""
    try:
        data = _decoded(request.headers.get("X-Registry-Auth", "")) or b"null"
        known = documents.decode(data, AuthConfig | None)  # type: ignore[arg-type]
        meaning = known.meaning if known is not None else None
    except (ValueError, InvalidRequest):
        return None
    return meaning if meaning != Credentials() else None


def _decoded(header: str) -> bytes:
    return base64.urlsafe_b64decode(header + "==")
