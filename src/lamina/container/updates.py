"""Changing what a container may use, and its restart policy, while it lives (``docker update``). Pure."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from lamina.container.config import HostConfig
from lamina.container.errors import UpdateConflict
from lamina.container.record import Record
from lamina.container.settings import resources
from lamina.container.validation import check_limits, check_restart
from lamina.runtime.settings import Resources

_LIMITS = ("blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "memory", "memory_swap",
           "memory_reservation", "cpu_realtime_period", "cpu_realtime_runtime")  # fmt: skip
_NO_LIMIT = -1


def updated(record: Record, request: HostConfig) -> Record:
    """The record after an update. Of *request* the limits and the restart policy count, and what is empty leaves things as they are.

    Raises InvalidArgument for what cannot be at all, UpdateConflict for what this container's other settings forbid.
    """
    host = record.host_config
    _check_conflicts(host, request)
    changes = {name: getattr(request, name) for name in _LIMITS if getattr(request, name)}
    if request.pids_limit is not None:
        changes["pids_limit"] = request.pids_limit if request.pids_limit > 0 else None
    if request.restart_policy.name:
        changes["restart_policy"] = request.restart_policy
    changed = msgspec.structs.replace(host, **changes)
    check_limits(changed)
    check_restart(changed)
    return msgspec.structs.replace(record, host_config=changed)


def limits_of(record: Record, request: HostConfig) -> Resources | None:
    """What the kernel is to keep a container within after an update; None if that has not changed."""
    if request.pids_limit is None and not any(getattr(request, name) for name in _LIMITS):
        return None
    limits = resources(record.host_config)
    return limits if request.pids_limit is None else replace(limits, pids=limits.pids or _NO_LIMIT)


def _check_conflicts(host: HostConfig, request: HostConfig) -> None:
    for name, field in (("Period", "cpu_period"), ("Quota", "cpu_quota")):
        if request.nano_cpus > 0 and getattr(host, field) > 0:
            raise UpdateConflict(f"Conflicting options: Nano CPUs cannot be updated as CPU {name} has already been set")
        if getattr(request, field) > 0 and host.nano_cpus > 0:
            raise UpdateConflict(f"Conflicting options: CPU {name} cannot be updated as NanoCPUs has already been set")
    if request.memory > host.memory_swap >= 0 and not request.memory_swap:
        raise UpdateConflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if host.auto_remove and request.restart_policy.name not in ("", "no"):
        raise UpdateConflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
