"""Which containers ``ps`` shows: docker's filters over the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.errors import InvalidArgument, LaminaError
from lamina.image.listing import has_labels
from lamina.image.store import ImageStore

_TRUE, _FALSE = ("1", "true"), ("0", "false")
_VALUES = {
    "status": ("created", "running", "paused", "restarting", "removing", "exited", "dead"),
    "health": ("none", "starting", "healthy", "unhealthy"),
    "is-task": _TRUE + _FALSE,
}
_UNKNOWN = {
    "status": "Invalid filter 'status={}'",
    "health": "Unrecognised filter value for health: {}",
    "is-task": "Invalid filter 'is-task=[{}]'",
}
_EXIT_CODE = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True)
class ContainerQuery:
    """What to list: docker's filters by name, each with the values of which one must fit (all of them for labels)."""

    include_stopped: bool = False
    limit: int | None = None
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)


def select_containers(containers: ContainerStore, images: ImageStore, query: ContainerQuery) -> list[Record]:
    """The containers that match, the newest first. Raises InvalidArgument for a value that means nothing."""
    tests = [_test(name, values, containers, images) for name, values in query.filters.items() if values]
    implies_all = "status" in query.filters or (query.limit or 0) > 0
    chosen = [
        record
        for record in containers
        if (query.include_stopped or implies_all or record.state.is_running) and all(test(record) for test in tests)
    ]
    chosen.sort(key=lambda record: record.created_ns, reverse=True)
    return chosen[: query.limit] if query.limit and query.limit > 0 else chosen


def _test(name: str, values: Sequence[str], containers: ContainerStore, images: ImageStore) -> Callable[[Record], bool]:
    if name in ("before", "since"):
        limit = containers.find(values[0]).created_ns
        return lambda r: r.created_ns < limit if name == "before" else r.created_ns > limit
    if name == "ancestor":
        return _ancestor(values, images)
    if name == "name":
        patterns = [pattern for pattern in map(_compiled, values) if pattern is not None]
        return lambda r: any(pattern.search(text) for pattern in patterns for text in (f"/{r.name}", r.name))
    if name in ("expose", "publish"):
        wanted = [_ports(name, value) for value in values]
        has_port = _exposes if name == "expose" else _publishes
        return lambda r: any(has_port(r, ports, protocol) for ports, protocol in wanted)
    for value in values:
        if name in _VALUES and value not in _VALUES[name]:
            raise InvalidArgument(_UNKNOWN[name].format(value))
        if name == "exited" and not _EXIT_CODE.fullmatch(value):
            raise InvalidArgument(f"invalid filter 'exited={value}'")
    return lambda record: _matches(name, values, record)


def _matches(name: str, values: Sequence[str], record: Record) -> bool:
    labels = record.config.labels or {}
    if name == "label":
        return has_labels(labels, values)
    if name == "label!":
        return not any(has_labels(labels, [v]) for v in values)
    if name == "exited":
        return record.state.status == "exited" and record.state.exit_code in map(int, values)
    return any(_one_matches(name, value, record) for value in values)


def _one_matches(name: str, value: str, record: Record) -> bool:
    if name == "id":
        return record.id.startswith(value)
    if name == "status":
        return record.state.status == value
    if name == "volume":
        return any(value in (m.name, m.destination, m.source) for m in record.mounts)
    if name == "network":
        endpoints = record.joined.endpoints.values() if record.joined is not None else ()
        return value in record.networks or any(e.network_id.startswith(value) for e in endpoints)
    if name == "health":
        return value == (record.state.health or "none")
    # isolation is Windows', and no container of lamina is a task
    return name == "isolation" or value in _FALSE


def _compiled(pattern: str) -> Any:
    """A pattern whose search takes time in proportion to the text, whoever wrote it; None, which finds nothing, if it is malformed."""
    import re2  # not before it is needed: it is large

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _ports(name: str, value: str) -> tuple[range, str]:
    """``80``, ``80/udp`` or ``80-90/tcp``."""
    numbers, _, protocol = value.partition("/")
    first, dash, last = numbers.partition("-")
    ends = (first, last if dash else first)
    are_numbers = all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends)
    if not are_numbers or int(ends[0]) > int(ends[1]) or "/" in protocol:
        raise InvalidArgument(f"invalid filter '{name}={value}'")
    return range(int(ends[0]), int(ends[1]) + 1), protocol or "tcp"


def _exposes(record: Record, ports: range, protocol: str) -> bool:
    for text in record.config.exposed_ports or {}:
        number, _, own = text.partition("/")
        if number.isdigit() and int(number) in ports and (own or "tcp") == protocol:
            return True
    return False


def _publishes(record: Record, ports: range, protocol: str) -> bool:
    """By the container's port, as docker does."""
    places = record.joined.ports if record.joined is not None else ()
    return any(place.container_port in ports and place.protocol == protocol for place in places)


def _ancestor(values: Sequence[str], images: ImageStore) -> Callable[[Record], bool]:
    """Containers of an image or of one that was built on it."""
    wanted: list[tuple[str, ...]] = []
    for value in values:
        try:
            wanted.append(tuple(images.find(value).config.diff_ids))
        except LaminaError:
            continue
    ids = {images.find(v).image_id for v in values if _exists(images, v)}
    return lambda r: (
        r.image_id in ids or any(bool(layers) and tuple(r.diff_ids[: len(layers)]) == layers for layers in wanted)
    )


def _exists(images: ImageStore, name: str) -> bool:
    try:
        images.find(name)
    except LaminaError:
        return False
    return True
