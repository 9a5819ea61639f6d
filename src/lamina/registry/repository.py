"""One repository of a registry: its manifests and blobs (OCI distribution-spec 1.1).

What is read is asked of the registry's servers in turn, mirrors first, until one has it; what is written goes to the one that takes it.
Everything here blocks and is meant for a thread or a worker process; several threads may use one repository.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from lamina.errors import LaminaError
from lamina.oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index
from lamina.registry.access import Access, Learned
from lamina.registry.blob_files import Uploadable, WholeFile
from lamina.registry.connection import Connection, Response, finish
from lamina.registry.errors import (
    AccessDenied,
    ManifestUnknown,
    NoCapableHost,
    NotInRegistry,
    RegistryRefused,
    RegistryUnreachable,
    WrongBytes,
)
from lamina.registry.reading import BlobPart, RemoteBlob
from lamina.registry.uploads import Sent, Upload, Uploading

_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"))
_MAXIMUM_DOCUMENT = 32 << 20
_PAGE = 1000
_MAXIMUM_PAGES = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class Heading:
    """What a registry tells of a manifest without sending it. ``digest`` is None where it does not tell."""

    media_type: str
    digest: Digest | None
    size: int


class Repository:
    """The blobs and manifests of one repository. Every method raises RegistryUnreachable, AccessDenied and RegistryRefused."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._connections = [Connection(host, access) for host in access.hosts]
        self.name = access.reference.repository
        """``docker.io/library/busybox``."""

    def close(self) -> None:
        """Let go of all connections that are not in use."""
        for connection in self._connections:
            connection.close()

    @property
    def learned(self) -> dict[str, Learned]:
        """What was found out of the servers, for ``Access.learned``."""
        return {c.host.base: c.learned for c in self._connections if c.learned.base}

    # ---- manifests

    def head_manifest(self, reference: str) -> Heading:
        """What there is under a tag or digest. Raises NotInRegistry."""

        def ask(connection: Connection) -> Heading:
            response = connection.ask("HEAD", f"manifests/{reference}", headers={"Accept": _MANIFESTS})
            finish(response)
            if response.status == 404:
                raise ManifestUnknown(self._manifest_name(reference))
            connection.expect(response, self._manifest_name(reference), 200)
            return _heading(response)

        return self._first_of("resolve", ask)

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """A manifest's media type and bytes, by tag or digest. Raises NotInRegistry, WrongBytes if it is not what the digest says."""
        what = self._manifest_name(reference)

        def ask(connection: Connection) -> tuple[str, bytes]:
            try:
                response = _get(connection, f"manifests/{reference}", what, accept=_MANIFESTS)
            except NotInRegistry:
                raise ManifestUnknown(what) from None
            try:
                data = connection.read(response, _MAXIMUM_DOCUMENT, what)
            finally:
                finish(response)
            if ":" in reference and not Digest(reference).matches(data):
                raise WrongBytes(what, Digest(reference))
            return response.headers.get("Content-Type", "").partition(";")[0].strip(), data

        return self._first_of("pull" if ":" in reference else "resolve", ask)

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Store a manifest under a tag or its digest."""
        connection = self._writable
        headers = {"Content-Type": media_type}
        done = connection.ask("PUT", f"manifests/{reference}", headers=headers, body=data, writes=True)
        connection.expect(done, f"{self.name}:{reference}", 201, 200, 202, writes=True)
        finish(done)

    def delete_manifest(self, reference: str) -> None:
        """Remove a manifest by its digest, or a tag where the registry can do that. Raises NotInRegistry."""
        self._delete(f"manifests/{reference}", self._manifest_name(reference))

    def tags(self) -> Iterator[str]:
        """All tags, in the registry's order. Raises NotInRegistry."""
        yield from self._listed("tags/list", "tags", self.name)

    def referrers(self, digest: Digest) -> Index:
        """What refers to a manifest (distribution-spec, "Listing Referrers"), by the tag schema where the registry has no better."""

        def ask(connection: Connection) -> bytes:
            response = _get(connection, f"referrers/{digest}", self.name, accept=OCI_INDEX)
            try:
                return connection.read(response, _MAXIMUM_DOCUMENT, self.name)
            finally:
                finish(response)

        try:
            return Index.parse(self._first_of("pull", ask), OCI_INDEX)
        except (NotInRegistry, RegistryRefused):
            pass
        try:
            media_type, data = self.manifest(f"{digest.algorithm}-{digest.hex}")
        except NotInRegistry:
            return Index.build(())
        return Index.parse(data, media_type)

    # ---- blobs

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has a blob, where pushes go."""
        connection = self._writable
        response = connection.ask("HEAD", f"blobs/{digest}")
        if response.status != 404:
            connection.expect(response, f"{self.name}@{digest}", 200)
        finish(response)
        return response.status == 200

    def blob_size(self, digest: Digest) -> int:
        """How long a blob is, where it can be had. Raises NotInRegistry."""
        what = f"{self.name}@{digest}"

        def ask(connection: Connection) -> int:
            response = connection.ask("HEAD", f"blobs/{digest}")
            finish(response)
            if response.status == 404:
                raise NotInRegistry(what)
            connection.expect(response, what, 200)
            return _heading(response).size

        return self._first_of("pull", ask)

    def read_blob(self, digest: Digest) -> bytes:
        """A small blob's bytes. Raises NotInRegistry, WrongBytes, or RegistryRefused if it is no small one."""
        what = f"{self.name}@{digest}"

        def ask(connection: Connection) -> bytes:
            response = _get(connection, f"blobs/{digest}", what)
            try:
                data = connection.read(response, _MAXIMUM_DOCUMENT, what)
            finally:
                finish(response)
            if not digest.matches(data):
                raise WrongBytes(self.name, digest)
            return data

        return self._first_of("pull", ask)

    def open_blob(self, digest: Digest) -> RemoteBlob:
        """A blob's bytes as they come; whoever reads them has to verify them. Raises NotInRegistry."""
        return RemoteBlob(lambda offset: self.blob_from(digest, offset))

    def blob_from(self, digest: Digest, start: int = 0, end: int | None = None) -> BlobPart:
        """A blob's bytes from *start*, up to *end* if that is given; all of them if the registry cannot do better.

        Raises NotInRegistry.
        """
        what = f"{self.name}@{digest}"
        span = f"bytes={start}-{'' if end is None else end - 1}" if start or end is not None else None

        def ask(connection: Connection) -> BlobPart:
            return BlobPart(connection, _get(connection, f"blobs/{digest}", what, span=span), start)

        return self._first_of("pull", ask)

    def distrust(self, connection: Connection) -> bool:
        """Ask a server no more, as it sent wrong bytes; whether there is another one."""
        if connection in self._connections and len(self._connections) > 1:
            self._connections.remove(connection)
            return True
        return False

    def put_blob(
        self, blob: Uploadable, what: str = "", upload: Upload | None = None, sent: Sent = lambda size: None
    ) -> Digest:
        """Store a blob, by an upload that was begun already or a new one; returns its digest. *sent* is told how far it is."""
        return Uploading(self.begin_upload, self.has_blob, blob, what or self.name, sent).run(upload)

    def put_data(self, data: bytes) -> Digest:
        """Store a small blob, unless it is there; returns its digest."""
        digest = Digest.of(data)
        if not self.has_blob(digest):
            self.put_blob(WholeFile(digest, len(data), io.BytesIO(data)), f"{self.name}@{digest}")
        return digest

    def put_file(self, digest: Digest, path: Path, sent: Sent = lambda size: None) -> None:
        """Store a file as a blob, unless it is there."""
        if not self.has_blob(digest):
            with open(path, "rb", buffering=0) as file:
                whole = WholeFile(digest, path.stat().st_size, file)
                self.put_blob(whole, f"{self.name}@{digest}", sent=sent)

    def begin_upload(self) -> Upload:
        """Begin to store a blob."""
        upload = self._begin_upload({}, ())
        assert upload is not None, "nothing was asked for but an upload"
        return upload

    def mount_blob(self, digest: Digest, source: str) -> Upload | None:
        """Have a blob that another repository of the registry has; None when it is there, or what is to be done instead."""
        return self._begin_upload({"mount": str(digest), "from": source}, (source,))

    def _begin_upload(self, query: dict[str, str], also_reads: tuple[str, ...]) -> Upload | None:
        connection = self._writable
        begun = connection.ask("POST", "blobs/uploads/", query=query, writes=True, also_reads=also_reads)
        if begun.status == 201 and query:
            finish(begun)
            return None
        connection.expect(begun, self.name, 202, writes=True)
        finish(begun)
        smallest = begun.headers.get("OCI-Chunk-Min-Length", "")
        return Upload(
            connection,
            connection.follow(begun.headers.get("Location", "")),
            int(smallest) if smallest.isascii() and smallest.isdigit() else 0,
        )

    def delete_blob(self, digest: Digest) -> None:
        """Remove a blob, where the registry can do that. Raises NotInRegistry."""
        self._delete(f"blobs/{digest}", f"{self.name}@{digest}")

    # ---- servers

    @property
    def _writable(self) -> Connection:
        for connection in self._connections:
            if "push" in connection.host.capabilities and not (connection.host.is_mirror and self._has_origin):
                return connection
        raise NoCapableHost(self._access.reference.domain, "push")

    @property
    def _has_origin(self) -> bool:
        return any(not c.host.is_mirror and "push" in c.host.capabilities for c in self._connections)

    def _first_of(self, capability: str, ask: Callable[[Connection], T]) -> T:
        """The answer of the first server that has one; the last one's failure counts."""
        able = [c for c in self._connections if capability in c.host.capabilities]
        if not able:
            raise NoCapableHost(self._access.reference.domain, capability)
        for connection in able[:-1]:
            try:
                return ask(connection)
            except (RegistryUnreachable, AccessDenied, NotInRegistry, RegistryRefused, WrongBytes):
                continue
        return ask(able[-1])

    def _listed(self, path: str, field: str, what: str) -> Iterator[str]:
        """The names of a listing, page after page (distribution-spec, "Listing Tags")."""
        query = {"n": str(_PAGE)}
        for _ in range(_MAXIMUM_PAGES):
            asked = dict(query)

            def ask(connection: Connection, asked: dict[str, str] = asked) -> tuple[list[str], str]:
                response = connection.ask("GET", path, query=asked)
                try:
                    if response.status == 404:
                        raise NotInRegistry(what)
                    connection.expect(response, what, 200)
                    return (
                        _names(connection.read(response, _MAXIMUM_DOCUMENT, what), field, what),
                        response.headers.get("Link", ""),
                    )
                finally:
                    finish(response)

            names, link = self._first_of("resolve", ask)
            yield from names
            following = next_page(link)
            if not following or following == query:
                return
            query = following

    def _delete(self, path: str, what: str) -> None:
        connection = self._writable
        response = connection.ask("DELETE", path, writes=True)
        if response.status == 404:
            finish(response)
            raise NotInRegistry(what)
        connection.expect(response, what, 202, 200, 204, writes=True)
        finish(response)

    def _manifest_name(self, reference: str) -> str:
        name = self._access.reference.familiar_repository
        return f"{name}:{reference}" if ":" not in reference else f"{name}@{reference}"


