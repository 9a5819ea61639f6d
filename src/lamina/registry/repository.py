"""One repository of a registry: its manifests and blobs (OCI distribution-spec 1.1).

Everything here blocks and is meant for a thread or a worker process.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lamina.oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from lamina.oci.digest import Digest
from lamina.registry.access import Access
from lamina.registry.errors import NotInRegistry, RegistryUnreachable, WrongBytes
from lamina.registry.session import Response, Session, finish

_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
_MAXIMUM_DOCUMENT = 32 << 20
_READ_BYTES = 1 << 20
_REOPENINGS = 5


class Repository:
    """The blobs and manifests of one repository. Every method raises RegistryUnreachable, AccessDenied and RegistryRefused."""

    def __init__(self, access: Access) -> None:
        self._session = Session(access)
        self.name = access.reference.repository
        """``docker.io/library/busybox``."""

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """A manifest's media type and bytes, by tag or digest. Raises NotInRegistry, WrongBytes if it is not what the digest says."""
        what = f"{self.name}:{reference}" if ":" not in reference else f"{self.name}@{reference}"
        response = self._get(f"manifests/{reference}", what, accept=_MANIFESTS)
        try:
            data = self._session.read(response, _MAXIMUM_DOCUMENT, what)
        finally:
            finish(response)
        if ":" in reference and Digest.of(data) != reference:
            raise WrongBytes(what, reference)
        return response.headers.get("Content-Type", "").partition(";")[0].strip(), data

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has a blob."""
        response = self._session.ask("HEAD", f"blobs/{digest}")
        if response.status != 404:
            self._session.expect(response, f"{self.name}@{digest}", 200)
        finish(response)
        return response.status == 200

    def read_blob(self, digest: Digest) -> bytes:
        """A small blob's bytes. Raises NotInRegistry, WrongBytes, or RegistryRefused if it is no small one."""
        what = f"{self.name}@{digest}"
        response = self._get(f"blobs/{digest}", what)
        try:
            data = self._session.read(response, _MAXIMUM_DOCUMENT, what)
        finally:
            finish(response)
        if Digest.of(data) != digest:
            raise WrongBytes(self.name, digest)
        return data

    def open_blob(self, digest: Digest) -> RemoteBlob:
        """A blob's bytes as they come; whoever reads them has to verify them. Raises NotInRegistry."""
        what, path = f"{self.name}@{digest}", f"blobs/{digest}"
        return RemoteBlob(self._session, lambda offset: self._get(path, what, offset=offset))

    def put_blob(self, digest: Digest, size: int, open_file: Callable[[], IO[bytes]]) -> None:
        """Store a blob whose bytes *open_file* gives."""
        what = f"{self.name}@{digest}"
        begun = self._session.ask("POST", "blobs/uploads/", writes=True)
        self._session.expect(begun, what, 202)
        finish(begun)
        with open_file() as file:
            done = self._session.upload(begun.headers.get("Location", ""), f"digest={digest}", file, size)
        self._session.expect(done, what, 201)
        finish(done)

    def put_data(self, data: bytes) -> Digest:
        """Store a small blob, unless it is there; returns its digest."""
        digest = Digest.of(data)
        if not self.has_blob(digest):
            self.put_blob(digest, len(data), lambda: io.BytesIO(data))
        return digest

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a file as a blob, unless it is there."""
        if not self.has_blob(digest):
            self.put_blob(digest, path.stat().st_size, lambda: open(path, "rb"))  # noqa: SIM115 - put_blob closes it

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Store a manifest under a tag or its digest."""
        headers = {"Content-Type": media_type}
        done = self._session.ask("PUT", f"manifests/{reference}", headers=headers, body=data, writes=True)
        self._session.expect(done, f"{self.name}:{reference}", 201)
        finish(done)

    def _get(self, path: str, what: str, *, accept: str = "*/*", offset: int = 0) -> Response:
        """Something that is there, from *offset* on if the registry can do that. Raises NotInRegistry."""
        headers = {"Accept": accept} | ({"Range": f"bytes={offset}-"} if offset else {})
        response = self._session.ask("GET", path, headers=headers)
        if response.status == 404:
            finish(response)
            raise NotInRegistry(what)
        if response.status != 206 or not offset:
            self._session.expect(response, what, 200)
        return response


class RemoteBlob:
    """A blob's bytes as they come from the registry. One that breaks off is gone on with from where it was."""

    def __init__(self, session: Session, open_at: Callable[[int], Response]) -> None:
        self._session = session
        self._open_at = open_at
        self._response = open_at(0)
        self._position = 0
        self._reopenings = 0

    def __enter__(self) -> RemoteBlob:
        return self

    def __exit__(self, *error: object) -> None:
        self._response.close()

    def read(self, size: int) -> bytes:
        """*size* bytes, fewer only at the end. Raises RegistryUnreachable if the registry breaks off again and again."""
        pieces = []
        while size and (data := self._read_some(min(size, _READ_BYTES))):
            pieces.append(data)
            size -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_some(self, size: int) -> bytes:
        while True:
            try:
                with self._session.telling():
                    data = self._response.read(size, decode_content=False)
            except RegistryUnreachable:
                self._reopenings += 1
                if self._reopenings > _REOPENINGS:
                    raise
                self._reopen()
            else:
                self._position += len(data)
                return data

    def _reopen(self) -> None:
        self._response.close()
        self._response = self._open_at(self._position)
        left = 0 if self._response.status == 206 else self._position
        with self._session.telling():
            while left and (data := self._response.read(min(left, _READ_BYTES), decode_content=False)):
                left -= len(data)
