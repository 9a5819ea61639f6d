"""Limits that make no sense, or that this machine cannot keep, refused in docker's words (daemon/daemon_unix.go)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.runtime.settings import Resources, Ulimit

_MINIMUM_MEMORY = 6 << 20
_CPUS = Path("/sys/devices/system/cpu/online")
_NODES = Path("/sys/devices/system/node/online")


def check_resources(resources: Resources) -> None:
    """Refuse wrong limits of memory and CPUs. Raises InvalidArgument."""
    _check_memory(resources)
    _check_cpus(resources)


def check_ulimits(ulimits: Iterable[Ulimit]) -> None:
    """Refuse a soft limit above its hard one. Raises InvalidArgument."""
    for ulimit in ulimits:
        if ulimit.soft > ulimit.hard >= 0:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            )


def _check_memory(resources: Resources) -> None:
    memory, swap = resources.memory or 0, resources.memory_swap or 0
    reservation, swappiness = resources.memory_reservation or 0, resources.memory_swappiness
    if memory and memory < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if swap > 0 and not memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if reservation and reservation < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if swappiness is not None and swappiness != -1 and not 0 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")


def _check_cpus(resources: Resources) -> None:
    period, quota = resources.cpu_period or 0, resources.cpu_quota or 0
    if (resources.cpu_shares or 0) < 0:
        raise InvalidArgument(f"invalid CPU shares ({resources.cpu_shares}): value must be a positive integer")
    if (resources.cpu_realtime_runtime or 0) > (resources.cpu_realtime_period or 0) > 0:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if resources.blkio_weight and not 10 <= resources.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for kind, unit, text, online in (
        ("cpus", "CPUs", resources.cpuset_cpus, _CPUS),
        ("mems", "memory nodes", resources.cpuset_mems, _NODES),
    ):
        _check_set(kind, unit, text, online)


def _check_set(kind: str, unit: str, text: str, online: Path) -> None:
    if not text:
        return
    wanted = _numbers(text)
    if wanted is None:
        raise InvalidArgument(f"Invalid value {text} for cpuset {kind}: invalid format: {text}")
    try:
        available = online.read_text().strip()
    except OSError:
        return
    if not wanted <= (_numbers(available) or wanted):
        raise InvalidArgument(f"Requested {unit} are not available - requested {text}, available: {available}")


def _numbers(text: str) -> set[int] | None:
    """``0-2,4`` as a set (cpuset(7), "List format"); None if it is malformed."""
    found: set[int] = set()
    for part in text.split(",") if text else []:
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 5 for end in ends):
            return None
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return found
