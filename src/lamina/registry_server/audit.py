"""The audit log: a line of JSON for everything that changes something, and for everything that was not allowed."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import msgspec

_ALLOWED_READS = ("GET", "HEAD")
_log = logging.getLogger("lamina.registry")


class AuditLog:
    """Appends to a file, which several processes may share, and which may be moved away at any time; without one nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def tell(self, *, user: str, client: str, method: str, repository: str, what: str, status: int) -> None:
        """Note a request, if it is one of those that are noted."""
        if self._path is None or (method in _ALLOWED_READS and status not in (401, 403, 429)):
            return
        line = msgspec.json.encode(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "user": user,
                "client": client,
                "method": method,
                "repository": repository,
                "what": what,
                "status": status,
            }
        )
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, line + b"\n")
            finally:
                os.close(fd)
        except OSError as error:  # what was done is done, and is told here instead
            _log.error("%s: %s; it was %s", self._path, error.strerror, line.decode())
