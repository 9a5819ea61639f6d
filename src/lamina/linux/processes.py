"""Processes of the host: run a program to its end, wait for one that is not our child."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


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
    """Run a program to its end, in a thread, and return what it wrote.

    ``subprocess`` starts it by vfork where nothing forbids it, which does not copy a large daemon's page tables as fork
    does. When the caller is cancelled the program is killed; one that starts others has a process group of its *own_group*, and
    then all of them are, and waited for. Raises OSError if it cannot be started.
    """
    process = await asyncio.to_thread(
        subprocess.Popen,
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
    ending = asyncio.ensure_future(asyncio.to_thread(process.communicate, input))
    try:
        stdout, stderr = await asyncio.shield(ending)
    except asyncio.CancelledError:
        if not own_group:
            process.kill()
            ending.cancel()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            await ending  # the streams end with the last that holds them
        raise
    return Completed(process.returncode, stdout, stderr)


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


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal to exactly the process behind a pidfd; False if it has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True
