"""Bodies that need something for as long as they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack


class Held:
    """A body that is made while something is held open for it."""

    def __init__(self, body: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        self._body = body
        self._stack = stack

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body

    async def aclose(self) -> None:
        close = getattr(self._body, "aclose", None)
        if close is not None:
            self._stack.push_async_callback(close)
        await self._stack.aclose()
