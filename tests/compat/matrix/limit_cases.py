"""What a container may use (Resources), by ``POST /containers/create``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from compat.matrix.kernel import block_device, is_v2, limit
from compat.matrix.lab import Cases, Lab

CASES = Cases()
_MB = 1 << 20
_CPU_WEIGHT = str(1 + (512 - 2) * 9999 // 262142)
_QUOTA = (
    "cat /sys/fs/cgroup/cpu.max" if is_v2() else "cd /sys/fs/cgroup/cpu; echo $(cat cpu.cfs_quota_us cpu.cfs_period_us)"
)

CASES.shows("HostConfig: Memory", limit("memory", "memory.limit_in_bytes", "memory.max"), str(64 * _MB),
            host={"mem_limit": "64m"})  # fmt: skip
CASES.refuses("HostConfig: Memory", [400], "Minimum memory limit allowed is 6MB", host={"mem_limit": "1m"})
CASES.shows("HostConfig: MemoryReservation", limit("memory", "memory.soft_limit_in_bytes", "memory.low"), str(32 * _MB),
            host={"mem_reservation": "32m"})  # fmt: skip
CASES.refuses("HostConfig: MemoryReservation", [400], "memory reservation",
              host={"mem_reservation": "64m", "mem_limit": "32m"})  # fmt: skip
CASES.refuses("HostConfig: MemorySwap", [400], "memoryswap", host={"mem_limit": "64m", "memswap_limit": "32m"})
CASES.refuses("HostConfig: MemorySwap", [400], "memoryswap", host={"MemorySwap": 64 * _MB})
CASES.refuses("HostConfig: MemorySwappiness", [400], "0-100", host={"MemorySwappiness": 101})
CASES.shows("HostConfig: CpuShares", limit("cpu", "cpu.shares", "cpu.weight"), _CPU_WEIGHT if is_v2() else "512",
            host={"cpu_shares": 512})  # fmt: skip
CASES.shows("HostConfig: CpuQuota CpuPeriod", _QUOTA, "20000 50000", host={"cpu_quota": 20000, "cpu_period": 50000})
CASES.refuses(
    "HostConfig: CpuShares",
    [400],
    "CPU shares (-1)",
    host={"CpuShares": -1},
)
CASES.refuses("HostConfig: CpuQuota", [400], "CPU cfs quota", host={"cpu_quota": 999})
CASES.refuses("HostConfig: CpuPeriod", [400], "CPU cfs period", host={"cpu_period": 999})
CASES.shows("HostConfig: NanoCpus", _QUOTA, "50000 100000", host={"nano_cpus": 500_000_000})
CASES.refuses("HostConfig: NanoCpus", [400], "Range of CPUs", host={"nano_cpus": 10**15})
CASES.refuses("HostConfig: NanoCpus CpuQuota", [400], "Nano CPUs", host={"nano_cpus": 10**9, "cpu_quota": 50000})
CASES.shows(
    "HostConfig: CpusetCpus", "grep Cpus_allowed_list /proc/self/status | cut -f2", "0", host={"cpuset_cpus": "0"}
)
CASES.refuses("HostConfig: CpusetCpus", [400], "Requested CPUs are not available", host={"cpuset_cpus": "4000"})
CASES.shows(
    "HostConfig: CpusetMems", "grep Mems_allowed_list /proc/self/status | cut -f2", "0", host={"cpuset_mems": "0"}
)
CASES.refuses("HostConfig: CpusetMems", [400], "Requested memory nodes are not available", host={"cpuset_mems": "999"})
CASES.shows("HostConfig: PidsLimit", limit("pids", "pids.max", "pids.max"), "20", host={"pids_limit": 20})
CASES.shows("HostConfig: PidsLimit", limit("pids", "pids.max", "pids.max"), "max", host={"pids_limit": -1})
CASES.shows("HostConfig: Ulimits\nHostConfig.Ulimits: Name Soft Hard", "ulimit -n; ulimit -Hn", "64\n128",
            host={"ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 128}]})  # fmt: skip
CASES.refuses("HostConfig.Ulimits: Name", [400, 500], "bogus", host={"Ulimits": [{"Name": "bogus", "Soft": 1, "Hard": 1}]},
              starts=True)  # fmt: skip
CASES.refuses("HostConfig.Ulimits: Soft Hard", [400], "soft limit",
              host={"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]})  # fmt: skip
CASES.refuses("HostConfig: KernelMemoryTCP", [400, 501], "kernel-memory-tcp", host={"KernelMemoryTCP": 64 * _MB})
CASES.refuses("HostConfig: CpuRealtimeRuntime CpuRealtimePeriod", [400], "real-time",
              host={"CpuRealtimeRuntime": 2000, "CpuRealtimePeriod": 1000})  # fmt: skip


@CASES.covers("HostConfig: Memory MemorySwap")
def memory_with_swap(lab: Lab) -> None:
    """The second limit has the first in it; unlimited is -1, and nothing given is as much again."""
    for asked, expected in (("96m", 96 * _MB), (None, 128 * _MB)):
        host = {"mem_limit": "64m"} | ({"memswap_limit": asked} if asked else {})
        container = lab.start(host=host)
        assert lab.api.inspect_container(container)["HostConfig"]["MemorySwap"] == expected
        v2 = str(expected - 64 * _MB)
        told = lab.execute(container, limit("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"))
        assert told == (v2 if is_v2() else str(expected))


@CASES.covers("HostConfig: Memory")
def the_end_of_what_needs_too_much_memory(lab: Lab) -> None:
    host = {"mem_limit": "8m", "memswap_limit": "8m"}
    container = lab.start(
        "head -c 64m /dev/zero | tail > /dev/null; x=$(head -c 64m /dev/zero | tr '\\0' x)", host=host
    )
    ended = lab.api.wait(container)["StatusCode"]
    assert ended != 0
    assert lab.state(container)["OOMKilled"] is True


@CASES.covers("HostConfig: MemorySwappiness OomKillDisable")
def what_only_the_first_version_has(lab: Lab) -> None:
    """Of the second version both are passed over, with a warning."""
    container = lab.start(host={"mem_swappiness": 17, "oom_kill_disable": True, "mem_limit": "64m"})
    if is_v2():
        assert len(lab.warnings) == 2
        return
    assert lab.execute(container, "cat /sys/fs/cgroup/memory/memory.swappiness") == "17"
    assert "oom_kill_disable 1" in lab.execute(container, "cat /sys/fs/cgroup/memory/memory.oom_control")
    lab.create(host={"oom_kill_disable": True})
    assert any("OOM killer is disabled" in text for text in lab.warnings)


@CASES.covers("HostConfig: BlkioWeight")
def a_weight(lab: Lab) -> None:
    """A kernel that does not know weights has docker drop them, and say so."""
    container = lab.start(host={"blkio_weight": 300})
    shown = lab.api.inspect_container(container)["HostConfig"]["BlkioWeight"]
    if any("Block I/O weight" in text for text in lab.warnings):
        assert shown == 0
        return
    assert shown == 300
    assert "300" in lab.execute(container, limit("blkio", "blkio.weight", "io.weight"))
    lab.refused([400], "blkio weight", "10 to 1000", host={"blkio_weight": 1001})


@CASES.covers("HostConfig: BlkioWeightDevice\nHostConfig.BlkioWeightDevice: Path Weight")
def a_weight_of_a_device(lab: Lab) -> None:
    """As for the whole."""
    node, number = block_device()
    container = lab.create("exec sleep 600", host={"blkio_weight_device": [{"Path": node, "Weight": 200}]})
    told = any("Block I/O weight_device" in text for text in lab.warnings)
    lab.api.start(container)
    if told:
        assert lab.api.inspect_container(container)["HostConfig"]["BlkioWeightDevice"] in ([], None)
    else:
        assert f"{number} 200" in lab.execute(container, limit("blkio", "blkio.weight_device", "io.weight"))


def _throttle(field: str, argument: str, v1: str, v2: str) -> None:
    @CASES.covers(f"HostConfig: {field}\nThrottleDevice: Path Rate")
    def throttled(lab: Lab) -> None:
        node, number = block_device()
        container = lab.start(host={argument: [{"Path": node, "Rate": 12345}]})
        told = lab.execute(container, limit("blkio", f"blkio.throttle.{v1}_device", "io.max"))
        assert number in told
        assert (f"{v2}=12345" if is_v2() else f"{number} 12345") in told
        no_device: Any = {field: [{"Path": "/dev/nosuch", "Rate": 1}]}
        lab.refused([400, 500], "/dev/nosuch", host=no_device, starts=True)


_throttle("BlkioDeviceReadBps", "device_read_bps", "read_bps", "rbps")
_throttle("BlkioDeviceWriteBps", "device_write_bps", "write_bps", "wbps")
_throttle("BlkioDeviceReadIOps", "device_read_iops", "read_iops", "riops")
_throttle("BlkioDeviceWriteIOps", "device_write_iops", "write_iops", "wiops")


@CASES.covers("HostConfig: CpuRealtimePeriod CpuRealtimeRuntime")
def real_time(lab: Lab) -> None:
    """The kernel gives a group no more than its parent has, which is nothing at first: what it is asked is told, or it is so."""
    files = [Path("/sys/fs/cgroup/cpu/cpu.rt_period_us"), Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")]
    host = {"CpuRealtimePeriod": 1_000_000, "CpuRealtimeRuntime": 1000}
    if is_v2() or not all(map(Path.exists, files)):
        lab.refused([400], "CPU real-time scheduler", host=host)
        return
    lab.refused([400, 500], "cpu.rt_runtime_us", host=host, starts=True)


_OPENS = "(exec 3<{0}) 2>&1 && echo read; (exec 3<>{0}) 2>&1 && echo written"


@CASES.covers("HostConfig: Devices\nDeviceMapping: PathOnHost PathInContainer CgroupPermissions")
def devices(lab: Lab) -> None:
    """A node of the host's under another name, with no more rights than are given."""
    number = _fuse()
    numbers = "stat -c %t:%T /dev/mine"
    for rights, ends in (("r", "Operation not permitted"), ("rwm", "written")):
        host = {"devices": [f"/dev/fuse:/dev/mine:{rights}"]}
        told = lab.run(f"{numbers}; {_OPENS.format('/dev/mine')} || true", host=host).splitlines()
        assert told[:2] == [":".join(f"{int(part):x}" for part in number.split(":")), "read"]
        assert told[-1].endswith(ends)
    lab.refused([400, 404, 500], "/dev/nosuch", host={"devices": ["/dev/nosuch"]}, starts=True)


