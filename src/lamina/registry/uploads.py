"""Blobs on their way to a registry (distribution-spec, "Pushing blobs"). Everything blocks.

A blob whose digest is known goes in one request; one that is still being compressed goes as it grows, and its digest follows. One that
breaks off is gone on with from where the registry says that it is, and one that a proxy finds too large goes in chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from lamina.oci.digest import Digest
from lamina.registry.blob_files import Uploadable
from lamina.registry.connection import Connection, Response, finish
from lamina.registry.errors import AccessDenied, NotInRegistry, RegistryRefused, RegistryUnreachable

_READ_BYTES = 1 << 20
_REST_BYTES = 64 << 20
_SMALLER_BYTES = 32 << 20
_SMALLEST_BYTES = 5 << 20
_ATTEMPTS = 6
_LONGEST_PAUSE_S = 10.0
_TOO_LARGE = 413
_WORTH_TRYING = (408, 416, 429, 500, 502, 503, 504)

Sent = Callable[[int], None]
"""Told how many bytes of a blob went so far."""


class Upload:
    """A blob that a registry expects: where its next request goes to."""

    def __init__(self, connection: Connection, url: str, smallest: int = 0) -> None:
        self.connection = connection
        self.url = url
        self.smallest = smallest
        """How small a chunk may be, but for the last (``OCI-Chunk-Min-Length``)."""

    def send(self, method: str, headers: dict[str, str], body: Any, *, digest: Digest | None = None) -> Response:
        """One request of the upload; the URL of the next one is what its answer says.

        *body* is bytes or an iterator. A 401 is answered; what went by then cannot be sent again by itself.

        Raises RegistryUnreachable.
        """
        url = self.url
        if digest is not None:
            url += ("&" if urlsplit(url).query else "?") + f"digest={digest}"
        response = self.connection.send(method, url, headers, body)
        if response.status == 401:
            self.connection.reauthorize(response)
            if not (body is None or isinstance(body, bytes)):
                raise RegistryUnreachable(self.connection.host.name, "it wanted a new token while a blob was sent")
            response = self.connection.send(method, url, headers, body)
        if response.headers.get("Location") and response.status in (202, 204):
            self.url = self.connection.follow(response.headers["Location"])
        return response

    def give_up(self) -> None:
        """Tell the registry that nothing comes; whether it listens does not matter."""
        with suppress(RegistryUnreachable, RegistryRefused, AccessDenied):
            finish(self.send("DELETE", {}, None))

    def received(self) -> int | None:
        """How many bytes the registry has, None if it does not know the upload any more."""
        response = self.send("GET", {}, None)
        finish(response)
        return received(response) if response.status in (202, 204) else None


def received(response: Response) -> int:
    """What the ``Range`` of an upload's answer says: ``0-99`` or ``bytes=0-99`` for 100 bytes; nothing or ``0-0`` for none."""
    last = response.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isascii() and last.isdigit() and int(last) else 0


class Uploading:
    """Has one blob stored; *begin* opens an upload, *is_there* asks whether a digest is stored already."""

    def __init__(
        self, begin: Callable[[], Upload], is_there: Callable[[Digest], bool], blob: Uploadable, what: str, sent: Sent
    ) -> None:
        self._begin = begin
        self._is_there = is_there
        self._blob = blob
        self._what = what
        self._sent = sent
        self._offset = 0
        self._chunk: int | None = None
        self._most = 0

    def run(self, upload: Upload | None = None) -> Digest:
        """Send the blob and return its digest. Raises RegistryUnreachable, AccessDenied, RegistryRefused."""
        failures = 0
        while True:
            before = self._most
            try:
                upload = upload or self._begin()
                return self._send(upload)
            except (RegistryUnreachable, RegistryRefused) as error:
                if isinstance(error, RegistryRefused) and not self._can_go_on(error):
                    raise
                failures = 1 if self._most > before else failures + 1
                if failures > _ATTEMPTS:
                    raise
                time.sleep(min(_LONGEST_PAUSE_S, 0.25 * 2 ** (failures - 1)))
                upload = self._find_again(upload)
                if upload is None and self._blob.digest is not None and self._was_taken(self._blob.digest):
                    return self._blob.digest

    def _can_go_on(self, error: RegistryRefused) -> bool:
        if error.status == _TOO_LARGE and (self._chunk is None or self._chunk > _SMALLEST_BYTES):
            self._chunk = _SMALLER_BYTES if self._chunk is None else max(_SMALLEST_BYTES, self._chunk // 2)
            return True
        return error.status in _WORTH_TRYING

    def _find_again(self, upload: Upload | None) -> Upload | None:
        """The upload with what the registry has of it; None if it has forgotten it."""
        self._offset = 0
        if upload is None:
            return None
        try:
            offset = upload.received()
        except (RegistryUnreachable, RegistryRefused):
            return None
        self._offset = offset or 0
        return upload if offset is not None else None

    def _was_taken(self, digest: Digest) -> bool:
        """Whether it was the answer alone that got lost."""
        try:
            return self._is_there(digest)
        except (RegistryUnreachable, NotInRegistry, RegistryRefused):
            return False

    def _send(self, upload: Upload) -> Digest:
        digest = self._blob.digest
        if digest is not None and self._offset == 0 and self._chunk is None:
            size = self._blob.wait(0)
            done = upload.send("PUT", _headers(size), self._bytes(0, size) if size else b"", digest=digest)
            return self._expect_stored(upload, done, digest)
        if self._offset == 0 and self._chunk is None:
            taken = upload.send("PATCH", {"Content-Type": "application/octet-stream"}, self._bytes(0, None))
            self._expect_taken(upload, taken)
            self._offset = self._blob.wait(0)
        while (
            self._offset < (end := self._blob.wait(self._offset + self._chunk_size(upload)))
            or self._blob.digest is None
        ):
            end = min(end, self._offset + self._chunk_size(upload))
            headers = _headers(end - self._offset) | {"Content-Range": f"{self._offset}-{end - 1}"}
            taken = upload.send("PATCH", headers, self._bytes(self._offset, end))
            self._expect_taken(upload, taken)
            self._offset = received(taken) or end
        digest = self._blob.digest
        assert digest is not None, "a blob that has come to its end has a digest"
        return self._expect_stored(upload, upload.send("PUT", _headers(0), b"", digest=digest), digest)

    def _chunk_size(self, upload: Upload) -> int:
        return max(self._chunk or _REST_BYTES, upload.smallest)

    def _bytes(self, offset: int, end: int | None) -> Iterator[bytes]:
        """Bytes as they come to be there; all up to the blob's end if that is not known."""
        while end is None or offset < end:
            there = self._blob.wait(offset + _READ_BYTES)
            data = self._blob.read(offset, min(_READ_BYTES, (there if end is None else end) - offset))
            if not data:
                return
            offset += len(data)
            yield data
            self._most = max(self._most, offset)
            self._sent(offset)

    def _expect_taken(self, upload: Upload, response: Response) -> None:
        upload.connection.expect(response, self._what, 202, 204, writes=True)
        finish(response)

    def _expect_stored(self, upload: Upload, response: Response, digest: Digest) -> Digest:
        upload.connection.expect(response, self._what, 201, 204, writes=True)
        finish(response)
        return digest


def _headers(size: int) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
