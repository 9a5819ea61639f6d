"""Numbers in a file that one process writes and others look at: how far something is, without a word between them.

What was written outlives the writer's death, but not the machine's: whoever goes by it after a restart has to check what it says.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_BYTES = 8


class SharedNumbers:
    """A row of 64-bit numbers, zero at first, below a path. Raises OSError."""

    def __init__(self, path: Path, count: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size != count * _BYTES:
                os.ftruncate(fd, 0)
                os.posix_fallocate(
                    fd, 0, count * _BYTES
                )  # on a full disk this fails, where a write to a hole would be a SIGBUS
            self._map = mmap.mmap(fd, count * _BYTES)
        finally:
            os.close(fd)
        self._numbers = memoryview(self._map).cast("Q")

    def __getitem__(self, index: int) -> int:
        return self._numbers[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._numbers[index] = value

    def __len__(self) -> int:
        return len(self._numbers)

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._numbers.release()
        self._map.close()


def read_numbers(path: Path) -> tuple[int, ...]:
    """What stands there at the moment; nothing if there is no such file."""
    try:
        data = path.read_bytes()
    except OSError:
        return ()
    return struct.unpack(f"={len(data) // _BYTES}Q", data[: len(data) // _BYTES * _BYTES])
