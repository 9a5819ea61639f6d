"""Volumes that are mounts: mounted while containers that run have them, by mount(8), which knows all file systems and their helpers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from lamina.errors import LaminaError
from lamina.linux import mount, processes
from lamina.linux.tasks import to_the_end
from lamina.volume.driver_options import MountArguments
from lamina.volume.store import Volume, VolumeStore


class VolumeNotMounted(LaminaError):
    """A volume's file system could not be mounted; the message is docker's with mount(8)'s words."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"failed to mount local volume: {name}: {reason}")
        self.name = name
        self.reason = reason


class VolumeMounts:
    """Who has which of these volumes mounted."""

    def __init__(self, store: VolumeStore) -> None:
        self._store = store
        self._users: dict[str, set[str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def open(self, users: Mapping[str, Iterable[str]]) -> None:
        """Note who runs with which volumes, and take away mounts that nobody has any more. Blocking."""
        self._users = {name: set(containers) for name, containers in users.items()}
        mounted = set(mount.mountpoints(str(self._store.root)))
        for volume in self._store:
            if str(volume.path) in mounted and not self._users.get(volume.name):
                mount.unmount(str(volume.path))

    async def take(self, names: Iterable[str], user: str) -> None:
        """Mount those of some volumes that are mounts, for one who uses them. Raises VolumeNotMounted; then this user has none of them."""
        taken: list[str] = []
        try:
            for name in self._that_are_mounts(names):
                volume = self._store.get(name)
                async with self._lock(name):
                    await to_the_end(self._mount(volume))
                    self._users.setdefault(name, set()).add(user)
                taken.append(name)
        except BaseException:
            await to_the_end(self.give_back(taken, user))
            raise

    async def give_back(self, names: Iterable[str], user: str) -> None:
        """Unmount volumes that the last of their users gives back; gone already is no error."""
        for name in self._that_are_mounts(names):
            async with self._lock(name):
                users = self._users.get(name, set())
                users.discard(user)
                if not users:
                    self._users.pop(name, None)
                    await asyncio.to_thread(mount.unmount_all, str(self._store.get(name).path))

    @asynccontextmanager
    async def mounted(self, name: str, user: str) -> AsyncIterator[None]:
        """A volume's files at its path for the length of the block."""
        await self.take([name], user)
        try:
            yield
        finally:
            await to_the_end(self.give_back([name], user))

    def _that_are_mounts(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._store and self._store.get(name).options]

    async def _mount(self, volume: Volume) -> None:
        arguments = MountArguments.of(volume.options)
        target = str(volume.path)
        if arguments is None or target in mount.mountpoints(target):
            return
        done = await processes.run(arguments.command(target))
        if done.returncode != 0:
            raise VolumeNotMounted(volume.name, done.stderr.decode(errors="replace").strip())

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())
