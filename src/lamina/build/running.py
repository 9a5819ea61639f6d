"""RUN: a process over the stage's image, in a read-write layer of its own; what it wrote becomes a layer."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from codecs import getincrementaldecoder
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamina.build import progress
from lamina.layer.diff import Attributes, attributes_of, write_diff
from lamina.layer.ingest import IngestedLayer
from lamina.linux import paths
from lamina.linux.worker import run_in_worker
from lamina.network import Endpoint, NetworkService, names
from lamina.oci.digest import DiffID
from lamina.runtime.oci_runtime import OciRuntime, OnOutput
from lamina.runtime.settings import ContainerSettings, Mount, Namespaces
from lamina.runtime.spec import build_spec
from lamina.snapshot import Snapshots

_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_MOUNT_POINTS = frozenset({b"proc", b"sys", b"dev", *(path.encode().lstrip(b"/") for path in _FILES)})
"""What the runtime makes in a root that lacks them, to mount something there: no part of the image."""


@dataclass(frozen=True)
class RunRequest:
    """A command and what surrounds it. ``files`` are (path in the container, contents), read-only there."""

    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    user: str
    network: str
    extra_hosts: Sequence[str] = ()
    shm_size: int = 64 << 20
    files: Sequence[tuple[str, str]] = ()


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
        runtime: OciRuntime,
        cgroup_parent: str,
    ) -> None:
        self._run_root = run_root
        self._snapshots = snapshots
        self._networks = networks
        self._runtime = runtime
        self._cgroup_parent = cgroup_parent

    async def open(self) -> None:
        """Remove what the steps of a killed daemon left: containers, and their bundles."""
        self._run_root.mkdir(parents=True, exist_ok=True)
        for bundle in self._run_root.iterdir():
            await self._runtime.delete(bundle, bundle.name, self._group(bundle.name))
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
        bundle = self._run_root / step_id
        bundle.mkdir(mode=0o700)
        endpoint: Endpoint | None = None
        self._snapshots.create(step_id)
        try:
            rootfs = await self._snapshots.mount(step_id, diff_ids)
            if request.network != "host":
                endpoint = await self._networks.acquire(request.network)
            settings = self._settings(request, rootfs, bundle, step_id[:12], endpoint)
            (bundle / "config.json").write_bytes(build_spec(step_id, settings).config)
            upper = self._snapshots.upper(step_id)
            untouched = await asyncio.to_thread(_make_mount_points, rootfs, upper)
            await tell(progress.CommandBegan(step, step_id))
            code = await self._runtime.run_to_completion(
                bundle, step_id, self._group(step_id), request.args[0], _told_to(step, tell)
            )
            await tell(progress.CommandEnded(step, step_id))
            if code != 0:
                return RunOutcome(code, None)
            await self._snapshots.unmount(step_id)
            layer = await run_in_worker(
                write_diff,
                (),
                upper,
                tar_path,
                tree_path,
                clamp_ns=clamp_ns,
                exclude=_MOUNT_POINTS,
                untouched=untouched,
            )
            return RunOutcome(0, layer)
        finally:
            await asyncio.shield(self._clean_up(step_id, bundle, endpoint))

    async def _clean_up(self, step_id: str, bundle: Path, endpoint: Endpoint | None) -> None:
        await self._snapshots.remove(step_id)
        if endpoint is not None:
            await self._networks.release(endpoint)
        await asyncio.to_thread(shutil.rmtree, bundle, ignore_errors=True)

    def _group(self, step_id: str) -> str:
        return f"{self._cgroup_parent}/{step_id}"

    def _settings(
        self, request: RunRequest, rootfs: Path, bundle: Path, hostname: str, endpoint: Endpoint | None
    ) -> ContainerSettings:
        own_network = endpoint is not None
        ip = endpoint.ip if endpoint else ""
        gateway = (endpoint.gateway if endpoint else "") or "127.0.0.1"
        texts = {
            "/etc/hosts": names.hosts(
                ip=ip,
                hostname=hostname,
                domainname="",
                extra=request.extra_hosts,
                gateway=gateway,
                own_network=own_network,
            ),
            "/etc/hostname": f"{hostname}\n",
            "/etc/resolv.conf": names.resolv_conf(servers=(), search=(), options=(), own_network=own_network),
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
            env=request.env,
            cwd=request.cwd,
            user=request.user,
            hostname=hostname,
            mounts=mounts,
            shm_size=request.shm_size,
            cgroup_parent=self._cgroup_parent,
            namespaces=Namespaces(network=endpoint.sandbox if endpoint else "host"),
        )


def _told_to(step: progress.Step, tell: progress.Tell) -> OnOutput:
    """A command's output as events; characters that arrive in two pieces are joined."""
    decoders = {stream: getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}

    async def take(stream: int, data: bytes) -> None:
        text = decoders[stream].decode(data)
        if text:
            await tell(progress.CommandOutput(step, stream, text))

    return take


def _make_mount_points(rootfs: Path, upper: Path) -> dict[bytes, Attributes]:
    """Make the files that the runtime mounts something over, where the image lacks them, before the command can.

    Returns what /etc was like after that, so that a command which changes nothing makes no layer. Blocking.
    """
    for path in _FILES:
        with suppress(OSError):  # what the image has in their place is the runtime's to complain about
            os.close(paths.open_in_root(rootfs, path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644))
    try:
        return {b"etc": attributes_of(os.lstat(upper / "etc"))}
    except FileNotFoundError:
        return {}
