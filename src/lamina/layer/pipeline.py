"""Stages of a pipeline: threads that hand blocks to each other.

The work that is worth it, hashing, writing, compressing, is done in C with the interpreter's lock released, so that two cores are kept
busy; queues are short, so that memory stays bounded.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_QUEUE_BLOCKS = 8


class Stage:
    """A thread that takes blocks in order; its failure is raised by the next ``put`` or at the end of the ``with`` block."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._queue: queue.Queue[bytes] = queue.Queue(_QUEUE_BLOCKS)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stage:
        self.start()
        return self

    def start(self) -> None:
        """Begin to take."""
        self._thread.start()

    def put(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if data:
            self._queue.put(data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.join()
        else:
            self.abandon()

    def join(self) -> None:
        """Wait until all is taken; raises the failure, if there was one."""
        self.abandon()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Wait until all is taken, or was let go as something failed; waiting again is no error."""
        if self._thread.is_alive():
            self._queue.put(b"")
            self._thread.join()

    def _run(self) -> None:
        while data := self._queue.get():
            if self._failure is None:
                try:
                    self._take(data)
                except BaseException as error:
                    self._failure = error
