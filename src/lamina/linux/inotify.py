"""Word that something in a directory was written, once each time it is asked for (inotify(7))."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lamina.linux import libc

_IN_MODIFY = 0x2
_IN_ONESHOT = 0x8000_0000
_IN_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 << 10


class DirectoryWatches:
    """Directories of whose next change somebody wants to hear. For the event loop that runs when it is made."""

    def __init__(self) -> None:
        self._fd = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._listeners: dict[int, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def once(self, directory: Path, listener: Callable[[], None]) -> None:
        """Call *listener* when a file of a directory is written the next time; who asked before about the same one is forgotten.

        Raises OSError.
        """
        watch = libc.call(
            "inotify_add_watch", self._fd, os.fsencode(directory), _IN_MODIFY | _IN_ONESHOT, paths=(str(directory),)
        )
        self._listeners[watch] = listener

    def close(self) -> None:
        """Tell nobody any more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._fd, _READ_BYTES)
            offset = 0
            while offset < len(data):
                watch, mask, _, name_bytes = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + name_bytes
                # a watch ends with its event, or with its directory, and the kernel says so in an event of its own
                listener = self._listeners.pop(watch, None)
                if listener is not None and not mask & _IN_IGNORED:
                    listener()
