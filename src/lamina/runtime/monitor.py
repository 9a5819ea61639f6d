"""conmon: a small process per container that owns its streams, its log and its exit code, so that none of them is the daemon's.

The daemon starts conmon, which starts the runtime, tells over a pipe whether the container was created, and stays behind as a process
of its own. Whoever runs the daemon later finds the container again by the files below its bundle::

    conmon.pid, pidfile            conmon's and the container's first process
    attach                         a socket: what the process says, and its input
    ctl                            a FIFO: terminal sizes, and the word to open the log again
    exit                           the exit code, written when all output was read
    oom                            there if the kernel killed the container for want of memory
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lamina.linux import processes
from lamina.linux.tasks import to_the_end
from lamina.runtime.oci_runtime import OciRuntime
from lamina.runtime.probe import Tool

_log = logging.getLogger(__name__)
_PACKET_BYTES = 64 << 10
_STDIN_BYTES = 8 << 10
_SIGKILLED = 137
_UNKNOWN = 255
"""As docker has it for a container that a machine's end has taken."""
_CREATE_TIMEOUT_S = 60.0
_FIRST_STREAM = 1
"""conmon counts its pipes: 1 is stdin, 2 stdout, 3 stderr."""


@dataclass(frozen=True)
class Launch:
    """How conmon is to run a container, in which control group. ``log_path`` None keeps no log."""

    container_id: str
    bundle: Path
    group: str
    command: str
    log_path: Path | None
    terminal: bool = False
    stdin: bool = False
    leave_stdin_open: bool = False
    journal: tuple[str, str] | None = None
    """The name and the tag by which the journal is to know what the container says; None keeps it out of there."""


@dataclass(frozen=True)
class ExecLaunch:
    """How conmon is to run one more process in a running container; *bundle* is a directory of the process's own."""

    container_id: str
    exec_id: str
    bundle: Path
    process_path: Path
    command: str
    terminal: bool = False
    stdin: bool = False


@dataclass(frozen=True)
class ExitStatus:
    """How a container ended. ``known`` is false if conmon was killed before it could tell."""

    code: int
    oom_killed: bool
    finished_ns: int
    known: bool = True


