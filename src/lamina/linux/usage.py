"""What a control group has used: CPU time, memory, processes, block devices (cgroups(7); cgroup-v1 and cgroup-v2 of the kernel's docs)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamina.linux.cgroups import Hierarchies

_MICROSECOND_NS = 1000
_NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 62
"""v1 writes a page-aligned number near 2**63 where there is no limit."""


@dataclass(frozen=True)
class CpuUsage:
    """CPU time in nanoseconds; ``per_cpu_ns`` is known on v1 alone."""

    total_ns: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    per_cpu_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


@dataclass(frozen=True)
class MemoryUsage:
    """Memory in bytes; ``limit`` None for none, ``max_usage`` is known on v1 alone; ``stat`` is ``memory.stat`` as the kernel writes it."""

    usage: int = 0
    limit: int | None = None
    max_usage: int | None = None
    failures: int = 0
    stat: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BlockUsage:
    """One counter of one block device; ``operation`` is the kernel's word."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True)
class GroupUsage:
    """All of one group at one moment; ``pids_limit`` None for none."""

    cpu: CpuUsage
    memory: MemoryUsage
    pids: int
    pids_limit: int | None
    block_bytes: tuple[BlockUsage, ...]
    block_operations: tuple[BlockUsage, ...]


@dataclass(frozen=True)
class SystemCpu:
    """CPU time of the whole machine since it was started, in nanoseconds, and how many CPUs are on."""

    total_ns: int
    online: int


def group_usage(hierarchies: Hierarchies, group: str) -> GroupUsage:
    """What a group has used. Blocking, a fraction of a millisecond. Raises FileNotFoundError if there is no such group."""
    return _usage_v2(hierarchies, group) if hierarchies.layout == "v2" else _usage_v1(hierarchies, group)


def system_cpu() -> SystemCpu:
    """The machine's CPU time, of which a container's is a share (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        first = file.readline().split()
        online = sum(line.startswith("cpu") for line in file)
    # guest time is part of user time already
    return SystemCpu(sum(map(int, first[1:8])) * _NANOSECONDS_PER_TICK, online)


def interface_counters(pid: int) -> dict[str, list[int]]:
    """The counters of the interfaces in a process's network namespace, as proc_pid_net(5) orders them, without the loopback."""
    try:
        text = Path(f"/proc/{pid}/net/dev").read_text(encoding="ascii")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            found[name.strip()] = [int(n) for n in numbers.split()]
    return found


def _usage_v1(hierarchies: Hierarchies, group: str) -> GroupUsage:
    def reader(controller: str) -> Callable[[str], str]:
        directory = hierarchies.directory(group, controller)
        return lambda name: _read(directory, name)

    cpuacct, memory, pids, blkio = reader("cpuacct"), reader("memory"), reader("pids"), reader("blkio")
    throttled = _flat(reader("cpu")("cpu.stat"))
    total = cpuacct("cpuacct.usage")
    if not total and not hierarchies.processes(group):
        raise FileNotFoundError(group)
    return GroupUsage(
        CpuUsage(
            total_ns=_number(total),
            user_ns=_number(cpuacct("cpuacct.usage_user")),
            kernel_ns=_number(cpuacct("cpuacct.usage_sys")),
            per_cpu_ns=tuple(map(int, cpuacct("cpuacct.usage_percpu").split())),
            periods=throttled.get("nr_periods", 0),
            throttled_periods=throttled.get("nr_throttled", 0),
            throttled_ns=throttled.get("throttled_time", 0),
        ),
        MemoryUsage(
            usage=_number(memory("memory.usage_in_bytes")),
            limit=_limit(memory("memory.limit_in_bytes")),
            max_usage=_number(memory("memory.max_usage_in_bytes")),
            failures=_number(memory("memory.failcnt")),
            stat=_flat(memory("memory.stat")),
        ),
        _number(pids("pids.current")),
        _limit(pids("pids.max")),
        _blocks_v1(blkio("blkio.throttle.io_service_bytes_recursive")),
        _blocks_v1(blkio("blkio.throttle.io_serviced_recursive")),
    )


def _usage_v2(hierarchies: Hierarchies, group: str) -> GroupUsage:
    directory = hierarchies.directory(group, "cpu")
    if directory is None or not directory.exists():
        raise FileNotFoundError(group)
    cpu = _flat(_read(directory, "cpu.stat"))
    io = _read(directory, "io.stat")
    return GroupUsage(
        CpuUsage(
            total_ns=cpu.get("usage_usec", 0) * _MICROSECOND_NS,
            user_ns=cpu.get("user_usec", 0) * _MICROSECOND_NS,
            kernel_ns=cpu.get("system_usec", 0) * _MICROSECOND_NS,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_ns=cpu.get("throttled_usec", 0) * _MICROSECOND_NS,
        ),
        MemoryUsage(
            usage=_number(_read(directory, "memory.current")),
            limit=_limit(_read(directory, "memory.max")),
            failures=_flat(_read(directory, "memory.events")).get("oom", 0),
            stat=_flat(_read(directory, "memory.stat")),
        ),
        _number(_read(directory, "pids.current")),
        _limit(_read(directory, "pids.max")),
        _blocks_v2(io, {"rbytes": "read", "wbytes": "write"}),
        _blocks_v2(io, {"rios": "read", "wios": "write"}),
    )


def _blocks_v1(text: str) -> tuple[BlockUsage, ...]:
    """Lines such as ``8:0 Read 4096``; the last, of all devices together, has two words."""
    words = (line.split() for line in text.splitlines())
    return tuple(BlockUsage(*_device(w[0]), w[1], int(w[2])) for w in words if len(w) == 3)


def _blocks_v2(text: str, names: Mapping[str, str]) -> tuple[BlockUsage, ...]:
    """Lines such as ``8:0 rbytes=4096 wbytes=0 rios=1 wios=0``."""
    found = []
    for line in text.splitlines():
        device, *pairs = line.split()
        values = dict(pair.partition("=")[::2] for pair in pairs)
        found += [BlockUsage(*_device(device), names[n], int(v)) for n, v in values.items() if n in names]
    return tuple(found)


def _device(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def _read(directory: Path | None, name: str) -> str:
    """A file of a group; empty if the host lacks the controller, or the group is gone."""
    try:
        return (directory / name).read_text(encoding="ascii") if directory is not None else ""
    except OSError:
        return ""


def _flat(text: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _number(text: str) -> int:
    return int(text.strip() or 0)


def _limit(text: str) -> int | None:
    stripped = text.strip()
    return None if stripped in ("", "max") or int(stripped) >= _UNLIMITED else int(stripped)
