"""Processes of the host: run a program to its end, wait for one that is not our child.

No thread waits for a process: its pipes and its pidfd are the event loop's, so that any number of programs can run at once, also ones
that wait for a client who sends nothing. Only starting one is a thread's work, for a few milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lamina.linux.pipes import read_available, writable
from lamina.linux.tasks import to_the_end

_WRITE_BYTES = 64 << 10


@dataclass(frozen=True)
class Completed:
    """How a program ended; a negative return code is the signal that ended it."""

    returncode: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,  # noqa: A002 - the name that subprocess gives it
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: Path | str | None = None,
    umask: int = -1,
    own_group: bool = False,
) -> Completed:
    """Run a program to its end and return what it wrote.

    When the caller is cancelled the program is killed, and has ended when this returns; one that starts others has a process group of
    its *own_group*, and then all of them are. Raises OSError if it cannot be started.
    """
    process = await spawn(
        [str(a) for a in argv],
        stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env) if env is not None else None,
        pass_fds=tuple(pass_fds),
        cwd=cwd,
        umask=umask,
        process_group=0 if own_group else None,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            stdout = tasks.create_task(_read_all(process.stdout))
            stderr = tasks.create_task(_read_all(process.stderr))
            tasks.create_task(_write_all(process.stdin, input or b""))
        returncode = await wait(process)
    except BaseException:
        _kill(process, own_group=own_group)
        await to_the_end(wait(process))
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return Completed(returncode, stdout.result(), stderr.result())


def _kill(process: subprocess.Popen[bytes], *, own_group: bool) -> None:
    if not own_group:
        process.kill()
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


async def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program, unbuffered, with ``subprocess.Popen``'s options; a caller that is cancelled meanwhile leaves no process behind.

    ``subprocess`` starts it by vfork where nothing forbids it, which does not copy a large daemon's page tables as fork does.
    Raises OSError.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, bufsize=0, **options)

    starting = asyncio.ensure_future(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await to_the_end(_end_started(starting))
        raise


async def _end_started(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    with suppress(OSError):
        process = await starting
        process.kill()
        await wait(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


async def wait(process: subprocess.Popen[bytes]) -> int:
    """A child's return code, when it has ended."""
    if process.poll() is None:
        # until it is polled a child keeps its pid, so the descriptor is its own
        pidfd = os.pidfd_open(process.pid)
        try:
            await wait_pidfd(pidfd)
        finally:
            os.close(pidfd)
    return process.wait()


async def wait_pidfd(pidfd: int) -> None:
    """Return when the process behind a pidfd has ended; it need not be a child of ours."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(pidfd, readable)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the pid it names one process for good. None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])


def open_process(pid: int, started: int | None = None) -> int | None:
    """A pidfd of a process, or None if it is gone or, by its start time, another process that got the same pid."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if started is not None and start_time(pid) != started:
        os.close(fd)
        return None
    return fd


def peer_of(connection: socket.socket) -> int:
    """The process at the other end of a connected Unix socket: the one that listened (SO_PEERCRED, unix(7))."""
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal to exactly the process behind a pidfd; False if it has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


async def _read_all(pipe: BinaryIO | Any) -> bytes:
    fd = pipe.fileno()
    os.set_blocking(fd, False)
    parts = []
    while part := await read_available(fd):
        parts.append(part)
    return b"".join(parts)


async def _write_all(pipe: BinaryIO | Any, data: bytes) -> None:
    """Write everything and close; a program that reads no further is no error, its return code tells."""
    if pipe is None:
        return
    fd = pipe.fileno()
    os.set_blocking(fd, False)
    view = memoryview(data)
    with suppress(BrokenPipeError):
        while view:
            try:
                view = view[os.write(fd, view[:_WRITE_BYTES]) :]
            except BlockingIOError:
                await writable(fd)
    pipe.close()
