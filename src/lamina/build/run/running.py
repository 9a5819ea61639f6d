"""RUN: a process over the stage's image, in a read-write layer of its own; what it wrote becomes a layer."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from lamina.build import progress
from lamina.build.request import StepLimits
from lamina.build.run.mounting import Mounted, MountRoom, PlacedMount
from lamina.build.run.stubs import Stubs
from lamina.layer.diff import write_diff
from lamina.layer.ingest import IngestedLayer
from lamina.layer.scan import Limits
from lamina.linux.tasks import to_the_end
from lamina.linux.worker import run_in_worker
from lamina.network import Endpoint, NetworkService, names
from lamina.network.store import NetworkStore
from lamina.oci.digest import DiffID
from lamina.resolver.client import Resolver
from lamina.resolver.messages import ADDRESS, Member, Sandbox
from lamina.runtime.oci_runtime import OciRuntime, OnOutput
from lamina.runtime.settings import ContainerSettings, Mount, Namespaces
from lamina.runtime.spec import build_spec
from lamina.snapshot import Snapshots

_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_DIRECTORIES = ("/proc", "/sys", "/dev")
"""What the runtime mounts something over in every root."""
_SMALL_FILES = 200
_SMALL_BYTES = 4 << 20


@dataclass(frozen=True)
class RunRequest:
    """A command and what surrounds it. ``files`` are (path in the container, contents), read-only there.

    ``base_layers`` is how many of the layers are not of this builder's making. With ``keep_failed`` what a command wrote that failed
    becomes a layer all the same. An ``insecure`` one may do what root may (``RUN --security=insecure``).
    """

    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    user: str
    network: str
    extra_hosts: Sequence[str] = ()
    shm_size: int = 64 << 20
    files: Sequence[tuple[str, str]] = ()
    base_layers: int = 0
    mounts: Sequence[PlacedMount] = ()
    secret_values: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)
    keep_failed: bool = False
    limits: StepLimits = field(default_factory=StepLimits)
    insecure: bool = False


@dataclass(frozen=True)
class RunOutcome:
    """How the command ended, and the layer that it made; None if it changed nothing."""

    exit_code: int
    layer: IngestedLayer | None


class StepRunner:
    """Runs the commands of builds."""

    def __init__(
        self,
        run_root: Path,
        snapshots: Snapshots,
        networks: NetworkService,
        definitions: NetworkStore,
        resolver: Resolver,
        runtime: OciRuntime,
        room: MountRoom,
        cgroup_parent: str,
        layer_limits: Limits,
    ) -> None:
        self._room = room
        self._run_root = run_root
        self._snapshots = snapshots
        self._networks = networks
        self._definitions = definitions
        self._resolver = resolver
        self._runtime = runtime
        self._cgroup_parent = cgroup_parent
        self._layer_limits = layer_limits

    async def open(self) -> None:
        """Remove what the steps of a killed daemon left: containers, and their bundles."""
        self._run_root.mkdir(parents=True, exist_ok=True)
        for bundle in self._run_root.iterdir():
            await self._runtime.delete(bundle, bundle.name, _recorded_group(bundle) or self._group("", bundle.name))
            shutil.rmtree(bundle, ignore_errors=True)

    async def run(
        self,
        request: RunRequest,
        diff_ids: Sequence[DiffID],
        tar_path: Path,
        tree_path: Path,
        *,
        step: progress.Step,
        tell: progress.Tell,
        clamp_ns: int | None = None,
    ) -> RunOutcome:
        """Run a command over the layers *diff_ids* and write the difference. Cancelling kills it; nothing is left behind then.

        Raises ContainerStartError's kinds and what preparing may raise.
        """
        step_id = secrets.token_hex(32)
        group = self._group(request.limits.cgroup_parent, step_id)
        bundle = self._run_root / step_id
        bundle.mkdir(mode=0o700)
        endpoint: Endpoint | None = None
        self._snapshots.create(step_id)
        try:
            rootfs = await self._snapshots.mount(step_id, diff_ids, base=request.base_layers)
            if request.network != "host":
                endpoint = await self._join(request.network, step_id)
            async with self._room.mounted(
                request.mounts, bundle, secret_values=request.secret_values, agents=request.agents
            ) as mounted:
                settings = self._settings(request, rootfs, bundle, step_id[:12], endpoint, mounted)
                stubs = Stubs(rootfs, self._snapshots.upper(step_id))
                await asyncio.to_thread(_make_stubs, stubs, mounted)
                spec = build_spec(step_id, settings)
                (bundle / "config.json").write_bytes(spec.config)
                for warning in spec.warnings:
                    await tell(progress.Warned(f"[Warning] {warning}\n"))
                await tell(progress.CommandBegan(step, step_id))
                code = await self._runtime.run_to_completion(
                    bundle, step_id, group, request.args[0], _told_to(step, tell)
                )
                await tell(progress.CommandEnded(step, step_id))
            if code != 0 and not request.keep_failed:
                return RunOutcome(code, None)
            await self._snapshots.unmount(step_id)
            return RunOutcome(code, await self._difference(step_id, stubs, tar_path, tree_path, clamp_ns))
        finally:
            await to_the_end(self._clean_up(step_id, bundle, endpoint))

    async def _join(self, name: str, step_id: str) -> Endpoint:
        """A step's place in a network. In one of a user's own it finds the containers by their names."""
        network = self._definitions.find(name)
        endpoint = await self._networks.acquire(network.id)
        if not network.is_built_in:
            member = Member(network=network.id, network_name=network.name, names=[], addresses=[])
            try:
                await self._resolver.put(Sandbox(pin=endpoint.sandbox, container=step_id, members=[member]))
            except BaseException:
                await self._networks.release(endpoint)
                raise
        return endpoint

    def _is_resolved(self, endpoint: Endpoint | None) -> bool:
        return endpoint is not None and endpoint.network_id not in self._networks.ids.values()

    async def _difference(
        self, step_id: str, stubs: Stubs, tar_path: Path, tree_path: Path, clamp_ns: int | None
    ) -> IngestedLayer | None:
        """What the command wrote, as a layer; in a thread if it is little, as a worker takes longer to start."""
        upper = self._snapshots.upper(step_id)
        untouched = await asyncio.to_thread(stubs.sweep)
        limits = self._layer_limits
        write = partial(write_diff, clamp_ns=clamp_ns, untouched=untouched, limits=limits)
        if await asyncio.to_thread(_is_small, upper):
            return await asyncio.to_thread(write, upper, tar_path, tree_path)
        return await run_in_worker(
            write_diff, (), upper, tar_path, tree_path, clamp_ns=clamp_ns, untouched=untouched, limits=limits
        )

    async def _clean_up(self, step_id: str, bundle: Path, endpoint: Endpoint | None) -> None:
        async with AsyncExitStack() as all_of_it:
            all_of_it.push_async_callback(asyncio.to_thread, shutil.rmtree, bundle, ignore_errors=True)
            if endpoint is not None:
                all_of_it.push_async_callback(self._networks.release, endpoint)
                all_of_it.push_async_callback(self._resolver.drop, endpoint.sandbox)
            await self._snapshots.remove(step_id)

    def _group(self, parent: str, step_id: str) -> str:
        return f"{self._parent(parent)}/{step_id}"

    def _parent(self, wanted: str) -> str:
        return "/" + wanted.strip("/") if wanted else self._cgroup_parent

    def _settings(
        self,
        request: RunRequest,
        rootfs: Path,
        bundle: Path,
        hostname: str,
        endpoint: Endpoint | None,
        mounted: Mounted,
    ) -> ContainerSettings:
        own_network = endpoint is not None
        addresses = [endpoint.ip] if endpoint and endpoint.ip else []
        gateway = (endpoint.gateway if endpoint else "") or "127.0.0.1"
        texts = {
            "/etc/hosts": names.hosts(
                addresses=addresses,
                hostname=hostname,
                domainname="",
                extra=request.extra_hosts,
                gateway=gateway,
                own_network=own_network,
            ),
            "/etc/hostname": f"{hostname}\n",
            "/etc/resolv.conf": names.resolv_conf(
                servers=[ADDRESS] if self._is_resolved(endpoint) else (),
                search=(),
                options=(),
                own_network=own_network,
                ndots="0" if self._is_resolved(endpoint) else None,
            ),
            **dict(request.files),
        }
        mounts = []
        for number, (destination, text) in enumerate(texts.items()):
            source = bundle / f"file{number}"
            source.write_text(text, encoding="utf-8")
            source.chmod(0o755 if destination.startswith("/dev/") else 0o644)
            mounts.append(Mount(destination, "bind", str(source), ["rbind", "rprivate"]))
        return ContainerSettings(
            rootfs=rootfs,
            args=request.args,
            env=[*request.env, *mounted.variables],
            cwd=request.cwd,
            user=request.user,
            hostname=hostname,
            mounts=[*mounts, *mounted.mounts],
            shm_size=request.shm_size,
            cgroup_parent=self._parent(request.limits.cgroup_parent),
            resources=request.limits.resources,
            ulimits=request.limits.ulimits,
            security=request.limits.security,
            privileged=request.insecure,
            namespaces=Namespaces(network=endpoint.sandbox if endpoint else "host"),
        )


def _recorded_group(bundle: Path) -> str | None:
    """The control group that a step's configuration names; None if there is none to be read."""
    try:
        document = msgspec.json.decode((bundle / "config.json").read_bytes())
        return str(document["linux"]["cgroupsPath"])
    except (OSError, msgspec.DecodeError, LookupError, TypeError):
        return None


def _told_to(step: progress.Step, tell: progress.Tell) -> OnOutput:
    """A command's output as events; characters that arrive in two pieces are joined."""
    decoders = {stream: getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}

    async def take(stream: int, data: bytes) -> None:
        text = decoders[stream].decode(data)
        if text:
            await tell(progress.CommandOutput(step, stream, text))

    return take


def _make_stubs(stubs: Stubs, mounted: Mounted) -> None:
    for path in _DIRECTORIES:
        stubs.make(path, is_directory=True)
    for path in _FILES:
        stubs.make(path, is_directory=False)
    for path, is_directory in mounted.stubs:
        stubs.make(path, is_directory=is_directory)


def _is_small(upper: Path) -> bool:
    """Whether a read-write layer holds little. Blocking; looks no further than it must."""
    files = size = 0
    pending = [str(upper)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                files += 1
                size += entry.stat(follow_symlinks=False).st_size
                if files > _SMALL_FILES or size > _SMALL_BYTES:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return True