class Monitor:
    """Starts conmon and finds what it left."""

    def __init__(self, tool: Tool, runtime: OciRuntime, join: Callable[[int], None] | None = None) -> None:
        """*join* moves a process to where it outlives the daemon's service; None where nothing ends it with the daemon."""
        self._tool = tool
        self._runtime = runtime
        self._join = join

    async def create(self, launch: Launch) -> int:
        """Create the container (its process waits to be started) and return the process's pid in the host's namespace.

        Raises ContainerStartError's kinds; nothing of the container is left then.
        """
        report = await self._report(launch)
        pid, message = _parse_report(report)
        if pid <= 0:
            error = self._runtime.failure(launch.bundle, message, launch.command)
            await to_the_end(self._runtime.delete(launch.bundle, launch.container_id, launch.group))
            raise error
        return pid

    async def execute(self, launch: ExecLaunch, connect: Callable[[ConmonAttachment], None]) -> int:
        """Start a process in a running container and return its pid; *connect* gets its streams before it runs.

        Raises ContainerStartError's kinds; nothing of the process is left then.
        """
        with _Pipe() as sync, _Pipe() as start, _Pipe() as attach:
            environment = {
                "_OCI_SYNCPIPE": str(sync.write_fd),
                "_OCI_STARTPIPE": str(start.read_fd),
                "_OCI_ATTACHPIPE": str(attach.write_fd),
            }
            fds = (sync.write_fd, start.read_fd, attach.write_fd)
            os.write(start.write_fd, b"\0")  # nothing is to be done before it forks
            try:
                await to_the_end(self._spawn(launch, self._exec_arguments(launch), environment, fds))
                sync.close("write")
                start.close("read")
                attach.close("write")
                async with asyncio.timeout(_CREATE_TIMEOUT_S):
                    await _read_line(attach.read_fd)
                    connect(await ConmonAttachment.connect(launch.bundle))
                    os.write(start.write_fd, b"\0")
                    report = await _read_line(sync.read_fd)
            except (TimeoutError, OSError) as error:
                _kill_conmon(launch.bundle, launch.exec_id)
                raise self._runtime.exec_failure(launch.bundle, str(error), launch.command) from None
            except BaseException:
                _kill_conmon(launch.bundle, launch.exec_id)
                raise
        pid, message = _parse_report(report)
        if pid <= 0:
            raise self._runtime.exec_failure(launch.bundle, message, launch.command)
        return pid

    async def _report(self, launch: Launch) -> bytes:
        """Start conmon and return its line about the creation. If none comes in time, or the caller gives up, it is killed."""
        read_fd, write_fd = os.pipe()
        try:
            environment = {"_OCI_SYNCPIPE": str(write_fd)}
            await to_the_end(self._spawn(launch, self._arguments(launch), environment, (write_fd,)))
            os.close(write_fd)
            write_fd = -1
            async with asyncio.timeout(_CREATE_TIMEOUT_S):
                return await _read_line(read_fd)
        except TimeoutError:
            _kill_conmon(launch.bundle, launch.container_id)
            return b"the runtime did not create the container in time"
        except BaseException:
            _kill_conmon(launch.bundle, launch.container_id)
            raise
        finally:
            os.close(read_fd)
            if write_fd >= 0:
                os.close(write_fd)

    async def _spawn(
        self, launch: Launch | ExecLaunch, argv: list[str], environment: dict[str, str], fds: tuple[int, ...]
    ) -> None:
        """Start conmon. Its first process ends at once; the one that stays is in a session of its own."""
        first = await processes.spawn(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), **environment},
            pass_fds=fds,
            cwd=launch.bundle,
        )
        await processes.wait(first)
        pid = _read_pid(launch.bundle / "conmon.pid")
        if self._join is not None and pid is not None:
            try:
                await asyncio.to_thread(self._join, pid)
            except OSError as error:
                _log.warning("%s: conmon stays in the daemon's control group: %s", launch.container_id, error)

    def _arguments(self, launch: Launch) -> list[str]:
        log = f"k8s-file:{launch.log_path}" if launch.log_path is not None else "none"
        argv = self._common_arguments(launch, launch.container_id, log)
        argv += ["--leave-stdin-open"] if launch.leave_stdin_open else []
        if launch.journal is not None:
            name, tag = launch.journal
            argv += ["--log-path", "journald:", "--name", name, "--log-tag", tag]
        return argv

    def _exec_arguments(self, launch: ExecLaunch) -> list[str]:
        argv = self._common_arguments(launch, launch.exec_id, "none")
        # the first version of conmon's words has none for an attachment that comes before the process
        argv += ["--api-version", "1", "--exec", "--exec-attach", "--exec-process-spec", str(launch.process_path)]
        return argv

    def _common_arguments(self, launch: Launch | ExecLaunch, own_id: str, log: str) -> list[str]:
        bundle = launch.bundle
        argv = [self._tool.path, "--cid", launch.container_id, "--cuuid", own_id, "--name", own_id]
        argv += ["--runtime", self._runtime.tool.path, "--bundle", str(bundle), "--persist-dir", str(bundle)]
        argv += ["--conmon-pidfile", str(bundle / "conmon.pid"), "--container-pidfile", str(bundle / "pidfile")]
        argv += ["--full-attach", "--log-path", log, "--log-level", "error"]
        for argument in self._runtime.arguments(bundle):
            argv.append(f"--runtime-arg={argument}")
        argv += ["--terminal"] if launch.terminal else []
        argv += ["--stdin"] if launch.stdin else []
        return argv

    @classmethod
    async def wait_exit(cls, bundle: Path, container_id: str) -> ExitStatus:
        """Return when the container has ended and all it said was logged; at once if that was so before."""
        pidfd = _open_conmon(bundle, container_id)
        if pidfd is not None:
            try:
                await processes.wait_pidfd(pidfd)
            finally:
                os.close(pidfd)
        return cls.exit_status(bundle)

    @staticmethod
    def exit_status(bundle: Path) -> ExitStatus:
        """What conmon left when it ended."""
        path = bundle / "exit"
        oom_killed = (bundle / "oom").exists()
        try:
            return ExitStatus(int(path.read_text() or _SIGKILLED), oom_killed, path.stat().st_mtime_ns)
        except (FileNotFoundError, ValueError):
            return ExitStatus(_UNKNOWN, oom_killed, 0, known=False)

    @staticmethod
    def resize(bundle: Path, height: int, width: int) -> None:
        """Tell the container's terminal its size. Raises OSError if it has none or has ended."""
        _control(bundle, b"1 %d %d\n" % (height, width))

    @staticmethod
    def reopen_log(bundle: Path) -> None:
        """Have conmon open its log again: a file of the log's name is in place when it writes to it. Raises OSError if it has ended."""
        _control(bundle, b"2 0 0\n")


