"""Who may do what: names and passwords of an htpasswd file (bcrypt), and what those may do who give none."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lamina.errors import InvalidArgument
from lamina.registry_server.errors import denied, unauthorized

Action = Literal["pull", "push", "delete"]
Anonymous = Literal["none", "pull", "push"]

_REMEMBERED_S = 300
_MOST_REMEMBERED = 1000
_UNKNOWN = b"$2b$05$abcdefghijklmnopqrstuuSL1AwkUKEpPOmCFO0cvBR9Wc0sL.Pm6"
"""A hash that no password has: who does not exist takes as long to refuse as who gives a wrong password."""


class InvalidPasswords(InvalidArgument):
    """An htpasswd file cannot be read, or has other hashes than bcrypt's."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


@dataclass
class Access:
    """Decides. *anonymous* is what may be done without a name; without *passwords* there are no names."""

    passwords: Path | None = None
    anonymous: Anonymous = "push"
    _hashes: dict[str, bytes] = field(default_factory=dict)
    _read_ns: int = -1
    _known: dict[bytes, tuple[str, float]] = field(default_factory=dict)
    _salt: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def open(self) -> None:
        """Read the file for the first time. Raises InvalidPasswords."""
        if self.passwords is not None:
            self._read(self.passwords)

    async def check(self, authorization: str, action: Action) -> str:
        """Who is asking, an empty text for nobody. Raises RegistryError if that one may not do this."""
        user = await self._user(authorization)
        if user:
            return user
        allowed = {"none": (), "pull": ("pull",), "push": ("pull", "push", "delete")}[self.anonymous]
        if action not in allowed:
            raise unauthorized() if self.passwords is not None else denied(action)
        return ""

    async def _user(self, authorization: str) -> str:
        """The name that goes with a header. Raises RegistryError for a wrong password."""
        scheme, _, text = authorization.partition(" ")
        if self.passwords is None or scheme.lower() != "basic":
            return ""
        try:
            name, _, password = base64.b64decode(text).decode().partition(":")
        except ValueError:
            raise unauthorized("the Authorization is not base64") from None
        self._reread(self.passwords)
        stored = self._hashes.get(name)
        key = hashlib.sha256(b"\0".join((self._salt, name.encode(), password.encode(), stored or b""))).digest()
        remembered = self._known.get(key)
        if remembered is not None and remembered[1] > time.monotonic():
            return remembered[0]
        if not await asyncio.to_thread(_matches, password, stored):
            raise unauthorized("incorrect username or password")
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (name, time.monotonic() + _REMEMBERED_S)
        return name

    def _reread(self, path: Path) -> None:
        """Take over a file that has changed."""
        try:
            if path.stat().st_mtime_ns != self._read_ns:
                self._read(path)
        except OSError:
            pass  # what was read last counts

    def _read(self, path: Path) -> None:
        try:
            read_ns = path.stat().st_mtime_ns
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidPasswords(path, str(error)) from None
        hashes = {}
        for line in lines:
            if line.strip() and not line.startswith("#"):
                name, _, hashed = line.strip().partition(":")
                if not hashed.startswith(("$2a$", "$2b$", "$2y$")):
                    raise InvalidPasswords(path, f"{name!r} has no bcrypt hash: htpasswd -B makes them")
                hashes[name] = hashed.encode()
        self._hashes, self._read_ns = hashes, read_ns


def _matches(password: str, stored: bytes | None) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password.encode()[:72], stored or _UNKNOWN) and stored is not None
    except ValueError:
        return False
