"""Pull-through: repositories that are another registry's, fetched when they are asked for, kept, and served while that one is down.

A tag is looked up again after a while; what was pushed here under the same name stays what it is. A blob goes to who asked for it while it
comes in, and to everybody who asks meanwhile; it is stored when all of it is here and has the digest it should have.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from lamina.errors import InvalidArgument, LaminaError
from lamina.oci.digest import Digest
from lamina.oci.reference import InvalidReference, Reference
from lamina.registry import Access, Credentials
from lamina.registry.errors import NotInRegistry
from lamina.registry.hosts import Settings
from lamina.registry.repository import Repository
from lamina.registry_server import errors
from lamina.registry_server.catalog import Catalog, StoredManifest
from lamina.registry_server.documents import read_document
from lamina.registry_server.errors import RegistryError
from lamina.registry_server.storage import Storage

_READ_BYTES = 256 << 10
_THREADS = 32
_MOST_REPOSITORIES = 64
T = TypeVar("T")
_log = logging.getLogger("lamina.registry")


class InvalidUpstream(InvalidArgument):
    """An option names no registry."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid upstream {text!r}: {reason}")
        self.text = text


@dataclass(frozen=True)
class Upstream:
    """A registry whose repositories are served below a *prefix*; an empty one takes every name."""

    prefix: str
    registry: str

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """``docker.io``, ``hub=docker.io`` or ``=docker.io``. Raises InvalidUpstream."""
        prefix, equals, registry = text.partition("=")
        if not equals:
            prefix, registry = text.replace(":", "-"), text
        try:
            reference = Reference.parse(f"{registry}/a/a")
        except InvalidReference as error:
            raise InvalidUpstream(text, str(error)) from None
        if reference.domain != registry:
            raise InvalidUpstream(text, "expected REGISTRY or PREFIX=REGISTRY")
        return cls(prefix, registry)

    def path_of(self, repository: str) -> str | None:
        """What the registry calls a repository of ours; None for one that is not its."""
        if not self.prefix:
            path = repository
        elif repository.startswith(f"{self.prefix}/"):
            path = repository[len(self.prefix) + 1 :]
        else:
            return None
        return Reference.parse(f"{self.registry}/{path}").path