def next_page(link: str) -> dict[str, str]:
    """The query of the next page that a ``Link`` header names (RFC 8288), nothing for the last page."""
    url, _, parameters = link.strip().removeprefix("<").partition(">")
    if 'rel="next"' not in parameters and "rel=next" not in parameters:
        return {}
    return dict(parse_qsl(urlsplit(url).query))


def _names(data: bytes, field: str, what: str) -> list[str]:
    try:
        names = json.loads(data).get(field) or []
    except (ValueError, AttributeError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RegistryRefused(what, 200, f"and no list of {field}")
    return names


def _heading(response: Response) -> Heading:
    digest: Digest | None
    try:
        digest = Digest(response.headers.get("Docker-Content-Digest", ""))
    except LaminaError:
        digest = None
    length = response.headers.get("Content-Length", "")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return Heading(media_type, digest, int(length) if length.isascii() and length.isdigit() else 0)


def _get(connection: Connection, path: str, what: str, *, accept: str = "*/*", span: str | None = None) -> Response:
    """Something that is there, or the part of it that *span* names. Raises NotInRegistry."""
    headers = {"Accept": accept} | ({"Range": span} if span else {})
    response = connection.ask("GET", path, headers=headers)
    if response.status == 404:
        finish(response)
        raise NotInRegistry(what)
    connection.expect(response, what, 200, *((206,) if span else ()))
    return response