@CASES.covers("HostConfig: DeviceCgroupRules")
def rules_for_devices(lab: Lab) -> None:
    """What is allowed may be used; without the rule it may not."""
    number = _fuse()
    script = f"mknod /dev/own c {number.replace(':', ' ')}; {_OPENS.format('/dev/own')} || true"
    told = lab.run(script, host={"device_cgroup_rules": [f"c {number} r"]}).splitlines()
    assert told[0] == "read"
    assert "Operation not permitted" in told[1]
    assert "read" not in lab.run(script).splitlines()
    lab.refused([400, 500], "device cgroup rule", "bogus", host={"DeviceCgroupRules": ["bogus"]}, starts=True)


def _fuse() -> str:
    """The numbers of a device that anybody may open who is let; the test is skipped without it."""
    path = Path("/dev/fuse")
    if not path.is_char_device():
        pytest.skip("this host has no /dev/fuse")
    number = path.stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


@CASES.covers("HostConfig: DeviceRequests\nDeviceRequest: Capabilities DeviceIDs")
def devices_of_drivers_in_the_wrong_form(lab: Lab) -> None:
    for request in ({"Driver": "cdi", "DeviceIDs": 7}, {"Driver": "x", "Capabilities": 7}):
        lab.refused([400], host={"DeviceRequests": [request]})


@CASES.covers("HostConfig: DeviceRequests\nDeviceRequest: Driver Count DeviceIDs Capabilities Options")
def devices_of_drivers(lab: Lab) -> None:
    """There is no driver here."""
    wanted = {"Driver": "nvidia", "Capabilities": [["gpu"]], "Options": {"a": "b"}}
    for request in (wanted | {"Count": -1}, wanted | {"DeviceIDs": ["0"]}):
        lab.refused([400, 500, 501], "gpu", host={"DeviceRequests": [request]}, starts=True)
