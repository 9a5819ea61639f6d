"""What containers use and may use: ``top``, ``stats``, ``update``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from conftest import Daemon


@pytest.fixture
def container(daemon: Daemon) -> Iterator[str]:
    name = f"used-{os.urandom(4).hex()}"
    script = "sleep 4712 & while :; do :; done"
    daemon.docker_ok("run", "-d", "--name", name, "--memory", "64m", "--cpus", "0.5", "busybox", "sh", "-c", script)
    yield name
    daemon.docker("rm", "-f", name)


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=daemon.host, version="auto")
    yield client
    client.close()


def test_top_shows_the_container_s_processes_alone(daemon: Daemon, container: str) -> None:
    lines = daemon.docker_ok("top", container).splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert len(lines) == 3
    assert lines[2].endswith("sleep 4712")
    pid = daemon.docker_ok("inspect", "-f", "{{.State.Pid}}", container).strip()
    assert lines[1].split()[1] == pid


@pytest.mark.parametrize("options", [["aux"], ["-o", "pid,comm"], ["axf", "-o", "pid,cmd"], ["-eo", "comm,pid"]])
def test_top_takes_ps_s_options(daemon: Daemon, container: str, options: list[str]) -> None:
    out = daemon.docker_ok("top", container, *options)
    assert "PID" in out.splitlines()[0]
    assert "sleep" in out
    assert "systemd" not in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-o", "comm"], "Couldn't find PID field"),
        (["-o", "ppid=PID"], "is not allowed"),
        (["--nonsense"], "error running ps"),
    ],
)
def test_top_says_what_is_wrong(daemon: Daemon, container: str, options: list[str], reason: str) -> None:
    result = daemon.docker("top", container, *options)
    assert result.code == 1
    assert reason in result.err


def test_top_needs_a_process(daemon: Daemon, container: str) -> None:
    daemon.docker_ok("kill", container)
    assert "is not running" in daemon.docker("top", container).err


def test_stats_are_of_the_container(daemon: Daemon, container: str, client: docker.APIClient) -> None:
    found: dict[str, Any] = client.stats(container, stream=False)
    assert found["name"] == f"/{container}"
    assert found["pids_stats"]["current"] == 2
    assert found["memory_stats"]["limit"] == 64 << 20
    assert 0 < found["memory_stats"]["usage"] < 64 << 20
    used = found["cpu_stats"]["cpu_usage"]["total_usage"] - found["precpu_stats"]["cpu_usage"]["total_usage"]
    passed = found["cpu_stats"]["system_cpu_usage"] - found["precpu_stats"]["system_cpu_usage"]
    share = used / passed * found["cpu_stats"]["online_cpus"]
    assert 0.2 < share < 0.8
    assert found["cpu_stats"]["throttling_data"]["throttled_periods"] > 0
    assert set(found["networks"]) == {"eth0"}
    out = daemon.docker_ok(
        "stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}", container
    )
    name, cpu, _, _, limit, pids = out.split()
    assert (name, limit, pids) == (container, "64MiB", "2")
    assert 20 < float(cpu.rstrip("%")) < 80


def test_one_shot_stats_do_not_wait(client: docker.APIClient, container: str) -> None:
    began = time.monotonic()
    found = client.stats(container, stream=False, one_shot=True)
    assert time.monotonic() - began < 0.9
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert found["precpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_stats_go_on_every_second_until_the_container_is_gone(
    daemon: Daemon, container: str, client: docker.APIClient
) -> None:
    stream = client.stats(container, decode=True)
    first = [next(stream) for _ in range(3)]
    moments = [entry["read"] for entry in first]
    assert moments == sorted(set(moments))
    assert first[1]["preread"] == first[0]["read"]
    daemon.docker_ok("rm", "-f", container)
    assert len(list(stream)) < 5


def test_stats_of_what_does_not_run_are_empty(daemon: Daemon, container: str, client: docker.APIClient) -> None:
    daemon.docker_ok("kill", container)
    found = client.stats(container, stream=False)
    assert (found["name"], found["pids_stats"], found["memory_stats"]) == (f"/{container}", {}, {})
    assert "--" in daemon.docker_ok("stats", "--no-stream", container) or "0.00%" in daemon.docker_ok(
        "stats", "--no-stream", container
    )


def test_block_devices_are_counted(daemon: Daemon, container: str, client: docker.APIClient) -> None:
    daemon.docker_ok(
        "exec", container, "sh", "-c", "dd if=/dev/zero of=/f bs=1M count=8 2>/dev/null; sync; sync /f || true"
    )
    entries = client.stats(container, stream=False, one_shot=True)["blkio_stats"]["io_service_bytes_recursive"]
    assert entries is None or all(set(entry) == {"major", "minor", "op", "value"} for entry in entries)


def test_limits_change_while_a_container_runs(daemon: Daemon, container: str) -> None:
    options = [
        "--memory",
        "96m",
        "--memory-swap",
        "192m",
        "--cpus",
        "0.7",
        "--pids-limit",
        "50",
        "--restart",
        "on-failure:3",
    ]
    assert daemon.docker_ok("update", *options, container).strip() == container
    host = json.loads(daemon.docker_ok("inspect", container))[0]["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (96 << 20, 700_000_000, 50)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert kernel_limits(daemon, container) == (96 << 20, 70_000, 50)
    daemon.docker_ok("update", "--pids-limit", "-1", container)
    assert kernel_limits(daemon, container)[2] is None
    daemon.docker_ok("restart", "-t", "0", container)
    assert kernel_limits(daemon, container) == (96 << 20, 70_000, None)


def kernel_limits(daemon: Daemon, container: str) -> tuple[int, int, int | None]:
    """Memory, CPU quota and processes, as the kernel has them for the container's group."""
    pid = daemon.docker_ok("inspect", "-f", "{{.State.Pid}}", container).strip()
    groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())

    def read(controller: str, v1: str, v2: str) -> str:
        for names, group in groups.items():
            if controller in names.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{group}/{v1}").read_text().split()[0]
        return Path(f"/sys/fs/cgroup{groups['']}/{v2}").read_text().split()[0]

    pids = read("pids", "pids.max", "pids.max")
    return (
        int(read("memory", "memory.limit_in_bytes", "memory.max")),
        int(read("cpu", "cpu.cfs_quota_us", "cpu.max")),
        None if pids == "max" else int(pids),
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--memory", "1g"], "Memory limit should be smaller than already set memoryswap limit"),
        (["--cpu-period", "5000"], "CPU Period cannot be updated as NanoCPUs has already been set"),
        (["--cpuset-cpus", "4711"], "Requested CPUs are not available"),
    ],
)
def test_limits_that_cannot_be_are_refused(daemon: Daemon, container: str, options: list[str], reason: str) -> None:
    result = daemon.docker("update", *options, container)
    assert result.code == 1
    assert reason in result.err


