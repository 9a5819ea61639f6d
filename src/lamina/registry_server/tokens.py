"""Tokens that the registry issues itself (docker's "Token Authentication Specification", and its OAuth form).

They are JSON Web Tokens, signed with a key that lies with the storage, so that every process knows the others'.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from lamina.linux.files import sync_directory
from lamina.registry_server.errors import unauthorized
from lamina.registry_server.rules import ACTIONS, Action

SERVICE = "lamina-registry"
LIFE_S = 300
_REFRESH_LIFE_S = 90 * 86400
_ALGORITHM = "HS256"


@dataclass(frozen=True)
class Grant:
    """What a token allows: a user, and actions by repository."""

    user: str
    actions: dict[str, frozenset[str]]

    def allows(self, action: Action, repository: str) -> bool:
        """Whether it allows this."""
        return action in self.actions.get(repository, ())


class Tokens:
    """Makes and reads tokens."""

    def __init__(self, root: Path) -> None:
        self._key = _key(root / "token.key")

    def issue(self, user: str, granted: Sequence[tuple[str, str, Sequence[str]]]) -> str:
        """A token for (kind, name, actions)."""
        access = [{"type": kind, "name": name, "actions": list(actions)} for kind, name, actions in granted]
        return self._signed(user, "access", LIFE_S, {"access": access})

    def issue_refresh(self, user: str, mark: str) -> str:
        """A token for further tokens, which a login keeps in the place of a password; *mark* is the password's."""
        return self._signed(user, "refresh", _REFRESH_LIFE_S, {"mark": mark})

    def read(self, text: str) -> Grant:
        """What a token allows. Raises RegistryError for one that is not ours, or too old."""
        claims = self._claims(text, "access")
        actions: dict[str, frozenset[str]] = {}
        for entry in claims.get("access", []):
            name = entry["name"] if entry["type"] == "repository" else f"{entry['type']}:{entry['name']}"
            actions[name] = actions.get(name, frozenset()) | frozenset(entry["actions"])
        return Grant(claims.get("sub", ""), actions)

    def user_of_refresh(self, text: str) -> tuple[str, str]:
        """Whose refresh token this is, and the mark of the password that it stands for. Raises RegistryError."""
        claims = self._claims(text, "refresh")
        return str(claims.get("sub", "")), str(claims.get("mark", ""))

    def _signed(self, user: str, kind: str, life_s: int, more: dict[str, Any]) -> str:
        now = int(time.time())
        claims = {"iss": SERVICE, "aud": SERVICE, "sub": user, "iat": now, "nbf": now - 10, "exp": now + life_s}
        return jwt.encode(
            {**claims, "kind": kind, "jti": secrets.token_hex(8), **more}, self._key, algorithm=_ALGORITHM
        )

    def _claims(self, text: str, kind: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                text, self._key, algorithms=[_ALGORITHM], audience=SERVICE, issuer=SERVICE
            )
        except jwt.InvalidTokenError as error:
            raise unauthorized(f"invalid token: {error}") from None
        if claims.get("kind") != kind:
            raise unauthorized("invalid token: it is of another kind")
        return claims


def wanted_of(scopes: Iterable[str]) -> list[tuple[str, str, list[str]]]:
    """The (kind, name, actions) of scopes such as ``repository:team/app:pull,push``; what is no scope is left out."""
    found: list[tuple[str, str, list[str]]] = []
    for scope in " ".join(scopes).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if name:
            wanted = actions.split(",")
            if "*" in wanted and kind == "repository":
                wanted = list(map(str, ACTIONS))
            found.append((kind, name, wanted))
    return found


def _key(path: Path) -> bytes:
    """The key, which is made once; two processes that make it at once end with the same."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, secrets.token_bytes(32))
        os.fsync(fd)
        with suppress(FileExistsError):
            os.link(temporary, path)
            sync_directory(path.parent)
    finally:
        os.close(fd)
        temporary.unlink()
    return path.read_bytes()
