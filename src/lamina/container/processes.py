"""A container's process: everything between its record and the runtime.

Preparing one is mounting the root, joining the network, writing the files by which it knows itself, and the runtime's bundle; cleaning up
is all of that backwards. Nothing here decides *when*; that is ``lifecycle``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lamina.container import bundle_mounts, identity_files, init_layer, links, shared_memory
from lamina.container.config import ExecConfig
from lamina.container.errors import CannotUpdate, ContainerNotRunning
from lamina.container.log_options import tag_of
from lamina.container.mount_requests import mount_requests
from lamina.container.mounts import runtime_mounts
from lamina.container.networking import Networking
from lamina.container.record import NEVER, Joined, Record, volumes_of
from lamina.container.settings import (
    DonorOf,
    container_settings,
    donor_in,
    exec_settings,
    namespace_of,
)
from lamina.container.streams import Console
from lamina.linux import mount, processes
from lamina.linux.deletion import remove_tree
from lamina.linux.tasks import to_the_end
from lamina.network.errors import PortAllocated
from lamina.network.port_proxies import PortProxies
from lamina.oci.digest import DiffID, Digest
from lamina.runtime.monitor import ConmonAttachment, ExecLaunch, ExitStatus, Launch, Monitor
from lamina.runtime.runtimes import Runtimes
from lamina.runtime.settings import Mount, Resources
from lamina.runtime.spec import build_process, build_spec
from lamina.snapshot import LowerDriver, Snapshots
from lamina.volume import VolumeMounts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """A process that was created: its pid in the host's namespace with its start time, and where in the networks it is."""

    pid: int
    started_ticks: int
    joined: Joined | None


