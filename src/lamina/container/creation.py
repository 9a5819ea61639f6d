"""Creating a container: the request completed from the image and docker's defaults, checked, and recorded."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lamina.container import names
from lamina.container.config import (
    ContainerConfig,
    EndpointRequest,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    RestartPolicy,
)
from lamina.container.errors import NameInUse, UnsupportedOption
from lamina.container.mounts import MountPlan, fill_volume, plan_mounts
from lamina.container.record import Record
from lamina.container.settings import parse_security_options
from lamina.container.store import ContainerStore
from lamina.container.times import rfc3339
from lamina.errors import InvalidArgument
from lamina.image.store import Image, ImageStore
from lamina.linux.cgroups import Hierarchies
from lamina.linux.tasks import to_the_end
from lamina.oci.config import RunConfig
from lamina.runtime import defaults
from lamina.runtime.capabilities import effective_set
from lamina.snapshot import Snapshots
from lamina.volume import VolumeStore

_SHM_BYTES = 64 << 20
_MINIMUM_MEMORY = 6 << 20
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


@dataclass(frozen=True)
class CreateRequest:
    """``POST /containers/create``: what was asked for, and the image that it is to stand on."""

    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig
    image: Image
    name: str | None = None


class Creation:
    """Makes records, read-write layers and volumes for new containers."""

    def __init__(
        self,
        store: ContainerStore,
        images: ImageStore,
        snapshots: Snapshots,
        volumes: VolumeStore,
        hierarchies: Hierarchies,
    ) -> None:
        self._store = store
        self._images = images
        self._snapshots = snapshots
        self._volumes = volumes
        self._hierarchies = hierarchies

    async def create(self, request: CreateRequest) -> tuple[Record, list[str]]:
        """Make a container and return its record, with warnings for the user. On failure nothing is left but used names of volumes.

        The image and the volumes are not removed meanwhile. Raises NameInUse, ImageNotFound, InvalidArgument's kinds or
        UnsupportedOption.
        """
        container_id = secrets.token_hex(32)
        config = complete_config(request.config, request.image.config.run, container_id)
        host = complete_host_config(request.host_config, self._hierarchies)
        warnings = check(config, host, request)
        name = self._reserve_name(request.name, container_id)
        try:
            with self._images.hold(request.image.image_id), self._volumes.hold() as hold:
                plan = await plan_mounts(config, host, self._volumes, hold)
                self._snapshots.create(container_id)
                await self._fill_volumes(plan, container_id, request.image)
                record = _record(container_id, name, request, config, host, plan)
                await self._store.put(record)
        except BaseException:
            self._store.release_name(name)
            await to_the_end(self._snapshots.remove(container_id))
            raise
        return record, warnings

    def _reserve_name(self, wanted: str | None, container_id: str) -> str:
        if wanted:
            return self._store.reserve_name(wanted, container_id)
        for attempt in range(100):
            candidate = names.generate(attempt)
            if not self._store.has_name(candidate):
                return self._store.reserve_name(candidate, container_id)
        raise NameInUse(candidate, "others")

    async def _fill_volumes(self, plan: MountPlan, container_id: str, image: Image) -> None:
        if not plan.to_fill:
            return
        running = {point.name for record in self._store if record.state.has_process for point in record.mounts}
        async with self._snapshots.mounted(container_id, image.config.diff_ids) as rootfs:
            for volume, target in plan.to_fill:
                await fill_volume(volume, rootfs, target, in_use=volume.name in running)


def _record(
    container_id: str, name: str, request: CreateRequest, config: ContainerConfig, host: HostConfig, plan: MountPlan
) -> Record:
    path, *args = command_of(config)
    now = time.time_ns()
    return Record(
        id=container_id,
        name=name,
        created=rfc3339(now),
        created_ns=now,
        image_id=str(request.image.image_id),
        image_name=request.config.image,
        path=path,
        args=args,
        config=config,
        host_config=host,
        mounts=plan.points,
        networks=_networks(host, request.networking),
        diff_ids=[str(d) for d in request.image.config.diff_ids],
        anonymous_volumes=plan.anonymous,
    )


def complete_config(config: ContainerConfig, image: RunConfig, container_id: str) -> ContainerConfig:
    """The request's config with the image's in the places that were left empty (docker's rules for each field)."""
    entrypoint, cmd = _words(config.entrypoint), _words(config.cmd)
    if not entrypoint:
        cmd = cmd or image.cmd or []
        # an entry point of one empty word takes the image's away
        entrypoint = (image.entrypoint or []) if config.entrypoint is None or config.entrypoint == [] else []
    return msgspec.structs.replace(
        config,
        hostname=config.hostname or container_id[:12],
        user=config.user or image.user or "",
        env=merge_env(image.env or [], config.env or []),
        cmd=cmd or None,
        entrypoint=entrypoint or None,
        working_dir=config.working_dir or image.working_dir or "",
        labels={**(image.labels or {}), **(config.labels or {})},
        exposed_ports=_union(image.exposed_ports, config.exposed_ports),
        volumes=_union(image.volumes, config.volumes),
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=config.healthcheck or image.healthcheck,
        shell=config.shell or image.shell,
        on_build=config.on_build or image.on_build,
    )


def complete_host_config(host: HostConfig, hierarchies: Hierarchies) -> HostConfig:
    """The request's host config with docker's defaults, as ``inspect`` shows them."""
    own = msgspec.structs.replace(
        host,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        log_config=host.log_config if host.log_config.type else LogConfig("json-file", {}),
        restart_policy=host.restart_policy if host.restart_policy.name else RestartPolicy("no", 0),
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("private" if hierarchies.layout == "v2" else "host"),
        shm_size=host.shm_size or _SHM_BYTES,
        runtime=host.runtime or "runc",
        console_size=host.console_size or [0, 0],
    )
    if own.privileged:
        return msgspec.structs.replace(own, masked_paths=None, readonly_paths=None)
    return msgspec.structs.replace(
        own,
        masked_paths=list(defaults.MASKED_PATHS) if own.masked_paths is None else own.masked_paths,
        readonly_paths=list(defaults.READONLY_PATHS) if own.readonly_paths is None else own.readonly_paths,
    )


def check(config: ContainerConfig, host: HostConfig, request: CreateRequest) -> list[str]:
    """Refuse what is wrong, and what lamina cannot honour yet; return warnings. Raises InvalidArgument's kinds or UnsupportedOption."""
    parse_security_options(host.security_opt or [])
    effective_set(host.cap_add or [], host.cap_drop or [], privileged=host.privileged)
    _check_limits(host)
    _check_restart(host)
    _refuse_unsupported(host)
    if host.network_mode not in ("bridge", "host", "none") and not host.network_mode.startswith("container:"):
        raise UnsupportedOption(
            f"network {host.network_mode!r}", "lamina has the networks bridge, host and none so far"
        )
    extra = set(request.networking.endpoints_config or {}) - {host.network_mode, "default"}
    if extra:
        raise UnsupportedOption(f"network {min(extra)!r}", "a container can be in one network so far")
    test = config.healthcheck.test if config.healthcheck else None
    return ["health checks are not run yet"] if test and test[0] not in ("", "NONE") else []


def command_of(config: ContainerConfig) -> list[str]:
    """Entry point and command in one. Raises InvalidArgument if both are empty."""
    words = [*_words(config.entrypoint), *_words(config.cmd)]
    if not words:
        raise InvalidArgument("no command specified")
    return words


def merge_env(base: Sequence[str], over: Sequence[str]) -> list[str]:
    """The image's variables with the request's in the place of those of the same name; a name without ``=`` removes one."""
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in over:
        name, equals, _ = entry.partition("=")
        if not name:
            raise InvalidArgument(f"invalid environment variable: {entry}")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def _check_limits(host: HostConfig) -> None:
    if host.memory and host.memory < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus < 0 or host.shm_size < 0:
        raise InvalidArgument("limits must not be negative")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def _check_restart(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in _RESTART_POLICIES:
        known = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'; {known}")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _refuse_unsupported(host: HostConfig) -> None:
    """What is not there yet is said so, never ignored."""
    unsupported: Mapping[str, Any] = {
        "restart policy": host.restart_policy.name not in ("", "no"),
        "--publish": host.port_bindings,
        "--volumes-from": host.volumes_from,
        "--link": host.links,
        "--gpus": host.device_requests,
        "--storage-opt": host.storage_opt,
        "--userns": host.userns_mode not in ("", "host"),
        "--volume-driver": host.volume_driver not in ("", "local"),
        f"log driver {host.log_config.type!r}": host.log_config.type not in ("json-file", "local", "none"),
        "log options": host.log_config.config,
        "--isolation": host.isolation not in ("", "default"),
        "--cpu-count and --cpu-percent": host.cpu_count or host.cpu_percent,
        "--io-maxbandwidth and --io-maxiops": host.io_maximum_bandwidth or host.io_maximum_iops,
        "--kernel-memory-tcp": host.kernel_memory_tcp,
    }
    for option, asked in unsupported.items():
        if asked:
            raise UnsupportedOption(option)


def _networks(host: HostConfig, networking: NetworkingConfig) -> dict[str, EndpointRequest | None]:
    given = networking.endpoints_config or {}
    name = host.network_mode
    return {} if name.startswith("container:") else {name: given.get(name) or given.get("default")}


def _words(value: list[str] | str | None) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [] if value == [""] else list(value or [])


def _union(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    merged = {**(first or {}), **(second or {})}
    return merged or None
