"""Which containers ``ps`` shows: docker's filters over the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lamina.container.record import Record
from lamina.container.store import ContainerStore
from lamina.errors import InvalidArgument, LaminaError
from lamina.image.listing import has_labels
from lamina.image.store import ImageStore

_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


@dataclass(frozen=True)
class ContainerQuery:
    """What to list: docker's filters by name, each with the values of which one must fit (all of them for labels)."""

    include_stopped: bool = False
    limit: int | None = None
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)


def select_containers(containers: ContainerStore, images: ImageStore, query: ContainerQuery) -> list[Record]:
    """The containers that match, the newest first. Raises InvalidArgument for a value that means nothing."""
    tests = [_test(name, values, containers, images) for name, values in query.filters.items() if values]
    by_status = "status" in query.filters or "exited" in query.filters or query.limit
    chosen = [
        record
        for record in containers
        if (query.include_stopped or by_status or record.state.has_process) and all(test(record) for test in tests)
    ]
    chosen.sort(key=lambda record: record.created_ns, reverse=True)
    return chosen[: query.limit] if query.limit and query.limit > 0 else chosen


def _test(name: str, values: Sequence[str], containers: ContainerStore, images: ImageStore) -> Callable[[Record], bool]:
    if name in ("before", "since"):
        limit = containers.find(values[0]).created_ns
        return lambda r: r.created_ns < limit if name == "before" else r.created_ns > limit
    if name == "ancestor":
        return _ancestor(values, images)
    if name == "status":
        wrong = [v for v in values if v not in _STATUSES]
        if wrong:
            raise InvalidArgument(f"invalid filter 'status={wrong[0]}'")
    if name == "exited" and not all(v.lstrip("-").isdigit() for v in values):
        raise InvalidArgument(f"invalid filter 'exited={values[0]}'")
    return lambda record: _matches(name, values, record)


def _matches(name: str, values: Sequence[str], record: Record) -> bool:
    labels = record.config.labels or {}
    if name == "label":
        return has_labels(labels, values)
    if name == "label!":
        return not any(has_labels(labels, [v]) for v in values)
    if name == "exited":
        return record.state.status == "exited" and str(record.state.exit_code) in values
    return any(_one_matches(name, value, record) for value in values)


def _one_matches(name: str, value: str, record: Record) -> bool:
    if name == "id":
        return record.id.startswith(value)
    if name == "name":
        return _search(value, f"/{record.name}") or _search(value, record.name)
    if name == "status":
        return record.state.status == value
    if name == "volume":
        return any(value in (m.name, m.destination, m.source) for m in record.mounts)
    if name == "network":
        return value in record.networks or (record.endpoint is not None and record.endpoint.network_id == value)
    if name == "expose":
        return any(value in (port, port.partition("/")[0]) for port in record.config.exposed_ports or {})
    if name == "health":
        return value == "none"
    # published ports, isolation and tasks: no container of lamina has any of them yet
    return name == "is-task" and value in ("false", "0")


def _search(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text


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
