"""Blobs as they come from a registry, verified by whoever reads them. Everything blocks."""

from __future__ import annotations

from collections.abc import Callable

from lamina.registry.connection import Connection, Response, finish
from lamina.registry.errors import RegistryRefused, RegistryUnreachable

_READ_BYTES = 1 << 20
_REOPENINGS = 5


class BlobPart:
    """Some bytes of a blob as they come, from ``start`` on."""

    def __init__(self, connection: Connection, response: Response, wanted: int) -> None:
        self.connection = connection
        self._response = response
        self.is_partial = response.status == 206
        self.start = _begin_of(response, wanted) if self.is_partial else 0
        """Where the bytes begin: not where they were wanted, if the registry does not know ranges."""

    def read(self, size: int) -> bytes:
        """Some bytes, none at the end. Raises RegistryUnreachable if it breaks off."""
        with self.connection.telling():
            return self._response.read(size, decode_content=False)

    def close(self) -> None:
        """Let go of the connection; what was not read is lost."""
        self._response.close()
        self._response.release_conn()

    def finish(self) -> None:
        """Keep the connection for the next request."""
        finish(self._response)


def _begin_of(response: Response, wanted: int) -> int:
    """Where a part begins by its Content-Range. Raises RegistryRefused if that is behind what was asked for."""
    unit, _, span = response.headers.get("Content-Range", "").strip().partition(" ")
    first = span.partition("-")[0]
    begin = int(first) if unit == "bytes" and first.isascii() and first.isdigit() else wanted
    if begin > wanted:
        finish(response)
        raise RegistryRefused("a part of a blob", 206, f"and bytes from {begin} on where {wanted} was asked for")
    return begin


class RemoteBlob:
    """A blob's bytes as they come from the registry. One that breaks off is gone on with from where it was."""

    def __init__(self, open_at: Callable[[int], BlobPart]) -> None:
        self._open_at = open_at
        self._part = open_at(0)
        self._position = 0
        self._reopenings = 0

    def __enter__(self) -> RemoteBlob:
        return self

    def __exit__(self, *error: object) -> None:
        self._part.close()

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
                data = self._part.read(size)
            except RegistryUnreachable:
                self._reopenings += 1
                if self._reopenings > _REOPENINGS:
                    raise
                self._reopen()
            else:
                self._position += len(data)
                return data

    def _reopen(self) -> None:
        self._part.close()
        self._part = self._open_at(self._position)
        left = self._position - self._part.start
        while left and (data := self._part.read(min(left, _READ_BYTES))):
            left -= len(data)
