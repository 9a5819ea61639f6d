"""Scrubbing: every blob is hashed again from time to time, in the background and not faster than it was told.

A blob whose bytes are no longer what they were is set aside under ``ROOT/damaged`` and told of. For clients it is not there then: whoever
pushes it brings it back for all repositories that have it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
from dataclasses import dataclass
from typing import BinaryIO

from lamina.oci.digest import Digest
from lamina.registry_server.storage import Storage
from lamina.state import Database

_BLOCK_BYTES = 1 << 20
_log = logging.getLogger("lamina.registry")


@dataclass(frozen=True)
class Scrubbed:
    """What a round found: how many blobs were hashed, and those that are damaged or lost."""

    blobs: int
    damaged: tuple[Digest, ...]


async def scrub(database: Database, storage: Storage, bytes_per_s: float) -> Scrubbed:
    """Hash every blob once, *bytes_per_s* at most (0 for as fast as it goes)."""
    digests = await database.read(
        lambda c: [Digest(row["digest"]) for row in c.execute("SELECT digest FROM blob ORDER BY digest")]
    )
    damaged = []
    for digest in digests:
        if not await asyncio.to_thread(_is_sound, storage, digest, bytes_per_s) and await _is_meant(database, digest):
            _log.error("blob %s is damaged: it is set aside, until somebody pushes it again", digest)
            await database.write(lambda c, d=digest: _set_aside(c, storage, d))  # type: ignore[misc]
            damaged.append(digest)
    return Scrubbed(len(digests), tuple(damaged))


async def _is_meant(database: Database, digest: Digest) -> bool:
    """Whether there is still to be such a blob: it may have been collected while it was read."""
    query = "SELECT 1 FROM blob WHERE digest = ?"
    return await database.read(lambda c: c.execute(query, (str(digest),)).fetchone()) is not None


def _set_aside(connection: sqlite3.Connection, storage: Storage, digest: Digest) -> None:
    storage.set_aside(digest)


def _is_sound(storage: Storage, digest: Digest, bytes_per_s: float) -> bool:
    try:
        with storage.open_blob(digest) as file:
            return _hash_slowly(file, digest.algorithm, bytes_per_s) == digest
    except OSError:
        return False


def _hash_slowly(file: BinaryIO, algorithm: str, bytes_per_s: float) -> str:
    state, begun, done = hashlib.new(algorithm), time.monotonic(), 0
    while data := file.read(_BLOCK_BYTES):
        state.update(data)
        done += len(data)
        if bytes_per_s:
            time.sleep(max(0.0, done / bytes_per_s - (time.monotonic() - begun)))
    return f"{algorithm}:{state.hexdigest()}"
