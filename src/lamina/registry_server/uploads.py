"""Blobs on their way in: bytes are hashed while they arrive, written, and become a blob when their digest is what it was said to be.

The hash of an upload that goes on in another process, or under another algorithm than was begun with, is made of its file in the end.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lamina.linux.files import start_writeback
from lamina.oci.digest import Digest
from lamina.registry_server import errors
from lamina.registry_server.catalog import Catalog
from lamina.registry_server.errors import (
    RegistryError,
    digest_invalid,
    range_invalid,
    size_invalid,
    too_large,
    upload_unknown,
)
from lamina.registry_server.storage import Storage, hash_of

_BLOCK_BYTES = 1 << 20
_WRITEBACK_BYTES = 32 << 20
_MOST_HASHING = 10_000


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

    async def begin(self, repository: str) -> str:
        """Begin an upload; returns its ID."""
        upload_id = secrets.token_hex(16)
        self._storage.upload_path(upload_id).touch(mode=0o600, exist_ok=False)
        await self._catalog.begin_upload(repository, upload_id)
        while len(self._hashing) >= _MOST_HASHING:
            self._hashing.pop(
                next(iter(self._hashing))
            )  # what was given up without a word; its hash is made of its file
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
        with self._held(upload_id) as fd:
            size = os.fstat(fd).st_size
            if start is not None and start != size:
                raise range_invalid(f"the bytes from {size} on are expected")
            try:
                taken = await self._take(fd, upload_id, size, body)
            except OSError as error:
                if isinstance(error, ConnectionError):
                    raise
                await self._give_up(upload_id)
                raise errors.no_room(error.strerror or str(error)) from None
            except RegistryError:
                await self._give_up(upload_id)
                raise
        if length is not None and taken != length:
            raise size_invalid(f"{taken} bytes came, and {length} were told")
        return size + taken

    async def finish(self, repository: str, upload_id: str, digest: Digest) -> int:
        """Make an upload the blob with this digest; returns its size. One whose bytes have another digest is given up.

        Raises RegistryError.
        """
        await self._catalog.check_upload(repository, upload_id)
        with self._held(upload_id) as fd:  # until the file has its new name: nobody adds to what is hashed
            size = os.fstat(fd).st_size
            hashing = self._hashing.pop(upload_id, None)
            if hashing is not None and hashing.size == size and digest.algorithm == "sha256":
                actual = Digest(f"sha256:{hashing.state.hexdigest()}")
            else:
                actual = await asyncio.to_thread(hash_of, self._storage.upload_path(upload_id), digest.algorithm)
            if actual != digest:
                await self._give_up(upload_id)
                raise digest_invalid(f"it is {actual}")
            await asyncio.to_thread(os.fsync, fd)
            await self._catalog.adopt(repository, upload_id, digest, size)
        return size

    async def cancel(self, repository: str, upload_id: str) -> None:
        """Give an upload up. Raises RegistryError."""
        await self._catalog.check_upload(repository, upload_id)
        await self._give_up(upload_id)

    async def _give_up(self, upload_id: str) -> None:
        self._hashing.pop(upload_id, None)
        await self._catalog.end_upload(upload_id)

    @contextmanager
    def _held(self, upload_id: str) -> Iterator[int]:
        """An upload's file, which nobody else has meanwhile, in whatever process. Raises RegistryError if somebody has it."""
        path = self._storage.upload_path(upload_id)
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise upload_unknown(upload_id) from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise range_invalid("another request is at work with this upload") from None
            if not _is_still(path, fd):
                raise upload_unknown(upload_id)
            yield fd
        finally:
            os.close(fd)

    async def _take(self, fd: int, upload_id: str, size: int, body: AsyncIterable[bytes]) -> int:
        hashing = self._hashing.get(upload_id)
        if hashing is not None and hashing.size != size:
            hashing = self._hashing.pop(upload_id, None) and None
        taken, written_back = 0, size
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


def _is_still(path: os.PathLike[str], fd: int) -> bool:
    """Whether a name still means the file that is open."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


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
