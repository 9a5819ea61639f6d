"""What is wanted of a container's process, free of docker's words and of the runtime specification's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamina.linux.user_namespace import IdMap
from lamina.runtime.security import SecurityOptions

Namespace = str
"""``private``, ``host``, or the path of a namespace to join."""


@dataclass(frozen=True)
class Mount:
    """A mount inside the container, in fstab's terms."""

    destination: str
    kind: str
    source: str
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Device:
    """A device node of the host to show in the container. ``access`` is of the letters rwm."""

    host_path: str
    path: str
    access: str = "rwm"


@dataclass(frozen=True)
class Throttle:
    """A block device's limit, in bytes or operations a second, or a weight."""

    path: str
    value: int


@dataclass(frozen=True)
class Ulimit:
    """A resource limit (setrlimit(2)); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Resources:
    """Limits of the control group; None where nothing was asked for. Memory in bytes, CPU times in microseconds."""

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_realtime_period: int | None = None
    cpu_realtime_runtime: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    blkio_weight: int | None = None
    blkio_weight_device: Sequence[Throttle] = ()
    read_bps: Sequence[Throttle] = ()
    write_bps: Sequence[Throttle] = ()
    read_iops: Sequence[Throttle] = ()
    write_iops: Sequence[Throttle] = ()


@dataclass(frozen=True)
class Namespaces:
    """Which namespaces the container has of its own."""

    network: Namespace = "private"
    pid: Namespace = "private"
    ipc: Namespace = "private"
    uts: Namespace = "private"
    cgroup: Namespace = "private"
    user: Namespace = "host"


@dataclass(frozen=True)
class ContainerSettings:
    """Everything that the runtime needs to know. ``rootfs`` is mounted already; ``user`` is as in ``docker run -u``;

    ``shm_size`` is in bytes, 0 for no ``/dev/shm``.
    """

    rootfs: Path
    args: Sequence[str]
    env: Sequence[str] = ()
    cwd: str = "/"
    user: str = ""
    additional_groups: Sequence[str] = ()
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    hostname: str = ""
    domainname: str = ""
    readonly_rootfs: bool = False
    mounts: Sequence[Mount] = ()
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    privileged: bool = False
    security: SecurityOptions = field(default_factory=SecurityOptions)
    masked_paths: Sequence[str] | None = None
    readonly_paths: Sequence[str] | None = None
    devices: Sequence[Device] = ()
    cdi_devices: Sequence[str] = ()
    device_cgroup_rules: Sequence[str] = ()
    resources: Resources = field(default_factory=Resources)
    oom_score_adj: int = 0
    ulimits: Sequence[Ulimit] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    namespaces: Namespaces = field(default_factory=Namespaces)
    shm_size: int = 64 << 20
    cgroup_parent: str = "/lamina"
    annotations: Mapping[str, str] = field(default_factory=dict)
    init_path: str | None = None
    idmap: IdMap | None = None
    """Whom the container's users are on the host; None for the same."""