def test_a_container_that_goes_with_its_process_takes_no_restart_policy(daemon: Daemon) -> None:
    daemon.docker_ok("run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "1000")
    assert "AutoRemove is enabled" in daemon.docker("update", "--restart", "always", "passing").err
    daemon.docker_ok("rm", "-f", "passing")


def test_a_stopped_container_is_updated_too(daemon: Daemon, container: str) -> None:
    daemon.docker_ok("kill", container)
    daemon.docker_ok("update", "--memory", "80m", container)
    daemon.docker_ok("start", container)
    assert kernel_limits(daemon, container)[0] == 80 << 20


def test_stats_of_many_cost_little(daemon: Daemon) -> None:
    """Twenty containers watched at once by one client each: all get their measurements."""
    names = [f"watched-{n}" for n in range(20)]
    for name in names:
        daemon.docker_ok("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "1000")
    argv = ["docker", "-H", daemon.host, "stats", "--format", "{{.Name}} {{.PIDs}}", *names]
    missing = set(names)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as shown:
        killer = threading.Timer(30, shown.kill)
        killer.start()
        assert shown.stdout is not None
        while missing and (line := shown.stdout.readline()):
            words = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).split()
            if words[1:] == ["1"]:
                missing.discard(words[0])
        killer.cancel()
        shown.kill()
    assert missing == set()
    daemon.docker_ok("rm", "-f", *names)
