"""What happens to a container, as the change from one record to the next. Pure, but for the clock."""

from __future__ import annotations

import time

import msgspec

from lamina.container.health import checks_health
from lamina.container.processes import Started
from lamina.container.record import NEVER, Joined, Record
from lamina.container.times import parse_rfc3339, rfc3339
from lamina.runtime.monitor import ExitStatus


def as_running(record: Record, started: Started) -> Record:
    """The record of a container whose process is about to run."""
    running = record.with_state(
        status="running",
        pid=started.pid,
        started_ticks=started.started_ticks,
        exit_code=0,
        error="",
        oom_killed=False,
        started_at=rfc3339(time.time_ns()),
        finished_at=record.state.finished_at,
        stopped_by_user=False,
        health="starting" if checks_health(record.config) else None,
    )
    return as_joined(running, started.joined)


def as_joined(record: Record, joined: Joined | None) -> Record:
    """The record of a running container that is where *joined* tells."""
    endpoints = joined.endpoints if joined is not None else {}
    now = {name: [address for address in (e.ip, e.ip6) if address] for name, e in endpoints.items()}
    kept = {name: addresses for name, addresses in record.addresses.items() if name in record.networks}
    return msgspec.structs.replace(record, joined=joined, addresses={**kept, **now})


def as_ended(record: Record, status: ExitStatus) -> Record:
    """The record of a container whose process has ended. Files' times are of a coarser clock, so an end may seem before its start."""
    began = parse_rfc3339(record.state.started_at) if record.state.started_at != NEVER else 0
    ended = record.with_state(
        status="exited",
        pid=0,
        started_ticks=0,
        exit_code=status.code,
        oom_killed=status.oom_killed,
        finished_at=rfc3339(max(status.finished_ns or time.time_ns(), began)),
        health="unhealthy" if record.state.health else None,
    )
    return msgspec.structs.replace(ended, joined=None)


def as_frozen(record: Record) -> Record:
    """The record of a container whose processes are stopped; nobody knows its health then."""
    return record.with_state(status="paused", health="unhealthy" if record.state.health else None)


def as_restarting(record: Record) -> Record:
    """The record of a container that is to be started again; unchanged if somebody started it meanwhile."""
    return record if record.state.is_running else record.with_state(status="restarting")


def stop_signal(record: Record) -> str:
    """The signal that asks the process to end."""
    return record.config.stop_signal or "SIGTERM"


def seconds_run(record: Record) -> float:
    """How long the last process of a container that has ended ran."""
    if record.state.started_at == NEVER:
        return 0.0
    return max(0, parse_rfc3339(record.state.finished_at) - parse_rfc3339(record.state.started_at)) / 1e9
