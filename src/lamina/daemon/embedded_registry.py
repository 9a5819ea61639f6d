"""A registry beside the daemon: a process of its own that is started with it, started again when it dies, and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_END_TIMEOUT_S = 10.0


class EmbeddedRegistry:
    """``lamina registry serve`` below the daemon's root. A pipe that the daemon alone holds open tells it when the daemon is gone."""

    def __init__(self, root: Path, listen: str, options: Sequence[str]) -> None:
        self._argv = ["-m", "lamina.registry_server.main", "--root", str(root), "--listen", listen, *options]
        self._ours, self._theirs = os.pipe()
        self._task = asyncio.create_task(self._keep_running())

    async def close(self) -> None:
        """End it; returns when it has."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        os.close(self._ours)
        os.close(self._theirs)

    async def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            argv = [sys.executable, *self._argv, "--end-with", str(self._ours)]
            process = await asyncio.create_subprocess_exec(*argv, pass_fds=(self._ours,))
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                process.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_END_TIMEOUT_S):
                        await process.wait()
                raise
            _log.error("the registry ended with %d: it is started again in %.1f s", code, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
