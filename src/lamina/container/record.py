"""What lamina keeps of a container: the request as it was completed, and how it has fared.

A record is a value; a change makes a new one, and the new one counts when its row is committed.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lamina.container.config import ContainerConfig, EndpointRequest, HostConfig, docker_name
from lamina.linux.user_namespace import IdMap
from lamina.network.ports import PortBinding

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
HealthStatus = Literal["starting", "healthy", "unhealthy"]

NEVER = "0001-01-01T00:00:00Z"
"""How docker writes a time that has not come."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A container's state. Times are RFC 3339; ``started_ticks`` tells the process from a later one with the same pid.

    ``stopped_by_user`` says that the process was told to end; ``health`` is what its checks say, None if it has none.
    """

    status: Status = "created"
    pid: int = 0
    started_ticks: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER
    stopped_by_user: bool = False
    health: HealthStatus | None = None

    @property
    def has_process(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self.status in ("running", "paused")

    @property
    def is_running(self) -> bool:
        """Whether it runs in docker's sense: there is a process, or will be one by the container's restart policy."""
        return self.has_process or self.status == "restarting"


class MountPoint(msgspec.Struct, frozen=True, rename=docker_name, kw_only=True):
    """A file system in a container that is not its root: docker's MountPoint, as ``inspect`` shows it."""

    type: str
    name: str = ""
    source: str = ""
    destination: str
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(name="RW", default=True)
    propagation: str = ""


class ImageMount(msgspec.Struct, frozen=True, kw_only=True):
    """The image behind a mount, as it was when the container was made."""

    image_id: str
    diff_ids: list[str]


class NetworkEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A running container's place in a network; the addresses are empty for networks without any.

    ``interface`` is the end on the host, ``name`` that in the container.
    """

    network: str
    network_id: str = ""
    endpoint_id: str = ""
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    mac: str = ""
    interface: str = ""
    name: str = ""
    driver: str = "bridge"


class PublishedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a container, and the address and port of the host's that lead to it."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int

    @classmethod
    def of(cls, binding: PortBinding) -> PublishedPlace:
        """As it is stored."""
        return cls(
            protocol=binding.protocol,
            container_port=binding.container_port,
            host_ip=binding.host_ip,
            host_port=binding.host_port,
        )

    @property
    def binding(self) -> PortBinding:
        """As the network's."""
        return PortBinding(self.protocol, self.container_port, self.host_ip, self.host_port)


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running container is: its network namespace's path, empty for the host's, its endpoints by network, its ports."""

    sandbox: str = ""
    endpoints: dict[str, NetworkEndpoint] = {}
    ports: list[PublishedPlace] = []


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One container. ``path`` and ``args`` are the command after the image's part was added."""

    id: str
    name: str
    created: str
    created_ns: int
    image_id: str
    image_name: str
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    mounts: list[MountPoint]
    networks: dict[str, EndpointRequest | None]
    diff_ids: list[str]
    state: State = State()
    joined: Joined | None = None
    """Where it is while it runs; None also for one that shares another container's network."""
    addresses: dict[str, list[str]] = {}
    """Its last addresses by network, to have them again."""
    restart_count: int = 0
    anonymous_volumes: list[str] = []
    idmap: IdMap | None = None
    """Whom its users are on the host; None for the same."""
    image_mounts: dict[str, ImageMount] = {}
    """By where they are mounted."""

    @property
    def short_id(self) -> str:
        """The first twelve digits."""
        return self.id[:12]

    def endpoint(self, network: str) -> NetworkEndpoint | None:
        """Its place in a network, while it runs."""
        return self.joined.endpoints.get(network) if self.joined is not None else None

    def with_state(self, **changes: Any) -> Record:
        """A record whose state differs in *changes*."""
        return msgspec.structs.replace(self, state=msgspec.structs.replace(self.state, **changes))


def volumes_of(record: Record) -> list[str]:
    """The names of the volumes that a container has."""
    return [point.name for point in record.mounts if point.type == "volume"]


def encode(record: Record) -> bytes:
    """The form in which a record is stored."""
    return msgspec.json.encode(record)


_decoder = msgspec.json.Decoder(Record)


def decode(data: bytes) -> Record:
    """Read a stored record."""
    return _decoder.decode(data)
