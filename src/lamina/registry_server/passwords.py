"""Names and passwords of an htpasswd file; hashes are bcrypt's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.registry_server.errors import unauthorized

_REMEMBERED_S = 300
_MOST_REMEMBERED = 1000
_THREADS = 2
"""How many passwords are hashed at once: who guesses must not keep uploads waiting."""
_UNKNOWN = b"$2b$05$abcdefghijklmnopqrstuuSL1AwkUKEpPOmCFO0cvBR9Wc0sL.Pm6"
"""A hash that no password has: who does not exist takes as long to refuse as who gives a wrong password."""


class InvalidPasswords(InvalidArgument):
    """An htpasswd file cannot be read, or has other hashes than bcrypt's."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class Passwords:
    """A file's names and hashes; a file that changes is read anew. Raises InvalidPasswords when it is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes: dict[str, bytes] = {}
        self._read_ns = -1
        self._known: dict[bytes, tuple[str, float]] = {}
        self._salt = secrets.token_bytes(16)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="passwords")
        self._read()

    async def user(self, text: str) -> str:
        """The name that goes with what follows ``Basic``. Raises RegistryError for a wrong password."""
        try:
            name, _, password = base64.b64decode(text).decode().partition(":")
        except ValueError:
            raise unauthorized("the Authorization is not base64") from None
        return await self.checked(name, password)

    async def checked(self, name: str, password: str) -> str:
        """The name, if the password is its own. Raises RegistryError."""
        self._reread()
        stored = self._hashes.get(name)
        key = hashlib.sha256(b"\0".join((self._salt, name.encode(), password.encode(), stored or b""))).digest()
        remembered = self._known.get(key)  # bcrypt is slow on purpose, and an image has many requests
        if remembered is not None and remembered[1] > time.monotonic():
            return remembered[0]
        like = next(iter(self._hashes.values()), _UNKNOWN)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._threads, _matches, password, stored, like):
            raise unauthorized("incorrect username or password")
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (name, time.monotonic() + _REMEMBERED_S)
        return name

    def mark_of(self, name: str) -> str:
        """What changes with a user's password; empty for no user."""
        self._reread()
        stored = self._hashes.get(name)
        return hashlib.sha256(stored).hexdigest()[:16] if stored is not None else ""

    def _reread(self) -> None:
        try:
            if self._path.stat().st_mtime_ns != self._read_ns:
                self._read()
        except (OSError, InvalidPasswords):
            pass  # what was read last counts

    def _read(self) -> None:
        try:
            read_ns = self._path.stat().st_mtime_ns
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidPasswords(self._path, str(error)) from None
        hashes = {}
        for line in lines:
            if line.strip() and not line.startswith("#"):
                name, _, hashed = line.strip().partition(":")
                if not hashed.startswith(("$2a$", "$2b$", "$2y$")):
                    raise InvalidPasswords(self._path, f"{name!r} has no bcrypt hash: htpasswd -B makes them")
                hashes[name] = hashed.encode()
        self._hashes, self._read_ns = hashes, read_ns


def _matches(password: str, stored: bytes | None, like: bytes) -> bool:
    """Whether a password is that of a hash; for no hash as slowly as for one *like* the others."""
    import bcrypt

    try:
        return bcrypt.checkpw(password.encode()[:72], stored or like[:7] + _UNKNOWN[7:]) and stored is not None
    except ValueError:
        return False
