"""Files that become blobs of a registry: those that are whole, and those that grow while they are sent."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO, Protocol

from lamina.oci.digest import Digest


class Uploadable(Protocol):
    """A blob that is to go: a file that is whole, or one that grows."""

    @property
    def digest(self) -> Digest | None:
        """None as long as the file grows."""

    def wait(self, size: int) -> int:
        """Until there are *size* bytes, or all; how many there are. Raises what befell who writes it."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes that are there."""


class WholeFile:
    """A file, or a part of memory, that is whole."""

    def __init__(self, digest: Digest, size: int, file: BinaryIO) -> None:
        self.digest: Digest | None = digest
        self._size = size
        self._file = file

    def wait(self, size: int) -> int:
        """See Uploadable."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """See Uploadable."""
        self._file.seek(offset)
        return self._file.read(size)


class GrowingFile:
    """A file that one thread writes and others read."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "x+b", buffering=0)  # noqa: SIM115 - closed by close
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self.size = 0
        self.digest: Digest | None = None

    def write(self, data: bytes) -> int:
        """Append bytes."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        with self._changed:
            self.size += len(data)
            self._changed.notify_all()
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def end(self, digest: Digest | None, failure: BaseException | None = None) -> None:
        """All is written, or nothing more comes."""
        with self._changed:
            self.digest = digest
            self._failure = failure
            self._changed.notify_all()

    def wait(self, size: int) -> int:
        """See Uploadable."""
        with self._changed:
            while self.size < size and self.digest is None and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            return self.size

    def read(self, offset: int, size: int) -> bytes:
        """See Uploadable."""
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
