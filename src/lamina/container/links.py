"""``--link``: another container's name and address in /etc/hosts and in variables, for clients from before networks had names.

The words are docker's (daemon/links). A link holds the other's ID, as a name may come to be another container's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lamina.container.errors import ContainerNotRunning, LinkedNotRunning, LinkNotFound
from lamina.container.record import Record
from lamina.container.settings import DonorOf
from lamina.container.store import ContainerStore
from lamina.errors import InvalidArgument, LaminaError

_NOT_TOLD = ("HOME", "PATH")


@dataclass(frozen=True)
class Linked:
    """A running container that another one is linked to, and the name that it has there."""

    record: Record
    alias: str

    @property
    def ip(self) -> str:
        """Its address on the default bridge; empty if it has none."""
        endpoint = self.record.endpoint("bridge")
        return endpoint.ip if endpoint is not None else ""

    @property
    def hosts_line(self) -> str:
        """Its line in /etc/hosts: alias, hostname, name."""
        names = dict.fromkeys((self.alias, self.record.config.hostname, self.record.name))
        return f"{self.ip}\t{' '.join(names)}"


def checked_links(texts: Sequence[str], containers: ContainerStore) -> list[str]:
    """``NAME[:ALIAS]`` as ``ID:ALIAS``. Raises InvalidArgument, also if there is no such container."""
    return [f"{record.id}:{alias}" for record, alias in (_read(text, containers) for text in texts)]


def without_link(record: Record, alias: str) -> Record:
    """A record without the link of an alias. Raises LinkNotFound."""
    links = record.host_config.links or []
    kept = [text for text in links if text.partition(":")[2] != alias]
    if len(kept) == len(links):
        raise LinkNotFound(record.name, alias)
    host = msgspec.structs.replace(record.host_config, links=kept or None)
    return msgspec.structs.replace(record, host_config=host)


def shown_links(record: Record, containers: ContainerStore) -> list[str] | None:
    """A container's links as ``inspect`` shows them; one whose container is gone is none any more."""
    shown = []
    for text in record.host_config.links or []:
        container_id, _, alias = text.partition(":")
        if container_id in containers:
            shown.append(f"/{containers.get(container_id).name}:/{record.name}/{alias}")
    return shown or None


def names_by_links(containers: ContainerStore) -> dict[str, list[str]]:
    """The names that containers have in others which are linked to them, ``/OTHER/ALIAS``, by their IDs."""
    names: dict[str, list[str]] = {}
    for other in containers:
        for text in other.host_config.links or []:
            container_id, _, alias = text.partition(":")
            names.setdefault(container_id, []).append(f"/{other.name}/{alias}")
    return names


def linked(record: Record, donor_of: DonorOf) -> list[Linked]:
    """The containers that a container is linked to. Raises LinkedNotRunning, or ContainerNotFound."""
    found = []
    for text in record.host_config.links or []:
        container_id, _, alias = text.partition(":")
        try:
            found.append(Linked(donor_of(container_id), alias))
        except ContainerNotRunning as error:
            raise LinkedNotRunning(error.container_id, f"/{record.name}/{alias}") from None
    return found


def linked_running(record: Record, containers: ContainerStore) -> list[Linked]:
    """Those of the containers that a container is linked to which run."""
    pairs = (text.partition(":")[::2] for text in record.host_config.links or [])
    known = (Linked(containers.get(container_id), alias) for container_id, alias in pairs if container_id in containers)
    return [other for other in known if other.record.state.has_process]


def variables(record: Record, others: Sequence[Linked]) -> list[str]:
    """What a container's process is told of those it is linked to."""
    return [line for other in others for line in _variables(f"/{record.name}/{other.alias}", other)]


class LinkedNames:
    """Keeps the addresses in /etc/hosts right when a container that others are linked to is started again."""

    def __init__(self, containers: ContainerStore, write_names: Callable[[Record], None]) -> None:
        """*write_names* writes a running container's files of names again; it raises OSError or a LaminaError."""
        self._containers = containers
        self._write_names = write_names

    def heard(self, action: str, record: Record, attributes: Mapping[str, str]) -> None:
        """Something has happened to a container."""
        if action != "start":
            return
        for other in self._containers:
            if other.state.has_process and any(t.startswith(f"{record.id}:") for t in other.host_config.links or []):
                try:
                    self._write_names(other)
                except (OSError, LaminaError):
                    continue  # it has another link, to one that does not run


def _read(text: str, containers: ContainerStore) -> tuple[Record, str]:
    """Also as ``inspect`` shows it, ``/NAME:/OWN/ALIAS``."""
    name, colon, alias = text.partition(":")
    alias = alias.rpartition("/")[2] if colon else name.removeprefix("/")
    if not name or not alias or ":" in alias:
        raise InvalidArgument(f"bad format for links: {text}")
    try:
        return containers.find(name), alias
    except LaminaError:
        raise InvalidArgument(f"could not get container for {name.removeprefix('/')}") from None


def _variables(name: str, other: Linked) -> Iterator[str]:
    alias = name.rpartition("/")[2].upper().replace("-", "_")
    yield f"{alias}_NAME={name}"
    ports = sorted(_ports(other.record), key=lambda port: (port[1] != "tcp", port[0]))
    for index, (number, protocol) in enumerate(ports):
        url = f"{protocol}://{other.ip}:{number}"
        if index == 0:
            yield f"{alias}_PORT={url}"
        prefix = f"{alias}_PORT_{number}_{protocol.upper()}"
        yield from (
            f"{prefix}={url}",
            f"{prefix}_ADDR={other.ip}",
            f"{prefix}_PORT={number}",
            f"{prefix}_PROTO={protocol}",
        )
    yield from _ranges(alias, other.ip, ports)
    for entry in other.record.config.env or []:
        key, equals, value = entry.partition("=")
        if equals and key not in _NOT_TOLD:
            yield f"{alias}_ENV_{key}={value}"


def _ranges(alias: str, ip: str, ports: Sequence[tuple[int, str]]) -> Iterator[str]:
    """Ports that follow each other, told as ranges once more."""
    start = 0
    for index, (number, protocol) in enumerate(ports):
        if index + 1 < len(ports) and ports[index + 1] == (number + 1, protocol):
            continue
        if index > start:
            first = ports[start][0]
            prefix = f"{alias}_PORT_{first}_{protocol.upper()}"
            yield from (f"{prefix}_START={protocol}://{ip}:{first}", f"{prefix}_PORT_START={first}")
            yield from (f"{prefix}_END={protocol}://{ip}:{number}", f"{prefix}_PORT_END={number}")
        start = index + 1


def _ports(record: Record) -> Iterator[tuple[int, str]]:
    for text in record.config.exposed_ports or {}:
        number, _, protocol = text.partition("/")
        if number.isdigit():
            yield int(number), protocol or "tcp"
