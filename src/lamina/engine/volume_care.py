"""What keeps volumes' files safe: backups, copies and snapshots, also while a container writes to them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lamina.container.config import ExecConfig
from lamina.container.errors import ContainerNotRunning, PauseConflict
from lamina.container.freezing import Freezing
from lamina.container.processes import ContainerProcesses
from lamina.container.record import Record, volumes_of
from lamina.container.store import ContainerStore
from lamina.container.volume_archives import BackedUpFor, BackupDescription, read_backup, write_backup
from lamina.errors import Conflict, InvalidArgument, LaminaError, NotFound
from lamina.linux import paths, pipes
from lamina.linux.deletion import remove_tree
from lamina.linux.tasks import to_the_end
from lamina.linux.user_namespace import IdMap
from lamina.linux.worker import run_in_worker
from lamina.volume import Volume, VolumeInUse, VolumeMounts, VolumeStore
from lamina.volume import snapshots as volume_snapshots
from lamina.volume.copying import copy_tree
from lamina.volume.snapshots import Snapshot

_DATA = "_data"
_MOST_OUTPUT = 4096


class QuiesceFailed(LaminaError):
    """A command that was to make a container ready for the copy, or to end that, failed."""

    def __init__(self, container: str, command: str, code: int, output: str) -> None:
        super().__init__(f"{command!r} in container {container} ended with {code}: {output.strip()}")
        self.container = container
        self.command = command
        self.code = code


class VolumeNotEmpty(Conflict):
    """Files that are to be restored would take the place of others."""

    def __init__(self, name: str) -> None:
        super().__init__(f"volume {name} exists and is not empty")
        self.name = name

    @property
    def hint(self) -> str:
        """What to do about it."""
        return "use --force to replace what is in it"


@dataclass(frozen=True)
class Quiesce:
    """The container that is to stand still for a copy; with commands, they are run in it before and after instead."""

    container: str
    before: str = ""
    after: str = ""


class VolumeCare:
    """Backups, copies and snapshots of the volumes of one state root."""

    def __init__(
        self,
        volumes: VolumeStore,
        mounts: VolumeMounts,
        containers: ContainerStore,
        processes: ContainerProcesses,
        freezing: Freezing,
        idmap: IdMap | None = None,
    ) -> None:
        """*idmap* tells whom the containers' users are on the host, None for the same: backups have the containers'."""
        self._volumes = volumes
        self._mounts = mounts
        self._containers = containers
        self._processes = processes
        self._freezing = freezing
        self._idmap = idmap

    @asynccontextmanager
    async def backing_up(self, name: str, quiesce: Quiesce | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a volume's backup.

        A container stands still for as long as a copy on the same disk takes, and not until the bytes are where they go. Raises
        VolumeNotFound, QuiesceFailed, InvalidArgument, ContainerNotRunning.
        """
        volume = self._volumes.get(name)
        about = self._describe(volume, quiesce)
        scratch: Path | None = None
        hold = self._volumes.hold()
        try:
            await hold.create(name)
            async with self._mounts.mounted(name, f"backup-{secrets.token_hex(8)}"):
                source = volume.path
                if quiesce is not None:
                    scratch = self._volumes.scratch()
                    source = scratch / _DATA
                    async with self._still(volume, quiesce):
                        await run_in_worker(volume_snapshots.copy_for_a_moment, (), volume, source)
                with paths.directory(source) as directory:

                    async def write(out: int) -> None:
                        await run_in_worker(write_backup, (directory, out), directory, out, about, self._idmap)

                    yield pipes.drain(write)
        finally:
            hold.release()
            if scratch is not None:
                await to_the_end(asyncio.to_thread(remove_tree, scratch))

    async def restore(
        self, name: str | None, chunks: AsyncIterable[bytes], *, force: bool = False
    ) -> tuple[Volume, BackupDescription]:
        """Make a backup's files a volume's: that of its own name if none is told.

        What is there is replaced in one step, when all of the backup was read and is whole, and only with *force*. Raises
        VolumeNotEmpty, VolumeInUse, CannotExtract; nothing has changed then.
        """
        if name is not None:
            self._check_replaceable(name, force=force)
        scratch = self._volumes.scratch()
        try:
            data = scratch / _DATA
            data.mkdir(mode=0o755)
            with paths.directory(data) as directory:

                async def take(source: int) -> BackupDescription:
                    return await run_in_worker(read_backup, (source, directory), source, directory, self._idmap)

                about = await pipes.feed(chunks, take)
            target = name or about.volume
            self._check_replaceable(target, force=force)
            volume = await self._fill(target, scratch, about.labels)
        finally:
            await to_the_end(asyncio.to_thread(remove_tree, scratch))
        return volume, about

    async def clone(self, name: str, target: str | None, quiesce: Quiesce | None = None) -> Volume:
        """Make a new volume with a volume's files. Raises VolumeNotFound, and VolumeNotEmpty if *target* exists with files in it."""
        volume = self._volumes.get(name)
        if target is not None:
            self._check_replaceable(target, force=False)
        target = target or secrets.token_hex(32)
        scratch = self._volumes.scratch()
        try:
            with self._volumes.hold() as hold:
                await hold.create(name)
                async with self._mounts.mounted(name, scratch.name), self._still(volume, quiesce):
                    await run_in_worker(copy_tree, (), volume.path, scratch / _DATA)
            return await self._fill(target, scratch, volume.labels)
        finally:
            await to_the_end(asyncio.to_thread(remove_tree, scratch))

    async def snapshot(self, name: str, snapshot: str | None, quiesce: Quiesce | None = None) -> Snapshot:
        """Make a snapshot. Raises VolumeNotFound, SnapshotExists, InvalidSnapshotName, and as ``backing_up`` does."""
        volume = self._volumes.get(name)
        with self._volumes.hold() as hold:
            await hold.create(name)
            users = [record.name for record in self._users(name)]
            quiesced = quiesce.container if quiesce is not None else ""
            async with self._mounts.mounted(name, f"snapshot-{secrets.token_hex(8)}"), self._still(volume, quiesce):
                return await run_in_worker(volume_snapshots.make_snapshot, (), volume, snapshot, users, quiesced)

    async def snapshots(self, name: str) -> list[Snapshot]:
        """The snapshots of a volume, the oldest first. Raises VolumeNotFound."""
        return await asyncio.to_thread(volume_snapshots.list_snapshots, self._volumes.get(name))

    async def remove_snapshot(self, name: str, snapshot: str) -> None:
        """Remove a snapshot. Raises VolumeNotFound, SnapshotNotFound."""
        await to_the_end(asyncio.to_thread(volume_snapshots.remove_snapshot, self._volumes.get(name), snapshot))

    async def restore_snapshot(self, name: str, snapshot: str, target: str | None = None) -> Volume:
        """Let a volume, or another one, have a snapshot's files again. Raises VolumeInUse if a container runs with it, SnapshotNotFound."""
        source = volume_snapshots.find_snapshot(self._volumes.get(name), snapshot)
        # whoever names a snapshot to go back to has told what is to become of the present files
        self._check_replaceable(target or name, force=target is None)
        scratch = self._volumes.scratch()
        try:
            await run_in_worker(copy_tree, (), source, scratch / _DATA)
            return await self._fill(target or name, scratch, {})
        finally:
            await to_the_end(asyncio.to_thread(remove_tree, scratch))

    async def _fill(self, name: str, scratch: Path, labels: dict[str, str]) -> Volume:
        """Let scratch files be a volume's, a plain one's."""
        existing = self._volumes.get(name) if name in self._volumes else None
        if existing is not None and existing.options:
            raise InvalidArgument(
                f"volume {name} is a mount, whose files cannot be exchanged; restore it under another name"
            )
        with self._volumes.hold() as hold:
            if existing is not None:
                await hold.create(name)
            async with self._mounts.unused(name):
                return await to_the_end(self._volumes.fill(name, scratch, labels))

    def _check_replaceable(self, name: str, *, force: bool) -> None:
        if name in self._volumes:
            self._check_unused(name)
            if not force and any(self._volumes.get(name).path.iterdir()):
                raise VolumeNotEmpty(name)

    def _check_unused(self, name: str) -> None:
        running = [record.id for record in self._users(name) if record.state.has_process]
        if running:
            raise VolumeInUse(name, running)

    def _users(self, name: str) -> list[Record]:
        return [record for record in self._containers if name in volumes_of(record)]

    def _describe(self, volume: Volume, quiesce: Quiesce | None) -> BackupDescription:
        return BackupDescription(
            volume=volume.name,
            taken=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            created=volume.created,
            labels=volume.labels,
            options=volume.options,
            containers=[
                BackedUpFor(id=r.id, name=r.name, image=r.image_name, running=r.state.has_process)
                for r in self._users(volume.name)
            ],
            quiesced=quiesce.container if quiesce is not None else "",
        )

    @asynccontextmanager
    async def _still(self, volume: Volume, quiesce: Quiesce | None) -> AsyncIterator[None]:
        """A container frozen, or made ready by its own commands, for the length of the block. Raises QuiesceFailed and the like."""
        if quiesce is None:
            yield
            return
        record = self._containers.find(quiesce.container)
        if volume.name not in volumes_of(record):
            raise InvalidArgument(f"container {record.name} does not have volume {volume.name}")
        if not record.state.has_process:
            raise ContainerNotRunning(record.id)
        if quiesce.before or quiesce.after:
            try:
                await self._run(record, quiesce.before)
                yield
            finally:
                await to_the_end(self._run(record, quiesce.after))
            return
        frozen_here = await self._freeze(record)
        try:
            yield
        finally:
            if frozen_here:
                await to_the_end(self._thaw(record))

    async def _freeze(self, record: Record) -> bool:
        """Freeze a container; False if it is frozen already, and to stay so."""
        try:
            await self._freezing.pause(record.id)
        except PauseConflict:
            return False
        return True

    async def _thaw(self, record: Record) -> None:
        with suppress(PauseConflict, NotFound):  # somebody else has, or it was removed
            await self._freezing.unpause(record.id)

    async def _run(self, record: Record, command: str) -> None:
        """Raises QuiesceFailed."""
        if command:
            config = ExecConfig(cmd=["sh", "-c", command])
            code, output = await self._processes.run_to_completion(record, secrets.token_hex(32), config, _MOST_OUTPUT)
            if code != 0:
                raise QuiesceFailed(record.name, command, code, output.decode(errors="replace"))
