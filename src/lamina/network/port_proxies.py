"""The processes that hold the published ports of containers: starting them and finding them again (``port_proxy`` is the program)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lamina.linux import processes
from lamina.linux.files import write_atomically
from lamina.network import port_proxy
from lamina.network.ports import Holding

_log = logging.getLogger(__name__)
_PROGRAM = Path(port_proxy.__file__)
_END_PATIENCE_S = 5.0

Addresses = tuple[str, str]
"""A container's, for ports of the host's IPv4 addresses and for those of IPv6; empty for none."""


class PortProxies:
    """One process a container, known by a file in the container's bundle."""

    def __init__(self, join: Callable[[int], None] | None = None) -> None:
        """*join* moves a process to where it outlives the daemon's service; None where nothing ends it with the daemon."""
        self._join = join
        self._starting: dict[Path, asyncio.Task[None]] = {}

    async def start(self, bundle: Path, pid: int, holding: Holding, addresses: Addresses) -> None:
        """Hand the sockets over to a process that serves them until the process *pid* ends, and leads to the container's *addresses*."""
        if not holding.sockets:
            return
        _write_addresses(bundle, addresses)
        ports = [
            f"{one.fileno()}:{binding.protocol}:{6 if ':' in binding.host_ip else 4}:{binding.container_port}"
            for one, binding in holding.sockets
        ]
        argv = [sys.executable, "-I", "-S", str(_PROGRAM), str(_pid_path(bundle)), str(pid), *ports]
        first = await processes.spawn(
            [*argv, f"ports of {bundle}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[one.fileno() for one, _ in holding.sockets],
        )
        holding.let_go()
        self._starting[bundle] = asyncio.ensure_future(self._see_off(bundle, first))

    async def _see_off(self, bundle: Path, first: subprocess.Popen[bytes]) -> None:
        """Wait until the process has left its parent, for which no container need wait."""
        await processes.wait(first)
        own = self.pid_of(bundle)
        if self._join is not None and own is not None:
            with suppress(OSError):
                await asyncio.to_thread(self._join, own)

    def lead_to(self, bundle: Path, addresses: Addresses) -> None:
        """Let the process of a container lead to other addresses of it."""
        pid = self.pid_of(bundle)
        if pid is not None:
            _write_addresses(bundle, addresses)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    def pid_of(self, bundle: Path) -> int | None:
        """The process that serves a container's ports, if it lives."""
        try:
            pid = int(_pid_path(bundle).read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(_pid_path(bundle)) in command else None

    async def end(self, bundle: Path) -> None:
        """End the process of a container; gone already is no error. Its ports are free when this returns."""
        starting = self._starting.pop(bundle, None)
        if starting is not None:
            await asyncio.wait([starting])
        pid = self.pid_of(bundle)
        pidfd = processes.open_process(pid) if pid is not None else None
        if pidfd is None:
            return
        try:
            processes.send_signal(pidfd, signal.SIGKILL)
            async with asyncio.timeout(_END_PATIENCE_S):
                await processes.wait_pidfd(pidfd)
        except TimeoutError:
            _log.warning("the process that serves the ports of %s does not end", bundle)
        finally:
            os.close(pidfd)


def _write_addresses(bundle: Path, addresses: Addresses) -> None:
    path = _pid_path(bundle)
    write_atomically(path.with_name(f"{path.name}.addresses"), " ".join(a or "-" for a in addresses).encode())


def _pid_path(bundle: Path) -> Path:
    return bundle / "ports.pid"
