"""What a container uses as the API tells it (Engine API: ContainerStatsResponse)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lamina.container.record import NEVER, Record
from lamina.container.stats import Sample
from lamina.container.times import rfc3339
from lamina.linux.usage import BlockUsage, MemoryUsage

_INTERFACE_FIELDS = (
    "rx_bytes rx_packets rx_errors rx_dropped - - - - tx_bytes tx_packets tx_errors tx_dropped".split()
)  # fmt: skip
_LARGEST = (1 << 64) - 1


def stats(record: Record, sample: Sample, before: Sample | None) -> dict[str, Any]:
    """A measurement, with the CPU's part of the one *before* it."""
    usage = sample.usage
    shown: dict[str, Any] = {
        "name": f"/{record.name}",
        "id": record.id,
        "read": rfc3339(sample.taken_ns) if usage is not None else NEVER,
        "preread": rfc3339(before.taken_ns) if before is not None and before.usage is not None else NEVER,
        "pids_stats": {},
        "blkio_stats": _blocks((), ()),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample),
        "precpu_stats": _cpu(before),
        "memory_stats": {},
    }
    if usage is not None:
        shown["pids_stats"] = {
            "current": usage.pids,
            "limit": _LARGEST if usage.pids_limit is None else usage.pids_limit,
        }
        shown["blkio_stats"] = _blocks(usage.block_bytes, usage.block_operations)
        shown["memory_stats"] = _memory(usage.memory)
        if sample.interfaces:
            shown["networks"] = {name: _interface(counters) for name, counters in sample.interfaces.items()}
    return shown


def _cpu(sample: Sample | None) -> dict[str, Any]:
    if sample is None or sample.usage is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    cpu = sample.usage.cpu
    times: dict[str, Any] = {
        "total_usage": cpu.total_ns,
        "usage_in_kernelmode": cpu.kernel_ns,
        "usage_in_usermode": cpu.user_ns,
    }
    if cpu.per_cpu_ns:
        times["percpu_usage"] = cpu.per_cpu_ns
    return {
        "cpu_usage": times,
        "system_cpu_usage": sample.system.total_ns,
        "online_cpus": sample.system.online,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        },
    }


def _memory(memory: MemoryUsage) -> dict[str, Any]:
    """docker shows the machine's memory where there is no limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shown: dict[str, Any] = {
        "usage": memory.usage,
        "stats": dict(memory.stat),
        "limit": machine if memory.limit is None else min(memory.limit, machine),
    }
    if memory.max_usage is not None:
        shown["max_usage"] = memory.max_usage
    if memory.failures:
        shown["failcnt"] = memory.failures
    return shown


def _blocks(sizes: Sequence[BlockUsage], operations: Sequence[BlockUsage]) -> dict[str, Any]:
    others = ("io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive",
              "io_time_recursive", "sectors_recursive")  # fmt: skip
    return {
        "io_service_bytes_recursive": _entries(sizes),
        "io_serviced_recursive": _entries(operations),
        **dict.fromkeys(others),
    }


def _entries(blocks: Sequence[BlockUsage]) -> list[dict[str, Any]] | None:
    return [{"major": b.major, "minor": b.minor, "op": b.operation.lower(), "value": b.value} for b in blocks] or None


def _interface(counters: Sequence[int]) -> dict[str, int]:
    pairs = zip(_INTERFACE_FIELDS, counters, strict=False)
    return {name: value for name, value in pairs if name != "-"}
