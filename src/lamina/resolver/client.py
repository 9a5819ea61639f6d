"""The daemon's side: it starts the resolver when the first container needs it, and tells it what there is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from lamina.errors import Unavailable
from lamina.linux import processes
from lamina.linux.tasks import to_the_end
from lamina.resolver.messages import Reply, Request, Sandbox, version

_log = logging.getLogger(__name__)
_LINE_BYTES = 64 << 20
_PATIENCE_S = 60.0
"""For one answer; a thousand containers that are told of at once take ten seconds."""


class ResolverUnavailable(Unavailable):
    """The resolver does not run, or cannot serve a container."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the resolver of container names is not available: {reason}")
        self.reason = reason


class Resolver:
    """The resolver of one run root. It is connected to while it runs, and started again if it ends."""

    def __init__(self, path: Path, join: Callable[[int], None] | None = None) -> None:
        """*path* is its socket; *join* moves a process to where it outlives the daemon's service, None where nothing ends it."""
        self._path = path
        self._join = join
        self._sandboxes: dict[str, Sandbox] = {}
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self, sandboxes: list[Sandbox]) -> None:
        """Tell the resolver that still runs, if one does, of the containers that run; start one if they need it."""
        self._sandboxes = {sandbox.pin: sandbox for sandbox in sandboxes}
        if sandboxes:
            with suppress(ResolverUnavailable):
                await self._ensure()
        elif self._path.exists():
            await self._end()

    async def warm_up(self) -> None:
        """Start it before a container needs it."""
        try:
            await self._ensure()
        except ResolverUnavailable as error:
            _log.warning("%s", error)

    async def put(self, sandbox: Sandbox) -> None:
        """Serve a container as it is now. Raises ResolverUnavailable."""
        before = self._sandboxes.get(sandbox.pin)
        self._sandboxes[sandbox.pin] = sandbox
        try:
            await self._tell(Request(verb="put", sandboxes=[sandbox]))
        except BaseException as error:
            # a resolver that comes back is told of what there was
            if before is not None:
                self._sandboxes[sandbox.pin] = before
            else:
                del self._sandboxes[sandbox.pin]
                if not isinstance(error, ResolverUnavailable):
                    await to_the_end(self._forget(sandbox.pin))
            raise

    async def drop(self, pin: str) -> None:
        """Serve a container no more; unknown is no error."""
        if self._sandboxes.pop(pin, None) is not None:
            await self._forget(pin)

    async def _forget(self, pin: str) -> None:
        with suppress(ResolverUnavailable):
            await self._tell(Request(verb="drop", pin=pin))

    async def close(self, *, remove: bool) -> None:
        """Let go; with *remove* the resolver ends, which is for when no container needs it."""
        self._closing = True
        self._unwatch()
        if remove:
            await self._end()
        self._disconnect()

    async def _tell(self, request: Request) -> None:
        """Raises ResolverUnavailable."""
        async with self._lock:
            if self._connection is None:
                await self._connect_or_start()  # which tells it of all
                if request.verb != "put":
                    return
            await self._exchange(request)

    async def _ensure(self) -> None:
        async with self._lock:
            if self._connection is None:
                await self._connect_or_start()

    async def _connect_or_start(self) -> None:
        """With the lock held: a connection to a resolver of this code that knows all sandboxes. Raises ResolverUnavailable."""
        if not await self._connect():
            await self._start()
        reply = await self._exchange(Request(verb="sync", sandboxes=list(self._sandboxes.values())))
        if reply.version != version():
            self._unwatch()
            await self._exchange(Request(verb="exit"))
            self._disconnect()
            await self._start()
            await self._exchange(Request(verb="sync", sandboxes=list(self._sandboxes.values())))

    async def _start(self) -> None:
        self._path.unlink(missing_ok=True)
        with (self._path.parent / "resolver.log").open("ab") as log:
            first = await processes.spawn(
                [sys.executable, "-I", "-m", "lamina.resolver", str(self._path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await processes.wait(first)
        if not await self._connect():
            raise ResolverUnavailable(f"it does not answer; see {self._path.parent / 'resolver.log'}")

    async def _connect(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LINE_BYTES)
        except OSError:
            return False
        self._connection = (reader, writer)
        pid = processes.peer_of(writer.get_extra_info("socket"))
        if self._join is not None:
            try:
                self._join(pid)
            except OSError as error:
                _log.warning("the resolver stays in the daemon's control group: %s", error)
        self._watch(pid)
        return True

    def _watch(self, pid: int) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        self._watcher = asyncio.ensure_future(self._start_again_after(pid))

    async def _start_again_after(self, pid: int) -> None:
        """When the process has ended without having been told to, start another: containers wait for answers."""
        pidfd = processes.open_process(pid)
        if pidfd is not None:
            try:
                await processes.wait_pidfd(pidfd)
            finally:
                os.close(pidfd)
        if self._closing:
            return
        _log.warning("the resolver of container names has ended")
        async with self._lock:
            self._watcher = None
            self._disconnect()
            if self._sandboxes:
                try:
                    await self._connect_or_start()
                except ResolverUnavailable as error:
                    _log.warning("%s", error)

    async def _exchange(self, request: Request) -> Reply:
        """With the lock held. Raises ResolverUnavailable."""
        if self._connection is None:
            raise ResolverUnavailable("it has ended")
        reader, writer = self._connection
        try:
            async with asyncio.timeout(_PATIENCE_S):
                writer.write(msgspec.json.encode(request) + b"\n")
                await writer.drain()
                reply = msgspec.json.decode(await reader.readline(), type=Reply)
        except TimeoutError:
            self._disconnect()
            raise ResolverUnavailable("it does not answer") from None
        except (OSError, msgspec.MsgspecError, asyncio.CancelledError) as error:
            self._disconnect()  # what is answered next would be taken for the answer to another request
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ResolverUnavailable(str(error) or "it has ended") from None
        if reply.error:
            raise ResolverUnavailable(reply.error)
        return reply

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def _end(self) -> None:
        with suppress(ResolverUnavailable):
            async with self._lock:
                if self._connection is not None or await self._connect():
                    self._unwatch()
                    await self._exchange(Request(verb="exit"))
                    self._disconnect()