class ContainerProcesses:
    """Creates, finds and cleans up the processes of containers."""

    def __init__(
        self,
        root: Path,
        run_root: Path,
        *,
        snapshots: Snapshots,
        lowers: LowerDriver,
        volume_mounts: VolumeMounts,
        networking: Networking,
        proxies: PortProxies,
        runtimes: Runtimes,
        init_path: str | None,
        cgroup_parent: str,
    ) -> None:
        self._root = root
        self._run_root = run_root
        self._snapshots = snapshots
        self._lowers = lowers
        self._volume_mounts = volume_mounts
        self._networking = networking
        self._proxies = proxies
        self._runtimes = runtimes
        self._init_path = init_path
        self._cgroup_parent = cgroup_parent
        self._recursive_read_only = mount.has_recursive_attributes()

    def directory(self, container_id: str) -> Path:
        """Where a container's own files lie: log, hosts, hostname, resolv.conf."""
        return self._root / container_id

    def log_path(self, container_id: str) -> Path:
        """Where conmon writes what the container says."""
        return self.directory(container_id) / "container.log"

    def bundle(self, container_id: str) -> Path:
        """Where the runtime's and conmon's files of a running container lie."""
        return self._run_root / container_id

    async def sweep(self, live: Collection[str]) -> None:
        """End and remove what runs of containers that are no more: their records were removed, and then the daemon was killed."""
        for runtime in self._runtimes.all():
            await runtime.sweep(live, self._cgroup_parent, self._run_root)

    def open(self, live: Collection[str]) -> None:
        """Make the directories and remove those of containers that are no more."""
        for base in (self._root, self._run_root):
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            base.chmod(0o700)
            for path in base.iterdir():
                if path.name not in live:
                    _remove_bundle(path)

    async def create(self, record: Record, donor_of: DonorOf) -> Started:
        """Prepare everything and create the process, which waits for ``start``.

        Raises ContainerStartError's kinds and what preparing may raise; nothing is left behind then.
        """
        bundle = self.bundle(record.id)
        _remove_bundle(bundle)
        bundle.mkdir(mode=0o700)
        self.directory(record.id).mkdir(mode=0o700, exist_ok=True)
        diff_ids = [DiffID(Digest(d)) for d in record.diff_ids]
        joining = asyncio.ensure_future(self._join(record))
        mounting = asyncio.ensure_future(self._snapshots.mount(record.id, diff_ids))
        try:
            await asyncio.wait((joining, mounting))
            where, rootfs = joining.result(), mounting.result()
            await self._volume_mounts.take(volumes_of(record), record.id)
            if record.state.started_at == NEVER:
                init_layer.mark(rootfs)
            donor = donor_in(record.host_config.network_mode)
            joined = donor_of(donor) if donor is not None else None
            others = links.linked(record, donor_of)
            images = {
                target: await self._lowers.lower([DiffID(Digest(d)) for d in image.diff_ids])
                for target, image in record.image_mounts.items()
            }
            self._ready_files(record, where, joined, [other.hosts_line for other in others])
            settings = container_settings(
                _known_as(record, joined),
                more_env=links.variables(record, others),
                rootfs=rootfs,
                mounts=self._mounts(record, rootfs, donor_of, images),
                network=_network_namespace(where, joined),
                donor_of=donor_of,
                init_path=self._init_path,
                cgroup_parent=self._cgroup_parent,
            )
            (bundle / "config.json").write_bytes(build_spec(record.id, settings).config)
            pid = await self._runtimes.monitor_of(record.host_config.runtime).create(self._launch(record))
            if where is not None:
                await self.hold_ports(record, where, pid)
        except BaseException:
            await to_the_end(self._undo(record, joining, mounting))
            raise
        return Started(pid, processes.start_time(pid) or 0, where)

    async def hold_ports(self, record: Record, joined: Joined, pid: int) -> None:
        """Hand a container's published ports to the process that holds them, whether the daemon runs or not."""
        holding = self._networking.holding(record.id)
        if holding is not None:
            addresses = self._networking.relayed_to(record, joined)
            await self._proxies.start(self.bundle(record.id), pid, holding, addresses)

    async def follow_connections(self, record: Record) -> None:
        """A running container is in other networks than before: let its ports lead where it is."""
        assert record.joined is not None
        bundle = self.bundle(record.id)
        if self._proxies.pid_of(bundle) is not None:
            self._proxies.lead_to(bundle, self._networking.relayed_to(record, record.joined))
        await self.hold_ports(record, record.joined, record.state.pid)

    async def adopt(self, record: Record) -> None:
        """See to it that a container that runs has its way out, and its ports a holder, if that has ended."""
        await self._networking.lead_out_again(record)
        if record.joined is not None and record.joined.ports and self._proxies.pid_of(self.bundle(record.id)) is None:
            try:
                holding = self._networking.hold_again(record)
            except PortAllocated as error:
                _log.warning("%s: %s", record.id, error)
                return
            addresses = self._networking.relayed_to(record, record.joined)
            await self._proxies.start(self.bundle(record.id), record.state.pid, holding, addresses)

    async def _undo(
        self, record: Record, joining: asyncio.Future[Joined | None], mounting: asyncio.Future[Path]
    ) -> None:
        """Give back what was got, also by the one of the two whose sibling failed."""
        await asyncio.wait((joining, mounting))
        mounting.exception()
        await self.clean_up(record, joining.result() if joining.exception() is None else None)

    async def start(self, record: Record) -> None:
        """Let a created process run. Raises ContainerStartError's kinds."""
        await self._runtimes.of(record.host_config.runtime).start(self.bundle(record.id), record.id, record.path)

    async def attach(self, container_id: str) -> ConmonAttachment:
        """Connect to the streams of a created or running process. Raises OSError if it has ended."""
        return await ConmonAttachment.connect(self.bundle(container_id))

    async def wait(self, record: Record, when_ended: Callable[[], None]) -> ExitStatus:
        """How the process ended, when all that it said was read; at once if that was so before.

        *when_ended* is called as soon as the process has ended: from then on what it said has to be read without waiting for anyone.
        """
        telling = asyncio.ensure_future(self._tell_end(record, when_ended))
        try:
            return await Monitor.wait_exit(self.bundle(record.id), record.id)
        finally:
            when_ended()
            telling.cancel()

    @staticmethod
    async def _tell_end(record: Record, when_ended: Callable[[], None]) -> None:
        pidfd = processes.open_process(record.state.pid, record.state.started_ticks) if record.state.pid else None
        if pidfd is not None:
            try:
                await processes.wait_pidfd(pidfd)
            finally:
                os.close(pidfd)
        when_ended()

    def exec_bundle(self, container_id: str, exec_id: str) -> Path:
        """Where conmon's files of a further process lie; they go with the container's."""
        return self.bundle(container_id) / f"exec-{exec_id}"

    async def execute(
        self,
        record: Record,
        exec_id: str,
        config: ExecConfig,
        size: tuple[int, int] | None,
        console: Console,
        others: Sequence[links.Linked],
    ) -> int:
        """Start a further process in a running container and return its pid; the console gets its streams before it runs.

        It is told of the *others* that the container is linked to.
        Raises ContainerStartError's kinds, UserNotFound, InvalidSetting, or ContainerNotRunning if it ended a moment ago.
        """
        bundle = self.exec_bundle(record.id, exec_id)
        try:
            bundle.mkdir(mode=0o700)
        except FileNotFoundError:
            raise ContainerNotRunning(record.id) from None
        rootfs = self._snapshots.rootfs(record.id)
        told = links.variables(record, others)
        settings = exec_settings(record, config, rootfs=rootfs, console_size=size, more_env=told)
        process_path = bundle / "process.json"
        process_path.write_bytes(build_process(settings).config)
        launch = ExecLaunch(
            record.id,
            exec_id,
            bundle,
            process_path,
            settings.args[0],
            terminal=settings.terminal,
            stdin=config.attach_stdin,
        )
        return await self._runtimes.monitor_of(record.host_config.runtime).execute(launch, console.connect)

    async def run_to_completion(
        self, record: Record, exec_id: str, config: ExecConfig, most_bytes: int
    ) -> tuple[int, bytes]:
        """Run a further process to its end, and return its exit code and the first bytes that it said. It is killed when cancelled.

        Raises as ``execute`` does.
        """
        bundle = self.exec_bundle(record.id, exec_id)
        try:
            bundle.mkdir(mode=0o700)
        except FileNotFoundError:
            raise ContainerNotRunning(record.id) from None
        said = bytearray()

        async def hear(stream: int, data: bytes) -> None:
            said.extend(data[: most_bytes - len(said)])

        try:
            settings = exec_settings(record, config, rootfs=self._snapshots.rootfs(record.id), console_size=None)
            (bundle / "process.json").write_bytes(build_process(settings).config)
            code = await self._runtimes.of(record.host_config.runtime).exec_to_completion(
                bundle, record.id, settings.args[0], hear
            )
        finally:
            shutil.rmtree(bundle, ignore_errors=True)
        return code, bytes(said)

    async def wait_exec(self, container_id: str, exec_id: str) -> ExitStatus:
        """How a further process ended, when it has."""
        return await Monitor.wait_exit(self.exec_bundle(container_id, exec_id), exec_id)

    def resize_exec(self, container_id: str, exec_id: str, height: int, width: int) -> None:
        """Set the size of a further process's terminal. Raises OSError if there is none."""
        Monitor.resize(self.exec_bundle(container_id, exec_id), height, width)

    def resize(self, container_id: str, height: int, width: int) -> None:
        """Set the terminal's size. Raises OSError if there is none."""
        Monitor.resize(self.bundle(container_id), height, width)

    def reopen_log(self, container_id: str) -> None:
        """Have what is said from now on written to a new file. Raises OSError if no process runs."""
        Monitor.reopen_log(self.bundle(container_id))

    @staticmethod
    def signal(record: Record, number: int) -> bool:
        """Send a signal to the container's first process; False if it has ended."""
        pidfd = processes.open_process(record.state.pid, record.state.started_ticks) if record.state.pid else None
        if pidfd is None:
            return False
        try:
            return processes.send_signal(pidfd, number)
        finally:
            os.close(pidfd)

    async def freeze(self, record: Record, *, frozen: bool) -> None:
        """Stop all processes of a container, or let them go on. Raises OSError."""
        await self._runtimes.of(record.host_config.runtime).freeze(self.group(record), frozen=frozen)

    async def update(self, record: Record, limits: Resources) -> None:
        """Keep a running container within other limits. Raises CannotUpdate."""
        try:
            await self._runtimes.of(record.host_config.runtime).update(self.bundle(record.id), record.id, limits)
        except OSError as error:
            raise CannotUpdate(record.id, str(error)) from None

    def pids(self, record: Record) -> list[int]:
        """All processes of a container, as the host numbers them. Blocking."""
        return self._runtimes.of(record.host_config.runtime).pids(self.group(record))

    async def is_frozen(self, record: Record) -> bool:
        """Whether a container's processes are stopped."""
        return await self._runtimes.of(record.host_config.runtime).is_frozen(self.group(record))

    async def clean_up(self, record: Record, joined: Joined | None, *, has_ended: bool = False) -> None:
        """Remove all that a process of the container had; what is gone already is no error. Quicker if it is known to have ended."""
        bundle = self.bundle(record.id)
        runtime = self._runtimes.of(record.host_config.runtime)
        delete = runtime.delete_ended if has_ended else runtime.delete
        await delete(bundle, record.id, self.group(record))
        await self._snapshots.unmount(record.id)
        await self._volume_mounts.give_back(volumes_of(record), record.id)
        if joined is not None:
            if joined.ports:
                await self._proxies.end(bundle)
            await self._networking.leave(record, joined)
        await asyncio.to_thread(_remove_bundle, bundle)

    async def forget(self, container_id: str) -> None:
        """Remove a container's own files."""
        await asyncio.to_thread(remove_tree, self.directory(container_id))

    def group(self, record: Record) -> str:
        """The control group of a container, whether it runs or not."""
        return f"{record.host_config.cgroup_parent or self._cgroup_parent}/{record.id}"

    def _launch(self, record: Record) -> Launch:
        config = record.config
        keeps_log = record.host_config.log_config.type != "none"
        return Launch(
            record.id,
            self.bundle(record.id),
            self.group(record),
            record.path,
            self.log_path(record.id) if keeps_log else None,
            terminal=config.tty,
            stdin=config.open_stdin,
            leave_stdin_open=config.open_stdin and not config.stdin_once,
            journal=(record.name, tag_of(record)) if record.host_config.log_config.type == "journald" else None,
        )

    async def _join(self, record: Record) -> Joined | None:
        """Where a container of its own network is; one that joins another's is where that is."""
        return None if donor_in(record.host_config.network_mode) is not None else await self._networking.join(record)

    def write_names(self, record: Record, donor_of: DonorOf) -> None:
        """Write the names that a running container knows again, as addresses have changed. Raises OSError, LinkedNotRunning."""
        lines = [other.hosts_line for other in links.linked(record, donor_of) if other.ip]
        self._write_own_files(record, record.joined, lines)

    def _write_own_files(self, record: Record, joined: Joined | None, more_hosts: Sequence[str]) -> None:
        identity_files.write(
            self.directory(record.id),
            record,
            joined,
            more_hosts,
            gateway=self._networking.host_gateway,
            is_resolved=self._networking.is_resolved(joined),
        )

    def _keeps_read_only_below(self, record: Record) -> bool:
        """Whether kernel and runtime can make all mounts of a tree read-only."""
        return self._recursive_read_only and self._runtimes.of(record.host_config.runtime).knows_recursive_attributes

    def _ready_files(
        self, record: Record, joined: Joined | None, donor: Record | None, more_hosts: Sequence[str]
    ) -> None:
        if donor is None:
            self._write_own_files(record, joined, more_hosts)
        else:
            identity_files.share(self.directory(record.id), self.directory(donor.id))

    def _mounts(
        self, record: Record, rootfs: Path, donor_of: DonorOf, images: Mapping[str, Sequence[int]]
    ) -> list[Mount]:
        """All that is mounted in a container beside what every one has."""
        host = record.host_config
        taken = mount_requests(record.config, host, record.mounts)
        mounts = identity_files.mounts(self.directory(record.id), rootfs, taken, read_only=host.readonly_rootfs)
        donor = donor_in(host.ipc_mode)
        if donor is not None:
            shared = donor_of(donor)
            mounts.append(shared_memory.join(shared, self.bundle(shared.id)))
        elif host.ipc_mode == "shareable":
            mounts.append(shared_memory.share(self.bundle(record.id), host.shm_size))
        mounts = [m for m in mounts if m.destination not in taken]
        return [
            *mounts,
            *runtime_mounts(
                record, self.bundle(record.id), images, recursive_read_only=self._keeps_read_only_below(record)
            ),
        ]


def _remove_bundle(bundle: Path) -> None:
    shared_memory.release(bundle)
    bundle_mounts.release(bundle)
    remove_tree(bundle)


def _known_as(record: Record, joined: Record | None) -> Record:
    """A record with the names of the container whose network it joins."""
    if joined is None:
        return record
    known = joined.config
    config = msgspec.structs.replace(record.config, hostname=known.hostname, domainname=known.domainname)
    return msgspec.structs.replace(record, config=config)


def _network_namespace(where: Joined | None, joined: Record | None) -> str:
    if joined is not None:
        return namespace_of(joined, "net")
    return where.sandbox if where is not None and where.sandbox else "host"
