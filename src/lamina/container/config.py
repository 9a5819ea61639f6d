"""What a container is asked to be: docker's Config and HostConfig (Engine API 1.51, ContainerConfig and HostConfig).

The names are docker's, since they are what users know a container by, what ``inspect`` shows and what is stored. Defaults are what
``inspect`` shows for a field that was not given. ``None`` is null.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lamina.oci.config import Healthcheck

_ODD_NAMES = {
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "kernel_memory_tcp": "KernelMemoryTCP",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "container_id_file": "ContainerIDFile",
    "uts_mode": "UTSMode",
    "cgroup_permissions": "CgroupPermissions",
    "device_ids": "DeviceIDs",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "link_local_ips": "LinkLocalIPs",
    "oom_killed": "OOMKilled",
    "host_ip": "HostIp",
}


def docker_name(field: str) -> str:
    """The API's name of a field: pascal case, but for some abbreviations."""
    return _ODD_NAMES.get(field) or "".join(part.capitalize() for part in field.split("_"))


class ContainerConfig(msgspec.Struct, rename=docker_name, kw_only=True):
    """What the container's process is; an image's config gives what is missing here."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool | None = None
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool | None = None
    mac_address: str | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None


class LogConfig(msgspec.Struct, rename=docker_name):
    """Where a container's output is kept."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(msgspec.Struct, rename=docker_name):
    """What happens when the process ends by itself."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(msgspec.Struct, rename=docker_name):
    """A host's port that leads to a container's."""

    host_ip: str = ""
    host_port: str = ""


class DeviceMapping(msgspec.Struct, rename=docker_name):
    """A host's device, shown in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class ThrottleDevice(msgspec.Struct, rename=docker_name):
    """A rate limit for a block device."""

    path: str = ""
    rate: int = 0


class WeightDevice(msgspec.Struct, rename=docker_name):
    """A share of a block device's time."""

    path: str = ""
    weight: int = 0


class Ulimit(msgspec.Struct, rename=docker_name):
    """A resource limit, as in setrlimit(2)."""

    name: str
    soft: int
    hard: int


class BindOptions(msgspec.Struct, rename=docker_name, kw_only=True, omit_defaults=True):
    """What only a bind has."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(msgspec.Struct, rename=docker_name, omit_defaults=True):
    """The driver that a volume is to be made with."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(msgspec.Struct, rename=docker_name, kw_only=True, omit_defaults=True):
    """What only a volume has."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(msgspec.Struct, rename=docker_name, omit_defaults=True):
    """What only an image has."""

    subpath: str = ""


class TmpfsOptions(msgspec.Struct, rename=docker_name, kw_only=True, omit_defaults=True):
    """What only a tmpfs has."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class DeviceRequest(msgspec.Struct, rename=docker_name, kw_only=True):
    """Devices that a driver is to choose."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class IPAMConfig(msgspec.Struct, rename=docker_name, kw_only=True, omit_defaults=True):
    """The addresses that an endpoint is to have."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class Mount(msgspec.Struct, rename=docker_name, kw_only=True):
    """A ``--mount``."""

    type: str
    target: str = ""
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(msgspec.Struct, rename=docker_name, kw_only=True):
    """How the container sits on its host: limits, isolation, mounts, networks, what happens at its end."""

    binds: list[str] | None = None
    container_id_file: str = ""
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str | None = None
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = None
    blkio_device_write_iops: list[ThrottleDevice] | None = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int | None = None
    kernel_memory_tcp: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    mounts: list[Mount] | None = None


class EndpointRequest(msgspec.Struct, rename=docker_name, kw_only=True):
    """How a container is to be attached to one network."""

    ipam_config: IPAMConfig | None = None
    links: list[str] | None = None
    mac_address: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(msgspec.Struct, rename=docker_name):
    """The networks a container is to be attached to."""

    endpoints_config: dict[str, EndpointRequest | None] | None = None


class ExecConfig(msgspec.Struct, rename=docker_name, kw_only=True):
    """What a process is to be (Engine API, ExecConfig)."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
