"""What is changed while a container lives: ``POST /containers/{id}/update``."""

from __future__ import annotations

from typing import Any

import docker
import pytest

from compat.matrix.kernel import block_device, is_v2, limit
from compat.matrix.lab import Cases, Lab

CASES = Cases()
_MB = 1 << 20
_QUOTA = (
    "cat /sys/fs/cgroup/cpu.max" if is_v2() else "cd /sys/fs/cgroup/cpu; echo $(cat cpu.cfs_quota_us cpu.cfs_period_us)"
)


def _changes(fields: str, script: str, told: str, asked: dict[str, Any], **host: Any) -> None:
    """A running container is within other limits at once, and is shown with them; what was not asked for stays."""

    @CASES.covers(f"update: {fields}", name=f"update.{fields}")
    def changed(lab: Lab) -> None:
        container = lab.start(host={"oom_score_adj": 7, "cpu_shares": 300, **host})
        answer = lab.api.update_container(container, **asked)
        assert answer.get("Warnings") in (None, [])
        assert lab.execute(container, script) == told
        shown = lab.api.inspect_container(container)["HostConfig"]
        assert [shown[name] for name in fields.split()] == list(asked.values())
        assert (shown["OomScoreAdj"], shown["CpuShares"]) == (7, asked.get("cpu_shares", 300))


_changes("Memory MemorySwap", limit("memory", "memory.limit_in_bytes", "memory.max"), str(96 * _MB),
         {"mem_limit": 96 * _MB, "memswap_limit": 128 * _MB}, mem_limit="64m")  # fmt: skip
_changes("MemoryReservation", limit("memory", "memory.soft_limit_in_bytes", "memory.low"), str(32 * _MB),
         {"mem_reservation": 32 * _MB})  # fmt: skip
