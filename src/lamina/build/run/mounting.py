"""What a RUN's mounts are made of: files laid out, cache directories kept, secrets and agents handed in, all gone with the step."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lamina.build.copy.plan import CopyItem
from lamina.build.errors import BuildFailed
from lamina.build.run.agents import relayed
from lamina.build.run.cache_mounts import CacheMounts
from lamina.build.run.mounts import RunMount
from lamina.linux import paths, processes
from lamina.linux.deletion import remove_tree
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import DiffID
from lamina.runtime.settings import Mount
from lamina.snapshot import Snapshots


@dataclass(frozen=True)
class PlacedMount:
    """A mount whose target is absolute, and where its files come from: *diff_ids* of a stage or image, or a context's *items*.

    With *is_file* the one item is mounted, and not the directory of all. *files* names what it shows, by the bytes.
    """

    mount: RunMount
    target: str
    diff_ids: Sequence[DiffID] | None = None
    items: Sequence[CopyItem] | None = None
    is_file: bool = False
    files: str = ""

    @property
    def name(self) -> tuple[str, ...]:
        """What of it a step's outcome depends on; what a cache, a secret or an agent holds is none of it."""
        return (self.mount.kind, self.target, self.mount.id, self.mount.env, self.files)


@dataclass
class Mounted:
    """What the runtime is to mount, and variables that a command finds it by. ``stubs`` are (path, is directory) of mount points."""

    mounts: list[Mount] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    stubs: list[tuple[str, bool]] = field(default_factory=list)


class MountRoom:
    """Makes the mounts of steps."""

    def __init__(self, caches: CacheMounts, snapshots: Snapshots) -> None:
        self._caches = caches
        self._snapshots = snapshots

    @asynccontextmanager
    async def mounted(
        self,
        wanted: Sequence[PlacedMount],
        bundle: Path,
        *,
        secret_values: Mapping[str, bytes],
        agents: Mapping[str, Path],
    ) -> AsyncIterator[Mounted]:
        """The mounts of one step, below its bundle, for the length of the block. Raises BuildFailed for one that cannot be made."""
        result = Mounted()
        async with AsyncExitStack() as stack:
            for number, placed in enumerate(wanted):
                kind = placed.mount.kind
                place = bundle / f"mount{number}"
                if kind == "secret":
                    self._add_secret(result, placed, place, secret_values)
                elif kind == "ssh":
                    await self._add_agent(result, placed, place, agents, stack)
                elif kind == "tmpfs":
                    self._add_tmpfs(result, placed)
                else:
                    await self._add_files(result, placed, place, stack)
            yield result

    async def _add_files(self, result: Mounted, placed: PlacedMount, place: Path, stack: AsyncExitStack) -> None:
        mount = placed.mount
        source: Path | None = None
        if placed.diff_ids is not None:
            source = await stack.enter_async_context(self._root_of(placed.diff_ids, mount))
        elif placed.items is not None:
            await run_in_worker(lay_out, (), list(placed.items), place)
            stack.push_async_callback(asyncio.to_thread, remove_tree, place)
            source = place / os.fsdecode(placed.items[0].path) if placed.is_file else place
        if mount.kind == "cache":
            source = await self._cache(mount, source, stack)
        assert source is not None
        options = ["rbind", "rprivate", "ro" if mount.read_only else "rw"]
        result.mounts.append(Mount(placed.target, "bind", str(source), options))
        result.stubs.append((placed.target, source.is_dir()))

    async def _cache(self, mount: RunMount, seed: Path | None, stack: AsyncExitStack) -> Path:
        directory = await stack.enter_async_context(self._caches.use(mount))
        if seed is not None and not any(directory.iterdir()):
            done = await processes.run(["cp", "--archive", "--reflink=auto", f"{seed}/.", str(directory)])
            if done.returncode:
                raise BuildFailed(f"cannot fill cache {mount.id}: {done.stderr.decode(errors='replace').strip()}")
        return directory

    @asynccontextmanager
    async def _root_of(self, diff_ids: Sequence[DiffID], mount: RunMount) -> AsyncIterator[Path]:
        """A path in another root; what is written there is dropped."""
        snapshot_id = secrets.token_hex(32)
        self._snapshots.create(snapshot_id)
        try:
            async with self._snapshots.mounted(snapshot_id, diff_ids) as rootfs:
                try:
                    fd = paths.open_in_root(rootfs, mount.source or "/", os.O_PATH)
                except OSError as error:
                    raise BuildFailed(f"failed to mount {mount.source} of {mount.from_}: {error.strerror}") from None
                try:
                    yield Path(os.readlink(f"/proc/self/fd/{fd}"))
                finally:
                    os.close(fd)
        finally:
            await self._snapshots.remove(snapshot_id)

    @staticmethod
    def _add_secret(result: Mounted, placed: PlacedMount, place: Path, values: Mapping[str, bytes]) -> None:
        mount = placed.mount
        value = values.get(mount.id)
        if value is None:
            if mount.required:
                raise BuildFailed(f"secret {mount.id}: not found")
            return
        if mount.env:
            result.variables.append(f"{mount.env}={value.decode('utf-8', 'surrogateescape')}")
        if placed.target:
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(value)
                os.fchown(fd, mount.uid, mount.gid)
                os.fchmod(fd, mount.mode)
            result.mounts.append(Mount(placed.target, "bind", str(place), ["rbind", "rprivate", "ro"]))
            result.stubs.append((placed.target, False))

    @staticmethod
    async def _add_agent(
        result: Mounted, placed: PlacedMount, place: Path, agents: Mapping[str, Path], stack: AsyncExitStack
    ) -> None:
        mount = placed.mount
        agent = agents.get(mount.id)
        if agent is None:
            if mount.required:
                raise BuildFailed(f"ssh agent {mount.id}: not given to the build")
            return
        if not agent.is_socket():
            raise BuildFailed(f"ssh agent {mount.id}: there is no socket at {agent}")
        await stack.enter_async_context(relayed(agent, place, uid=mount.uid, gid=mount.gid, mode=mount.mode))
        target = placed.target or f"/run/buildkit/ssh_agent.{len(result.mounts)}"
        result.mounts.append(Mount(target, "bind", str(place), ["rbind", "rprivate"]))
        result.stubs.append((target, False))
        if not any(variable.startswith("SSH_AUTH_SOCK=") for variable in result.variables):
            result.variables.append(f"SSH_AUTH_SOCK={target}")

    @staticmethod
    def _add_tmpfs(result: Mounted, placed: PlacedMount) -> None:
        options = ["nosuid", "nodev", "ro" if placed.mount.read_only else "rw"]
        options += [f"size={placed.mount.size}"] if placed.mount.size else []
        result.mounts.append(Mount(placed.target, "tmpfs", "tmpfs", options))
        result.stubs.append((placed.target, True))


def lay_out(items: Sequence[CopyItem], directory: Path) -> None:
    """Write a plan's files as plain ones below a new *directory*. Blocking.

    A plan's paths lead through directories of its own alone, parents first, so that no link is followed.
    """
    directory.mkdir(mode=0o755)
    for item in items:
        path, node = os.path.join(os.fsencode(directory), item.path), item.node
        if node.children is not None:
            os.mkdir(path)
        elif node.is_symlink:
            os.symlink(node.target, path)
        elif node.is_regular:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.writelines(item.pieces())
        else:
            continue  # a device of the context is of no use in a mount
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
        if not node.is_symlink:
            os.chmod(path, stat.S_IMODE(node.mode))
