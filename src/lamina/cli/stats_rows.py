"""A sample of the API's statistics as a row of ``stats``: docker's formulas, for control groups of both versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina.api.sizes import human_binary_size, human_size
from lamina.cli.output import short_id

_NONE = "--"
UNKNOWN = {
    "CPUPerc": _NONE,
    "MemUsage": f"{_NONE} / {_NONE}",
    "MemPerc": _NONE,
    "NetIO": _NONE,
    "BlockIO": _NONE,
    "PIDs": _NONE,
}
"""What is shown of a container whose use is not known."""

Sample = Mapping[str, Any]


def named(container: str, sample: Sample, *, full: bool) -> dict[str, str]:
    """The fields that tell which container it is: as it was asked for, and by what the sample says."""
    identifier = sample.get("id") or ""
    name = sample.get("name") or ""
    return {
        "Container": container,
        "ID": identifier if full else short_id(identifier),
        "Name": name.removeprefix("/") or _NONE,
    }


def used(sample: Sample) -> dict[str, str]:
    """The fields that tell what it uses."""
    memory = sample.get("memory_stats") or {}
    limit = memory.get("limit") or 0
    usage = memory_bytes(memory)
    received, sent = network_bytes(sample)
    read, written = block_bytes(sample)
    return {
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{human_binary_size(usage)} / {human_binary_size(limit)}",
        "MemPerc": f"{usage / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "BlockIO": f"{human_size(read)} / {human_size(written)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current") or 0),
    }


def cpu_percent(sample: Sample) -> float:
    """Processor time since the sample before, of one processor's; none if there was no sample before."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    usage, usage_before = now.get("cpu_usage") or {}, before.get("cpu_usage") or {}
    spent = (usage.get("total_usage") or 0) - (usage_before.get("total_usage") or 0)
    passed = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    processors: int = now.get("online_cpus") or len(usage.get("percpu_usage") or ())
    return spent / passed * processors * 100 if spent > 0 and passed > 0 else 0.0


def memory_bytes(memory: Mapping[str, Any]) -> int:
    """Memory in use without the pages of files that the kernel would give up first (v1's total_inactive_file, v2's inactive_file)."""
    usage: int = memory.get("usage") or 0
    details = memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        idle = details.get(name)
        if idle is not None and idle < usage:
            return int(usage - idle)
    return usage


def network_bytes(sample: Sample) -> tuple[int, int]:
    """Received and sent by all interfaces."""
    interfaces = (sample.get("networks") or {}).values()
    return sum(i.get("rx_bytes") or 0 for i in interfaces), sum(i.get("tx_bytes") or 0 for i in interfaces)


def block_bytes(sample: Sample) -> tuple[int, int]:
    """Read from all devices and written to them; v1 says ``Read``, v2 ``read``."""
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    totals = {"r": 0, "w": 0}
    for entry in entries:
        kind = (entry.get("op") or "")[:1].lower()
        if kind in totals:
            totals[kind] += entry.get("value") or 0
    return totals["r"], totals["w"]