_changes("CpuShares", limit("cpu", "cpu.shares", "cpu.weight"), str(1 + 510 * 9999 // 262142) if is_v2() else "512",
         {"cpu_shares": 512})  # fmt: skip
_changes("CpuQuota CpuPeriod", _QUOTA, "20000 50000", {"cpu_quota": 20000, "cpu_period": 50000})
_changes("CpusetCpus", "grep Cpus_allowed_list /proc/1/status | cut -f2", "0", {"cpuset_cpus": "0"})
_changes("CpusetMems", "grep Mems_allowed_list /proc/1/status | cut -f2", "0", {"cpuset_mems": "0"})


def _update(lab: Lab, container: str, **fields: Any) -> Any:
    return lab.post(f"/containers/{container}/update", fields).json()


@CASES.covers("update: NanoCpus")
def parts_of_cpus(lab: Lab) -> None:
    container = lab.start()
    _update(lab, container, NanoCpus=250_000_000)
    assert lab.execute(container, _QUOTA) == "25000 100000"
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.update_container(container, cpu_quota=20000)
    lab.told(raised.value, [400, 409], "NanoCPUs has already been set")


@CASES.covers("update: PidsLimit")
def a_number_of_processes(lab: Lab) -> None:
    container = lab.start(host={"pids_limit": 30})
    for asked, told in ((20, "20"), (-1, "max"), (25, "25"), (0, "max")):
        _update(lab, container, PidsLimit=asked)
        assert lab.execute(container, limit("pids", "pids.max", "pids.max")) == told


@CASES.covers("update: RestartPolicy")
def a_policy(lab: Lab) -> None:
    container = lab.start("exit 3", host={"restart_policy": {"Name": "always"}})
    lab.until(lambda: lab.api.inspect_container(container)["RestartCount"])
    lab.api.update_container(container, restart_policy={"Name": "no"})
    lab.until(lambda: lab.state(container)["Status"] == "exited")
    assert lab.api.inspect_container(container)["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}


@CASES.covers("update: Memory MemorySwap NanoCpus CpusetCpus RestartPolicy")
def changes_that_cannot_be(lab: Lab) -> None:
    container = lab.start(host={"mem_limit": "64m", "memswap_limit": "64m"})
    before = lab.api.inspect_container(container)["HostConfig"]
    for fields, word in (
        ({"Memory": _MB}, "memory limit"),
        ({"Memory": 128 * _MB}, "memoryswap"),
        ({"MemorySwap": 32 * _MB}, "memoryswap"),
        ({"NanoCpus": 10**15}, "CPUs"),
        ({"CpusetCpus": "4000"}, "CPUs"),
        ({"RestartPolicy": {"Name": "bogus"}}, "restart policy"),
    ):
        with pytest.raises(docker.errors.APIError) as raised:
            _update(lab, container, **fields)
        lab.told(raised.value, [400, 409], word)
    assert lab.api.inspect_container(container)["HostConfig"] == before


@CASES.covers("update: CpuShares")
def shares_that_cannot_be(lab: Lab) -> None:
    with pytest.raises(docker.errors.APIError) as raised:
        _update(lab, lab.start(), CpuShares=-1)
    lab.told(raised.value, [400], "CPU shares")


@CASES.covers("update: CpuRealtimePeriod CpuRealtimeRuntime")
def real_time(lab: Lab) -> None:
    """docker takes them if the kernel has them; the group above gives none, so that the kernel refuses."""
    container = lab.start()
    with pytest.raises(docker.errors.APIError) as raised:
        _update(lab, container, CpuRealtimePeriod=1_000_000, CpuRealtimeRuntime=1000)
    lab.told(raised.value, [400, 500], "rt")
    assert lab.api.inspect_container(container)["HostConfig"]["CpuRealtimeRuntime"] == 0


@CASES.covers("update: BlkioWeight")
def a_weight(lab: Lab) -> None:
    """Where the kernel knows no weights, docker drops it and says so, as when a container is made."""
    container = lab.start()
    answer = _update(lab, container, BlkioWeight=300)
    shown = lab.api.inspect_container(container)["HostConfig"]["BlkioWeight"]
    lab.create(host={"blkio_weight": 300})
    if lab.warnings:
        assert (shown, len(answer["Warnings"])) == (0, 1)
    else:
        assert shown == 300


@CASES.covers(
    "update: BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps BlkioWeightDevice CgroupParent CpuCount "
    "CpuPercent DeviceCgroupRules DeviceRequests Devices IOMaximumBandwidth IOMaximumIOps Init KernelMemoryTCP MemorySwappiness "
    "OomKillDisable Ulimits\nupdate.BlkioWeightDevice: Path Weight\nupdate.Ulimits: Name Soft Hard"
)
def what_does_not_change(lab: Lab) -> None:
    """docker's update reads none of these (container_unix.go, UpdateContainer): what it does not change stays as it is."""
    node, _ = block_device()
    rates: Any = {name: [{"Path": node, "Rate": 5}] for name in ("BlkioDeviceReadBps", "BlkioDeviceWriteBps")}
    rates |= {name: [{"Path": node, "Rate": 5}] for name in ("BlkioDeviceReadIOps", "BlkioDeviceWriteIOps")}
    container = lab.start(host={"mem_limit": "64m"})
    before = lab.api.inspect_container(container)["HostConfig"]
    groups = "cd /sys/fs/cgroup; cat */memory.limit_in_bytes */memory.swappiness blkio/*_device memory.max 2>/dev/null; ulimit -n"
    limits = lab.execute(container, groups)
    _update(
        lab,
        container,
        **rates,
        BlkioWeightDevice=[{"Path": node, "Weight": 200}],
        CgroupParent="/elsewhere",
        CpuCount=1,
        CpuPercent=1,
        DeviceCgroupRules=["c 1:3 rwm"],
        DeviceRequests=[{"Driver": "nvidia"}],
        Devices=[{"PathOnHost": "/dev/null", "PathInContainer": "/dev/other", "CgroupPermissions": "r"}],
        IOMaximumBandwidth=5,
        IOMaximumIOps=5,
        Init=True,
        KernelMemoryTCP=5,
        MemorySwappiness=3,
        OomKillDisable=True,
        Ulimits=[{"Name": "nofile", "Soft": 5, "Hard": 5}],
    )
    assert lab.api.inspect_container(container)["HostConfig"] == before
    assert lab.execute(container, groups) == limits


@CASES.covers("update: Memory")
def what_is_stopped_is_changed_for_its_next_start(lab: Lab) -> None:
    container = lab.create(
        ["cat", "/sys/fs/cgroup/memory.max" if is_v2() else "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    )
    lab.api.update_container(container, mem_limit=48 * _MB, memswap_limit=-1)
    lab.api.start(container)
    lab.api.wait(container)
    assert lab.api.logs(container).decode().strip() == str(48 * _MB)
    assert lab.api.inspect_container(container)["HostConfig"]["MemorySwap"] == -1
