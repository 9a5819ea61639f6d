"""Blobs on their way in: bytes are hashed while they arrive, written, and become a blob when their digest is what it was said to be.

The hash of an upload that goes on in another process, or under another algorithm than was begun with, is made of its file in the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Any

from lamina.linux.files import start_writeback
from lamina.oci.digest import Digest
from lamina.registry_server.catalog import Catalog
from lamina.registry_server.errors import (
    digest_invalid,
    range_invalid,
    size_invalid,
    too_large,
    upload_unknown,
)
from lamina.registry_server.storage import Storage, hash_of

_BLOCK_BYTES = 1 << 20
_WRITEBACK_BYTES = 32 << 20


@dataclass
class _Hashing:
    """The hash of an upload's first ``size`` bytes."""

    state: Any = field(default_factory=hashlib.sha256)
    size: int = 0


class Uploads:
    """The uploads that this process has a part in."""

    def __init__(self, storage: Storage, catalog: Catalog, limit: int) -> None:
        self._storage = storage
        self._catalog = catalog
        self._limit = limit
        self._hashing: dict[str, _Hashing] = {}
        self._busy: set[str] = set()

    async def begin(self, repository: str) -> str:
        """Begin an upload; returns its ID."""
        upload_id = secrets.token_hex(16)
        self._storage.upload_path(upload_id).touch(mode=0o600, exist_ok=False)
        await self._catalog.begin_upload(repository, upload_id)
        self._hashing[upload_id] = _Hashing()
        return upload_id

    async def size(self, repository: str, upload_id: str) -> int:
        """How many bytes of an upload are here. Raises RegistryError."""
        await self._catalog.check_upload(repository, upload_id)
        return self._size(upload_id)

    async def append(
        self, repository: str, upload_id: str, body: AsyncIterable[bytes], *, start: int | None, length: int | None
    ) -> int:
        """Add bytes; returns how many there are then.

        *start* is where the client says that they belong, *length* how many it says they are. What came before a client went away
        stays. Raises RegistryError.
        """
        await self._catalog.check_upload(repository, upload_id)
        if upload_id in self._busy:
            raise range_invalid("another request adds to this upload")
        self._busy.add(upload_id)
        try:
            size = self._size(upload_id)
            if start is not None and start != size:
                raise range_invalid(f"the bytes from {size} on are expected")
            taken = await self._take(upload_id, size, body)
            if length is not None and taken != length:
                raise size_invalid(f"{taken} bytes came, and {length} were told")
            return size + taken
        finally:
            self._busy.discard(upload_id)

    async def finish(self, repository: str, upload_id: str, digest: Digest) -> int:
        """Make an upload the blob with this digest; returns its size. One whose bytes have another digest is given up.

        Raises RegistryError.
        """
        await self._catalog.check_upload(repository, upload_id)
        size = self._size(upload_id)
        hashing = self._hashing.pop(upload_id, None)
        path = self._storage.upload_path(upload_id)
        if hashing is not None and hashing.size == size and digest.algorithm == "sha256":
            actual = Digest(f"sha256:{hashing.state.hexdigest()}")
        else:
            actual = await asyncio.to_thread(hash_of, path, digest.algorithm)
        if actual != digest:
            await self._catalog.end_upload(upload_id)
            raise digest_invalid(f"it is {actual}")
        await asyncio.to_thread(_sync, path)
        await self._catalog.adopt(repository, upload_id, digest, size)
        return size

    async def cancel(self, repository: str, upload_id: str) -> None:
        """Give an upload up. Raises RegistryError."""
        await self._catalog.check_upload(repository, upload_id)
        self._hashing.pop(upload_id, None)
        await self._catalog.end_upload(upload_id)

    async def _take(self, upload_id: str, size: int, body: AsyncIterable[bytes]) -> int:
        hashing = self._hashing.get(upload_id)
        if hashing is not None and hashing.size != size:
            hashing = self._hashing.pop(upload_id, None) and None
        taken = 0
        fd = os.open(self._storage.upload_path(upload_id), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            written_back = size
            async for block in _blocks(body):
                if size + taken + len(block) > self._limit:
                    raise too_large("the blob", self._limit)
                if len(block) < _BLOCK_BYTES // 4:
                    _put(fd, block, hashing)
                else:
                    await asyncio.to_thread(_put, fd, block, hashing)
                taken += len(block)
                if size + taken - written_back >= _WRITEBACK_BYTES:
                    start_writeback(fd, written_back, size + taken - written_back)
                    written_back = size + taken
        finally:
            os.close(fd)
        return taken

    def _size(self, upload_id: str) -> int:
        try:
            return self._storage.upload_path(upload_id).stat().st_size
        except FileNotFoundError:
            raise upload_unknown(upload_id) from None


def _put(fd: int, block: bytes, hashing: _Hashing | None) -> None:
    """Write and hash; both let other threads run meanwhile."""
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
    if hashing is not None:
        hashing.state.update(block)
        hashing.size += len(block)


def _sync(path: os.PathLike[str]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def _blocks(body: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    """A body in larger pieces, so that each is worth a thread's while; the last bytes come also when the client goes away."""
    pieces: list[bytes] = []
    held = 0
    try:
        async for piece in body:
            pieces.append(piece)
            held += len(piece)
            if held >= _BLOCK_BYTES:
                yield b"".join(pieces)
                pieces, held = [], 0
    except ConnectionError:
        if pieces:
            yield b"".join(pieces)
        raise
    if pieces:
        yield b"".join(pieces)
