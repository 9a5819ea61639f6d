"""A container's life as events, with what it means for networks and volumes: docker tells of those by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lamina.container.announcements import Listener
from lamina.container.record import Record
from lamina.engine.events import Event, EventLog


def container_emitter(events: EventLog, gone: Callable[[Record], None]) -> Listener:
    """What ``Lifecycle`` tells the world with; *gone* hears of every container that is no more."""

    def emit(action: str, record: Record, attributes: Mapping[str, str]) -> None:
        described = {"image": record.image_name, "name": record.name, **(record.config.labels or {}), **attributes}
        own = Event("container", action, record.id, described)
        before = [*_of_network("connect", record), *_of_volumes("mount", record)] if action == "start" else []
        after = [*_of_network("disconnect", record), *_of_volumes("unmount", record)] if action == "die" else []
        for event in (*before, own, *after):
            events.publish(event)
        if action == "destroy":
            gone(record)

    return emit


def of_endpoint(action: str, container_id: str, network_id: str, name: str, driver: str) -> Event:
    """A container's coming into a network (``connect``) or going from there (``disconnect``)."""
    return Event("network", action, network_id, {"container": container_id, "name": name, "type": driver})


def _of_network(action: str, record: Record) -> Iterator[Event]:
    for endpoint in record.joined.endpoints.values() if record.joined is not None else ():
        yield of_endpoint(action, record.id, endpoint.network_id, endpoint.network, endpoint.driver)


def _of_volumes(action: str, record: Record) -> Iterator[Event]:
    for point in record.mounts:
        if point.type == "volume":
            attributes = {"container": record.id, "driver": point.driver}
            if action == "mount":
                access = "true" if point.rw else "false"
                attributes |= {"destination": point.destination, "propagation": "", "read/write": access}
            yield Event("volume", action, point.name, attributes)
