"""From a container's record to what the runtime is told: docker's words into ``ContainerSettings``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lamina.container.config import ExecConfig, HostConfig, ThrottleDevice, WeightDevice
from lamina.container.record import Record
from lamina.errors import InvalidArgument
from lamina.linux.user_namespace import user_pin_of
from lamina.runtime.security import SecurityOptions
from lamina.runtime.settings import ContainerSettings, Device, Mount, Namespaces, Resources, Throttle, Ulimit

LARGEST_LIMIT = (1 << 63) - 1

DonorOf = Callable[[str], Record]
"""(container's name or ID) → the running container whose namespaces are to be joined."""


def container_settings(
    record: Record,
    *,
    rootfs: Path,
    mounts: Sequence[Mount],
    network: str,
    donor_of: DonorOf,
    init_path: str | None,
    cgroup_parent: str,
    more_env: Sequence[str] = (),
) -> ContainerSettings:
    """What the runtime is to make of a record. *network* is ``host`` or the path of a namespace; *more_env* gives way to the record's.

    Raises InvalidArgument's kinds.
    """
    config, host = record.config, record.host_config
    security = SecurityOptions.parse(host.security_opt or [])
    return ContainerSettings(
        rootfs=rootfs,
        args=[record.path, *record.args],
        env=[*more_env, *(config.env or [])],
        cwd=config.working_dir or "/",
        user=config.user,
        additional_groups=host.group_add or [],
        terminal=config.tty,
        console_size=_pair(host.console_size),
        hostname=config.hostname,
        domainname=config.domainname,
        readonly_rootfs=host.readonly_rootfs,
        mounts=mounts,
        cap_add=host.cap_add or [],
        cap_drop=host.cap_drop or [],
        privileged=host.privileged,
        security=security,
        masked_paths=host.masked_paths,
        readonly_paths=host.readonly_paths,
        devices=[_device(d.path_on_host, d.path_in_container, d.cgroup_permissions) for d in host.devices or []],
        cdi_devices=cdi_devices(host),
        device_cgroup_rules=host.device_cgroup_rules or [],
        resources=resources(host),
        oom_score_adj=host.oom_score_adj,
        ulimits=[Ulimit(u.name, u.soft, u.hard) for u in host.ulimits or []],
        sysctls=host.sysctls or {},
        namespaces=_namespaces(host, network, donor_of, remapped=record.idmap is not None),
        shm_size=0 if host.ipc_mode == "none" else host.shm_size or 64 << 20,
        cgroup_parent=host.cgroup_parent or cgroup_parent,
        annotations=host.annotations or {},
        idmap=record.idmap,
        init_path=init_path
        if host.init and not host.pid_mode
        else None,  # the first process of the namespace is another
    )


def exec_settings(
    record: Record,
    wanted: ExecConfig,
    *,
    rootfs: Path,
    console_size: tuple[int, int] | None,
    more_env: Sequence[str] = (),
) -> ContainerSettings:
    """What the runtime is to make of a further process in a container: the container's own, but for what is *wanted*.

    *more_env* gives way to the container's environment.

    Raises InvalidArgument.
    """
    config, host = record.config, record.host_config
    if wanted.working_dir and not wanted.working_dir.startswith("/"):
        raise InvalidArgument(f"Cwd must be an absolute path: {wanted.working_dir}")
    return ContainerSettings(
        rootfs=rootfs,
        args=wanted.cmd or [],
        env=[*more_env, *(config.env or []), *(wanted.env or [])],
        cwd=wanted.working_dir or config.working_dir or "/",
        user=wanted.user or config.user,
        additional_groups=host.group_add or [],
        terminal=wanted.tty,
        console_size=console_size,
        hostname=config.hostname,
        cap_add=host.cap_add or [],
        cap_drop=host.cap_drop or [],
        privileged=wanted.privileged or host.privileged,
        security=SecurityOptions.parse(host.security_opt or []),
        oom_score_adj=host.oom_score_adj,
        ulimits=[Ulimit(u.name, u.soft, u.hard) for u in host.ulimits or []],
    )


def resources(host: HostConfig) -> Resources:
    """Limits; docker's zeros mean that nothing was asked for."""
    quota = host.cpu_quota
    period = host.cpu_period
    if host.nano_cpus:
        period = 100_000
        quota = host.nano_cpus * period // 1_000_000_000
    return Resources(
        memory=host.memory or None,
        memory_swap=max(host.memory_swap, -1) or None,  # anything below zero is no limit
        memory_reservation=host.memory_reservation or None,
        memory_swappiness=host.memory_swappiness,
        oom_kill_disable=bool(host.oom_kill_disable),
        cpu_shares=host.cpu_shares or None,
        cpu_quota=max(quota, -1) or None,
        cpu_period=period or None,
        cpu_realtime_period=host.cpu_realtime_period or None,
        cpu_realtime_runtime=host.cpu_realtime_runtime or None,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        pids=host.pids_limit,
        blkio_weight=host.blkio_weight or None,
        blkio_weight_device=_weights(host.blkio_weight_device),
        read_bps=_throttles(host.blkio_device_read_bps),
        write_bps=_throttles(host.blkio_device_write_bps),
        read_iops=_throttles(host.blkio_device_read_iops),
        write_iops=_throttles(host.blkio_device_write_iops),
    )


def cdi_devices(host: HostConfig) -> list[str]:
    """The devices that are asked for by their vendor's name."""
    return [device for r in host.device_requests or [] if r.driver == "cdi" for device in r.device_ids or []]


def donor_in(mode: str) -> str | None:
    """The container that a mode of namespaces, ``container:X``, tells to join."""
    return mode.removeprefix("container:") if mode.startswith("container:") else None


def donors_in(host: HostConfig) -> list[str]:
    """All containers whose namespaces a container joins."""
    modes = (host.network_mode, host.ipc_mode, host.pid_mode)
    return [donor for donor in map(donor_in, modes) if donor is not None]


def namespace_of(donor: Record, kind: str) -> str:
    """The path of a running container's namespace."""
    return f"/proc/{donor.state.pid}/ns/{kind}"


def _namespaces(host: HostConfig, network: str, donor_of: DonorOf, *, remapped: bool) -> Namespaces:
    def mode(text: str, kind: str, default: str = "private") -> str:
        donor = donor_in(text)
        if donor is not None:
            return namespace_of(donor_of(donor), kind)
        return "host" if text == "host" else default

    return Namespaces(
        network=network,
        pid=mode(host.pid_mode, "pid"),
        ipc=mode(host.ipc_mode, "ipc"),
        uts=mode(host.uts_mode, "uts"),
        cgroup=mode(host.cgroupns_mode, "cgroup"),
        user=_owner_of(network) if remapped else "host",
    )


def _owner_of(network: str) -> str:
    """The path of the user namespace that owns a network namespace: pinned beside it, or its container's."""
    if network.startswith("/proc/"):
        return f"{network.removesuffix('net')}user"
    return str(user_pin_of(Path(network)))


def _device(host_path: str, path: str, access: str) -> Device:
    return Device(host_path, path or host_path, access or "rwm")


def _throttles(devices: list[ThrottleDevice] | None) -> list[Throttle]:
    return [Throttle(d.path, d.rate) for d in devices or []]


def _weights(devices: list[WeightDevice] | None) -> list[Throttle]:
    return [Throttle(d.path, d.weight) for d in devices or []]


def _pair(size: list[int] | None) -> tuple[int, int] | None:
    return (size[0], size[1]) if size is not None and len(size) == 2 else None
