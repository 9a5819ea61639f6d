"""Driving crun or runc by their command line (OCI runtime-spec, runtime.md; the flags that both share)."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from lamina.errors import ContainerStartError
from lamina.linux import processes
from lamina.linux.cgroups import Hierarchies
from lamina.linux.pipes import read_available
from lamina.linux.tasks import to_the_end
from lamina.runtime.probe import Tool
from lamina.runtime.settings import Resources
from lamina.runtime.spec import resources_document
from lamina.runtime.start_errors import exec_error, last_message, start_error

_RECURSIVE_SINCE = {"runc": (1, 1), "crun": (1, 4)}
_FIFO_TIMEOUT_S = 2.0
_GROUP_TIMEOUT_S = 0.2
_END_TIMEOUT_S = 10.0
_END_POLL_S = 0.05
_DRAIN_TIMEOUT_S = 1.0

_log = logging.getLogger(__name__)

OnOutput = Callable[[int, bytes], Awaitable[None]]
"""Takes what a container says: 1 for stdout or 2 for stderr, and the bytes."""


class OciRuntime:
    """An OCI runtime and the directory where it keeps its state."""

    def __init__(self, tool: Tool, root: Path, hierarchies: Hierarchies) -> None:
        self.tool = tool
        self.root = root
        self._hierarchies = hierarchies

    @property
    def knows_recursive_attributes(self) -> bool:
        """Whether it has ``rro`` among its mount options."""
        numbers = re.match(r"(\d+)\.(\d+)", self.tool.version)
        return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _RECURSIVE_SINCE.get(
            self.tool.name, (9, 9)
        )

    def arguments(self, bundle: Path) -> list[str]:
        """Global flags; errors go to a file of the bundle, since a container's own output may be on stderr."""
        return ["--root", str(self.root), "--log", str(bundle / "runtime.log"), "--log-format", "json"]

    async def start(self, bundle: Path, container_id: str, command: str) -> None:
        """Let the process of a created container run. Raises ContainerStartError's kinds.

        A created container's first process waits for a reader of ``exec.fifo`` in the runtime's state directory; being that reader
        is what ``start`` does in runc and crun (without poststart hooks, of which lamina has none). Doing it here saves starting a
        program, 8 to 15 ms. Where the FIFO is not as expected, the runtime's own command does it, and tells what is wrong.
        """
        if await _read_exec_fifo(self.root / container_id / "exec.fifo"):
            return
        argv = [self.tool.path, *self.arguments(bundle), "start", container_id]
        done = await processes.run(argv)
        if done.returncode != 0:
            raise self.failure(bundle, done.stderr.decode(errors="replace"), command)

    async def update(self, bundle: Path, container_id: str, resources: Resources) -> None:
        """Keep a running container within other limits. Raises OSError with what the runtime says."""
        document = msgspec.json.encode(resources_document(resources))
        argv = [self.tool.path, *self.arguments(bundle), "update", "--resources", "-", container_id]
        done = await processes.run(argv, input=document)
        if done.returncode != 0:
            raise OSError(_logged_error(bundle) or done.stderr.decode(errors="replace").strip())

    async def freeze(self, group: str, *, frozen: bool) -> None:
        """Stop a container's processes, or let them go on. Raises OSError."""
        await asyncio.to_thread(self._hierarchies.freeze, group, frozen=frozen)

    def pids(self, group: str) -> list[int]:
        """The processes of a container. Blocking."""
        return self._hierarchies.processes(group)

    async def is_frozen(self, group: str) -> bool:
        """Whether a container's processes are stopped."""
        return await asyncio.to_thread(self._hierarchies.is_frozen, group)

    async def delete(self, bundle: Path, container_id: str, group: str) -> None:
        """Kill what is left of a container and remove the runtime's state and control groups; gone already is no error."""
        argv = [self.tool.path, *self.arguments(bundle), "delete", "--force", container_id]
        await processes.run(argv)
        await asyncio.to_thread(self._hierarchies.kill, group)
        # runc leaves the group of a process that it could not start, when the kernel was slow to let go of it
        try:
            await asyncio.to_thread(self._hierarchies.remove, group)
        except OSError as error:
            _log.warning("%s: %s; its processes: %s", container_id, error, self._hierarchies.processes(group))

    async def delete_ended(self, bundle: Path, container_id: str, group: str) -> None:
        """As ``delete``, for a container whose first process has ended.

        The state directory and the groups are all that is left then, and removing them here saves starting a program, 10 ms. Where
        other processes are in the groups, as with the host's PID namespace, they are the runtime's to kill.
        """
        try:
            await asyncio.to_thread(self._hierarchies.remove, group, timeout_s=_GROUP_TIMEOUT_S)
        except OSError:
            await self.delete(bundle, container_id, group)
        else:
            await asyncio.to_thread(shutil.rmtree, self.root / container_id, ignore_errors=True)

    async def sweep(self, live: Collection[str], parent: str, bundles: Path) -> None:
        """Kill and remove every container of this runtime's state that is none of *live*.

        A group without state is left alone: it is another daemon's, as the state is made before the group and removed after it.
        """
        known = {path.name for path in self.root.iterdir()} if self.root.exists() else set()
        for container_id in known - set(live):
            bundle = bundles / container_id
            bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self.delete(bundle, container_id, f"{parent}/{container_id}")
            await asyncio.to_thread(shutil.rmtree, self.root / container_id, ignore_errors=True)

    async def run_to_completion(
        self, bundle: Path, container_id: str, group: str, command: str, on_output: OnOutput
    ) -> int:
        """Run a container as a child of this process and return its exit code; *on_output* gets (1 or 2, bytes).

        While *on_output* waits, the container's output waits with it, as in a pipe.

        Nothing of the container is left then.

        For build steps, which are to end with the daemon. When the caller is cancelled, the container is killed and removed.
        Raises ContainerStartError's kinds if the process could not be started.
        """
        argv = [self.tool.path, *self.arguments(bundle), "run", "--bundle", str(bundle), container_id]
        process = await processes.spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_carry(process.stdout.fileno(), 1, on_output))
                tasks.create_task(_carry(process.stderr.fileno(), 2, on_output))
            code = await processes.wait(process)
        except BaseException:
            await to_the_end(self._end(process, bundle, container_id, group))
            raise
        finally:
            process.stdout.close()
            process.stderr.close()
        message = _logged_error(bundle) if code != 0 else None
        if message is not None:
            await self.delete(bundle, container_id, group)
            raise start_error(message, command)
        return code if code >= 0 else 128 - code

    async def exec_to_completion(self, bundle: Path, container_id: str, command: str, on_output: OnOutput) -> int:
        """Run a further process, ``process.json`` of *bundle*, in a running container as a child of this process; return its exit code.

        For what is to end with the daemon. When the caller is cancelled the process is killed; what it has started is not.
        Raises ContainerStartError's kinds.
        """
        pid_file = bundle / "pid"
        argv = [self.tool.path, *self.arguments(bundle), "exec", "--pid-file", str(pid_file)]
        argv += ["--process", str(bundle / "process.json"), container_id]
        process = await processes.spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        # what the process started in the background may hold the pipes for longer than it lives, which nobody waits for
        carrying = [
            asyncio.ensure_future(_carry(pipe.fileno(), stream, on_output))
            for stream, pipe in ((1, process.stdout), (2, process.stderr))
        ]
        try:
            code = await processes.wait(process)
            await asyncio.wait(carrying, timeout=_DRAIN_TIMEOUT_S)
        except BaseException:
            _kill_from(pid_file)
            process.kill()
            await to_the_end(processes.wait(process))
            raise
        finally:
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)
            process.stdout.close()
            process.stderr.close()
        message = _logged_error(bundle) if code != 0 else None
        if message is not None:
            raise exec_error(message, command)
        return code if code >= 0 else 128 - code

    async def _end(self, process: subprocess.Popen[bytes], bundle: Path, container_id: str, group: str) -> None:
        """Remove a container, and wait for the runtime that is running it, or about to.

        Killing the runtime first would not do: the child that it makes the container of belongs to no group at its beginning, would
        go on alone, and make its mount points in a root that is being taken away. So the runtime gets as far as it can be told.
        """
        deadline = time.monotonic() + _END_TIMEOUT_S
        while process.poll() is None:
            await self.delete(bundle, container_id, group)
            with suppress(TimeoutError):
                await asyncio.wait_for(processes.wait(process), _END_POLL_S)
            if time.monotonic() > deadline:
                process.kill()
        await self.delete(bundle, container_id, group)

    def failure(self, bundle: Path, stderr: str, command: str) -> ContainerStartError:
        """The error that a failed call of the runtime left behind."""
        return start_error(_logged_error(bundle) or stderr, command)

    def exec_failure(self, bundle: Path, stderr: str, command: str) -> ContainerStartError:
        """The same for a process that was to be started in a running container."""
        return exec_error(_logged_error(bundle) or stderr, command)


async def _read_exec_fifo(path: Path) -> bool:
    """Be the reader that a container's first process waits for; False if there is no such FIFO or nobody wrote."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
        loop.add_reader(fd, readable.set)
        await asyncio.wait_for(readable.wait(), _FIFO_TIMEOUT_S)
        written = os.read(fd, 1)
    except (TimeoutError, BlockingIOError):
        return False
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    path.unlink(missing_ok=True)  # as the runtime does: the container counts as started from here on
    return bool(written)


def _logged_error(bundle: Path) -> str | None:
    try:
        return last_message((bundle / "runtime.log").read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None


def _kill_from(pid_file: Path) -> None:
    """Kill the process whose pid the runtime wrote into a file; one that is gone, or was never started, is no error."""
    try:
        pidfd = processes.open_process(int(pid_file.read_text()))
    except (OSError, ValueError):
        return
    if pidfd is not None:
        processes.send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


async def _carry(fd: int, stream: int, on_output: OnOutput) -> None:
    os.set_blocking(fd, False)
    while data := await read_available(fd):
        await on_output(stream, data)
