"""One blob on its way here: by several connections if it is large, and gone on with from the byte that is here, also after a crash.

The bytes go to a file, each to its place; beside it a row of numbers says how far each *piece* of the file has come. Whoever reads
gets the bytes in their order while they come in. Nothing is believed of what an earlier download left: whoever reads hashes it again.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from lamina.errors import LaminaError
from lamina.linux.files import start_writeback
from lamina.linux.shared_numbers import SharedNumbers
from lamina.oci.digest import Digest
from lamina.registry.connection import Connection
from lamina.registry.errors import RegistryRefused, RegistryUnreachable, WrongBytes
from lamina.registry.partial import FIRST, SIZE, TAKEN, numbers_path
from lamina.registry.reading import BlobPart
from lamina.registry.repository import Repository

_SMALLEST_PIECE = 16 << 20
_MOST_PIECES = 4096
_CONNECTIONS = 4
_READ_BYTES = 256 << 10
_ATTEMPTS = 5
_WORTH_IT = 64 << 10
"""Bytes after which a connection that breaks off counts as a new attempt's first."""
_LONGEST_PAUSE_S = 10.0


class Download:
    """A blob of *size* bytes that becomes the file *path*. Used by one reader; ends with the ``with`` block.

    What an earlier download left in the file is gone on with.
    """

    def __init__(self, repository: Repository, digest: Digest, size: int, path: Path) -> None:
        self._repository = repository
        self._digest = digest
        self._size = size
        self._piece = max(_SMALLEST_PIECE, -(-size // _MOST_PIECES))
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        pieces = max(1, -(-size // self._piece))
        self._numbers = SharedNumbers(numbers_path(path), FIRST + pieces)
        if self._numbers[SIZE] != size or os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, 0)
            for index in range(FIRST, FIRST + pieces):
                self._numbers[index] = 0
            self._numbers[SIZE] = size
        self._numbers[TAKEN] = 0
        self._pieces = pieces
        self.resumed = any(self._had(piece) for piece in range(pieces))
        """Whether an earlier download left some of it."""
        self.source: Connection | None = None
        """The server that sent the last bytes."""
        self._changed = threading.Condition()
        self._free = [piece for piece in range(pieces) if self._had(piece) < self._length(piece)]
        self._failure: LaminaError | OSError | None = None
        self._stopped = False
        self._in_order: int | None = None
        self._position = 0
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(min(_CONNECTIONS, len(self._free)))
        ]

    def __enter__(self) -> Download:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if kind is None:
            for thread in self._threads:
                thread.join()
            os.close(self._fd)
        # else threads that wait for a slow server end when it answers; the file stays theirs until then

    def read(self, size: int) -> bytes:
        """*size* bytes, fewer only at the end. Blocking.

        Raises RegistryUnreachable if the registry breaks off again and again, WrongBytes if it has fewer, and what else it answers.
        """
        wanted = min(size, self._size - self._position)
        pieces: list[bytes] = []
        while wanted:
            there = self._wait(wanted)
            data = os.pread(self._fd, there, self._position)
            self._position += len(data)
            wanted -= len(data)
            pieces.append(data)
        self._numbers[TAKEN] = self._position
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> None:
        """Sync the file, which is whole."""
        os.fsync(self._fd)

    def _wait(self, wanted: int) -> int:
        """Until bytes come at the reader's position, a good deal of them if more are wanted; how many there are."""
        with self._changed:
            while True:
                there = min(self._contiguous() - self._position, wanted)
                if there >= min(wanted, _READ_BYTES):
                    return there
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()

    def _contiguous(self) -> int:
        """Up to where all bytes are here."""
        piece = self._position // self._piece
        while piece < self._pieces and self._had(piece) == self._length(piece):
            piece += 1
        return self._size if piece == self._pieces else piece * self._piece + self._had(piece)

    def _had(self, piece: int) -> int:
        return self._numbers[FIRST + piece]

    def _length(self, piece: int) -> int:
        return min(self._piece, self._size - piece * self._piece)

    def _work(self, number: int) -> None:
        """What each connection does: one free piece after the other, the lowest first."""
        try:
            while (piece := self._claim(number)) is not None:
                self._fetch(number, piece)
        except (LaminaError, OSError) as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _claim(self, number: int) -> int | None:
        with self._changed:
            if self._stopped or self._failure is not None or self._in_order not in (None, number):
                return None
            while self._free:
                piece = self._free.pop(0)
                if self._had(piece) < self._length(piece):
                    return piece
            return None

    def _fetch(self, number: int, piece: int) -> None:
        """Have a piece sent, in several attempts if need be."""
        attempts = 0
        going_on = True
        while going_on and not self._stopped:
            before = self._total()
            try:
                going_on = self._receive(number, piece)
            except RegistryUnreachable:
                attempts = 0 if self._total() - before >= _WORTH_IT else attempts + 1
                if attempts > _ATTEMPTS:
                    raise
                self._pause(attempts)
            except RegistryRefused as error:
                if error.status == 416:
                    raise WrongBytes(self._repository.name, self._digest) from None
                raise

    def _pause(self, attempts: int) -> None:
        deadline = time.monotonic() + min(_LONGEST_PAUSE_S, 0.25 * 2**attempts)
        with self._changed:
            while not self._stopped and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _receive(self, number: int, piece: int) -> bool:
        """One answer's bytes; whether there is more to fetch.

        Those of a server that knows no ranges are taken by one connection, in order, to the end.
        """
        if self._in_order == number:
            start, end = self._first_missing(), self._size
        else:
            start, end = piece * self._piece + self._had(piece), piece * self._piece + self._length(piece)
        if start >= end:
            return False
        part = self._repository.blob_from(self._digest, start, None if (start, end) == (0, self._size) else end)
        self.source = part.connection
        try:
            if not part.is_partial and end - start < self._size:
                if not self._leads(number):
                    part.close()
                    return False
                start, end = self._first_missing(), self._size
            self._skip(part, start)
            self._take(part, start, end, leads=self._in_order == number)
        except BaseException:
            part.close()
            raise
        part.finish()
        return False

    def _leads(self, number: int) -> bool:
        """Whether this connection is the one that goes on alone."""
        with self._changed:
            if self._in_order is None:
                self._in_order = number
                self._free = []
            return self._in_order == number

    def _total(self) -> int:
        return sum(map(self._had, range(self._pieces)))

    def _first_missing(self) -> int:
        """The first byte that is not here."""
        for piece in range(self._pieces):
            if self._had(piece) < self._length(piece):
                return piece * self._piece + self._had(piece)
        return self._size

    def _skip(self, part: BlobPart, start: int) -> None:
        left = start - part.start
        while left > 0:
            data = part.read(min(left, _READ_BYTES))
            if not data:
                raise RegistryUnreachable(part.connection.host.name, "the blob ended early")
            left -= len(data)

    def _take(self, part: BlobPart, start: int, end: int, *, leads: bool) -> None:
        """Write bytes to their place, and tell the reader."""
        position = written_back = start
        while position < end and not self._stopped:
            data = part.read(min(end - position, _READ_BYTES))
            if not data:
                raise RegistryUnreachable(
                    part.connection.host.name, f"the blob ended at byte {position} of {self._size}"
                )
            view = memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, position)
                position += count
                view = view[count:]
            with self._changed:
                self._note(position, leads=leads)
                self._changed.notify_all()
            if position - written_back >= self._piece:
                start_writeback(self._fd, written_back, position - written_back)
                written_back = position

    def _note(self, position: int, *, leads: bool) -> None:
        """All bytes up to *position* of its piece are here; where one connection goes on alone, all before them, too."""
        piece = (position - 1) // self._piece
        self._numbers[FIRST + piece] = max(self._had(piece), position - piece * self._piece)
        if leads:
            for before in range(piece):
                self._numbers[FIRST + before] = self._length(before)
