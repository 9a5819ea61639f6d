"""Who has which volumes, from before the start of a process until after its end; those that are mounts are mounted meanwhile.

mount(8) does that, which knows all file systems and their helpers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from lamina.errors import LaminaError
from lamina.linux import mount, processes
from lamina.linux.tasks import to_the_end
from lamina.volume.driver_options import MountArguments
from lamina.volume.store import Volume, VolumeInUse, VolumeStore


class VolumeNotMounted(LaminaError):
    """A volume's file system could not be mounted; the message is docker's with mount(8)'s words."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"failed to mount local volume: {name}: {reason}")
        self.name = name
        self.reason = reason


class VolumeMounts:
    """The users of volumes."""

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
        """Note one who uses volumes, and mount those that are mounts. Raises VolumeNotMounted; then this user has none of them."""
        taken: list[str] = []
        try:
            for name in [n for n in dict.fromkeys(names) if n in self._store]:
                volume = self._store.get(name)
                async with self._lock(name):
                    if volume.options:
                        await to_the_end(self._mount(volume))
                    self._users.setdefault(name, set()).add(user)
                taken.append(name)
        except BaseException:
            await to_the_end(self.give_back(taken, user))
            raise

    async def give_back(self, names: Iterable[str], user: str) -> None:
        """Forget one who used volumes; what the last one gives back is unmounted. Gone already is no error."""
        for name in [n for n in dict.fromkeys(names) if n in self._users]:
            async with self._lock(name):
                users = self._users.get(name, set())
                users.discard(user)
                if not users:
                    self._users.pop(name, None)
                    if name not in self._store:
                        self._locks.pop(name, None)
                    elif self._store.get(name).options:
                        await asyncio.to_thread(mount.unmount_all, str(self._store.get(name).path))

    @asynccontextmanager
    async def mounted(self, name: str, user: str) -> AsyncIterator[None]:
        """A volume's files at its path for the length of the block."""
        await self.take([name], user)
        try:
            yield
        finally:
            await to_the_end(self.give_back([name], user))

    @asynccontextmanager
    async def unused(self, name: str) -> AsyncIterator[None]:
        """Keep everybody from using a volume for the length of the block. Raises VolumeInUse if somebody does."""
        async with self._lock(name):
            if self._users.get(name):
                raise VolumeInUse(name, sorted(self._users[name]))
            yield

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