def _control(bundle: Path, message: bytes) -> None:
    fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, message)
    finally:
        os.close(fd)


class ConmonAttachment:
    """A connection to a container's streams: an iterator of (1 stdout or 2 stderr, bytes), and its input."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    async def connect(cls, bundle: Path) -> ConmonAttachment:
        """Attach to a created or running container. Raises OSError if it has ended.

        The socket is named through a directory descriptor: a socket's path may have 107 bytes, a bundle's may be longer.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(connection, f"/proc/self/fd/{directory}/attach")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(directory)
        return cls(connection)

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = await loop.sock_recv(self._socket, _PACKET_BYTES)
            except ConnectionResetError:
                return
            if not packet:
                return
            yield packet[0] - _FIRST_STREAM, packet[1:]

    async def write(self, data: bytes) -> None:
        """Send input; waits while the process does not read. Raises OSError if it has ended."""
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), _STDIN_BYTES):
            await loop.sock_sendall(self._socket, data[start : start + _STDIN_BYTES])

    async def close_stdin(self) -> None:
        """End the input."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Let go; the container goes on."""
        self._socket.close()


class _Pipe:
    """A pipe whose ends are closed with the block, if they have not been before."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *error: object) -> None:
        self.close("read")
        self.close("write")

    def close(self, end: Literal["read", "write"]) -> None:
        """Close one end; closing it again is no error."""
        fd = getattr(self, f"{end}_fd")
        if fd >= 0:
            os.close(fd)
            setattr(self, f"{end}_fd", -1)


async def _read_line(fd: int) -> bytes:
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(b"\n"):
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(fd, lambda ready=ready: ready.done() or ready.set_result(None))  # type: ignore[misc]
        try:
            await ready
        finally:
            loop.remove_reader(fd)
        chunk = os.read(fd, _PACKET_BYTES)
        if not chunk:
            break
        data += chunk
    return data


def _parse_report(report: bytes) -> tuple[int, str]:
    """conmon's word on the creation: ``{"pid": N}``, or ``{"pid": -1, "message": "…"}``; of an exec ``data`` is the pid's name."""
    try:
        fields = json.loads(report.partition(b"\n")[0])  # of a process that ends at once the exit code follows
        pid = fields["pid"] if "pid" in fields else fields["data"]
        return int(pid), str(fields.get("message", ""))
    except (ValueError, KeyError, TypeError):
        return -1, report.decode(errors="replace") or "conmon ended without a report"


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _open_conmon(bundle: Path, container_id: str) -> int | None:
    """A pidfd of a container's conmon, or None if it has ended: a later process that got its number is not it."""
    pid = _read_pid(bundle / "conmon.pid")
    pidfd = processes.open_process(pid) if pid is not None else None
    if pidfd is None:
        return None
    # looked at when it is held, so that what is seen is what is held
    with suppress(OSError):
        if container_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pidfd
    os.close(pidfd)
    return None


def _kill_conmon(bundle: Path, container_id: str) -> None:
    """Kill a container's conmon with the runtime that it started."""
    pidfd = _open_conmon(bundle, container_id)
    if pidfd is None:
        return
    try:
        pid = _read_pid(bundle / "conmon.pid")
        with suppress(OSError):
            children = [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            processes.send_signal(pidfd, signal.SIGKILL)
            for child in children:
                os.kill(child, signal.SIGKILL)
        processes.send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
