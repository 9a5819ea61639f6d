"""Scrubbing: every blob is hashed again from time to time, in the background and not faster than it was told.

A blob whose bytes are no longer what they were is set aside under ``ROOT/damaged`` and told of. For clients it is not there then: whoever
pushes it brings it back for all repositories that have it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
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
    stopped = threading.Event()
    try:
        for digest in digests:
            inode = await asyncio.to_thread(_damaged_inode, storage, digest, bytes_per_s, stopped)
            if inode is not None:
                _log.error("blob %s is damaged: it is set aside, until somebody pushes it again", digest)
                await database.write(lambda c, d=digest, i=inode: storage.set_aside(d, i))  # type: ignore[misc]
                damaged.append(digest)
    finally:
        stopped.set()
    return Scrubbed(len(digests), tuple(damaged))


def _damaged_inode(storage: Storage, digest: Digest, bytes_per_s: float, stopped: threading.Event) -> int | None:
    """The file of a blob whose bytes are not what they were; None for a sound one, and for what could not be read for now."""
    try:
        with storage.open_blob(digest) as file:
            actual = _hash_slowly(file, digest.algorithm, bytes_per_s, stopped)
            return os.fstat(file.fileno()).st_ino if actual not in (None, digest) else None
    except FileNotFoundError:
        return None  # collected meanwhile, or lost: whoever asks for it is told so
    except OSError as error:
        _log.warning("blob %s could not be read: %s", digest, error)
        return None


def _hash_slowly(file: BinaryIO, algorithm: str, bytes_per_s: float, stopped: threading.Event) -> str | None:
    """The digest of a file; None if there was no time for all of it."""
    state, begun, done = hashlib.new(algorithm), time.monotonic(), 0
    while data := file.read(_BLOCK_BYTES):
        state.update(data)
        done += len(data)
        pause_s = done / bytes_per_s - (time.monotonic() - begun) if bytes_per_s else 0.0
        if stopped.wait(max(0.0, pause_s)):
            return None
    return f"{algorithm}:{state.hexdigest()}"