@dataclass
class _Arrival:
    """A blob on its way in, with those who wait for its bytes."""

    upload_id: str
    path: Path
    received: int = 0
    ended: bool = False
    given_up: bool = False
    failure: BaseException | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class Mirror:
    """Fetches what is another registry's."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        catalog: Catalog,
        storage: Storage,
        settings: Settings,
        credentials: Mapping[str, Credentials],
        fresh_s: float,
    ) -> None:
        self._upstreams = upstreams
        self._catalog = catalog
        self._storage = storage
        self._settings = settings
        self._credentials = credentials
        self._fresh_s = fresh_s
        self._repositories: dict[str, Repository] = {}
        self._arriving: dict[Digest, _Arrival] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="upstream")

    def local_name(self, repository: str, registry: str) -> str:
        """What a client means that asks for a repository of a registry that it names (containerd's ``?ns=``)."""
        for upstream in self._upstreams:
            if upstream.registry == registry and upstream.prefix:
                return f"{upstream.prefix}/{repository}"
        return repository

    async def manifest(self, repository: str, reference: str) -> StoredManifest:
        """What there is under a tag or digest, here or there. Raises RegistryError."""
        remote = self._remote(repository)
        try:
            local = await self._catalog.manifest(repository, reference)
        except RegistryError:
            if remote is None:
                raise
            local = None
        if remote is None or (local is not None and await self._is_current(repository, reference)):
            assert local is not None, "what is nobody else's is here, or the error was raised"
            return local
        try:
            return await self._fetched(remote, repository, reference, local)
        except NotInRegistry:
            raise errors.manifest_unknown(reference) from None
        except LaminaError as error:
            if isinstance(error, RegistryError):
                raise
            if local is None:
                raise errors.upstream_failed(str(error)) from None
            _log.warning("%s:%s is served as it was, as %s", repository, reference, error)
            return local

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """How long a blob is that is there and not here. Raises RegistryError."""
        remote = self._remote(repository)
        if remote is None:
            raise errors.blob_unknown(digest)
        try:
            size = await self._in_thread(remote.blob_size, digest)
        except NotInRegistry:
            raise errors.blob_unknown(digest) from None
        except LaminaError as error:
            raise errors.upstream_failed(str(error)) from None
        return size

    async def blob(self, repository: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob that is there and not here, as they come. Raises RegistryError before the first."""
        remote = self._remote(repository)
        if remote is None:
            raise errors.blob_unknown(digest)
        await self.blob_size(repository, digest)
        arrival = self._arriving.get(digest)
        if arrival is None:
            arrival = await self._begin(remote, repository, digest)
        try:
            file = _opened(arrival.path)  # before it may be stored, and lose this name
        except FileNotFoundError:
            file = self._storage.open_blob(digest)
        return self._bytes_of(arrival, file)

    async def close(self) -> None:
        """Give up what is on its way."""
        for task in self._tasks:
            task.cancel()
        for arrival in self._arriving.values():
            arrival.given_up = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Wait for another registry, in a thread that nobody else waits for: that one may be slow."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments))

    def _remote(self, repository: str) -> Repository | None:
        for upstream in self._upstreams:
            path = upstream.path_of(repository)
            if path is not None:
                known = self._repositories.pop(repository, None)
                if known is None:
                    access = Access.of(Reference(upstream.registry, path), self._settings, self._credentials)
                    known = Repository(access)
                self._repositories[repository] = known  # the last one used is the last one to go
                while len(self._repositories) > _MOST_REPOSITORIES:
                    self._repositories.pop(next(iter(self._repositories))).close()
                return known
        return None

    async def _is_current(self, repository: str, reference: str) -> bool:
        """Whether what is here need not be looked up: it is a digest's, was pushed here, or was looked up a moment ago."""
        if ":" in reference:
            return True
        checked_s = await self._catalog.mirrored(repository, reference)
        return checked_s is None or checked_s > time.time() - self._fresh_s

    async def _fetched(
        self, remote: Repository, repository: str, reference: str, local: StoredManifest | None
    ) -> StoredManifest:
        """What a name means there now; kept here under it."""
        tag = None if ":" in reference else reference
        if tag is not None and local is not None:
            heading = await self._in_thread(remote.head_manifest, tag)
            if heading.digest == local.digest:
                await self._catalog.note_mirrored(repository, tag, local.digest)
                return local
        media_type, data = await self._in_thread(remote.manifest, reference)
        document = read_document(data, media_type)
        digest = Digest.of(data) if tag is not None else Digest(reference)
        replaces = local.digest if local is not None else None
        stored = await self._catalog.put_manifest(
            repository, tag, digest, document.media_type, data, document, is_complete=False, replaces=replaces
        )
        if not stored and tag is not None:  # somebody pushed the tag here meanwhile
            return await self._catalog.manifest(repository, tag)
        return StoredManifest(digest, document.media_type, data)

    async def _begin(self, remote: Repository, repository: str, digest: Digest) -> _Arrival:
        upload_id = secrets.token_hex(16)
        arrival = _Arrival(upload_id, self._storage.upload_path(upload_id))
        self._arriving[digest] = arrival
        arrival.path.touch(mode=0o600)
        await self._catalog.begin_upload(repository, upload_id)
        task = asyncio.create_task(self._fetch(remote, repository, digest, arrival))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return arrival

    async def _fetch(self, remote: Repository, repository: str, digest: Digest, arrival: _Arrival) -> None:
        loop = asyncio.get_running_loop()

        async def advance(count: int) -> None:
            async with arrival.changed:
                arrival.received = count
                arrival.changed.notify_all()

        def fetch() -> None:
            state, count = hashlib.new(digest.algorithm), 0
            with remote.open_blob(digest) as blob, open(arrival.path, "ab", buffering=0) as file:
                while not arrival.given_up and (data := blob.read(_READ_BYTES)):
                    file.write(data)
                    state.update(data)
                    count += len(data)
                    asyncio.run_coroutine_threadsafe(advance(count), loop)
                os.fsync(file.fileno())
            if state.hexdigest() != digest.hex:
                raise errors.upstream_failed(f"{remote.name} sent other bytes than {digest}")
            asyncio.run_coroutine_threadsafe(advance(count), loop).result()

        try:
            await self._in_thread(fetch)
            await self._catalog.adopt(repository, arrival.upload_id, digest, arrival.received)
        except BaseException as error:
            arrival.failure, arrival.given_up = error, True
            await self._catalog.end_upload(arrival.upload_id)
            if not isinstance(error, LaminaError | OSError):
                raise
            _log.warning("%s@%s cannot be had: %s", repository, digest, error)
        finally:
            self._arriving.pop(digest, None)
            arrival.ended = True
            async with arrival.changed:
                arrival.changed.notify_all()

    async def _bytes_of(self, arrival: _Arrival, file: BinaryIO) -> AsyncGenerator[bytes, None]:
        """An arrival's bytes; the last ones only when all are known to be right."""
        with file:
            position = 0
            while True:
                async with arrival.changed:
                    await arrival.changed.wait_for(
                        lambda: arrival.ended or arrival.received - position > _READ_BYTES  # noqa: B023
                    )
                if arrival.failure is not None:
                    raise arrival.failure
                ready = arrival.received - (0 if arrival.ended else _READ_BYTES)
                while position < ready and (data := file.read(min(_READ_BYTES, ready - position))):
                    position += len(data)
                    yield data
                if arrival.ended:
                    return


def _opened(path: Path) -> BinaryIO:
    return open(path, "rb", buffering=0)
