"""``lamina stats``: docker's figures for the same samples, and a table that follows what starts and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

import canned
from conftest import LAMINA, Daemon

_GIB = 1 << 30


def _sample(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": f"/{name}",
        "id": name * 64,
        "read": "2026-01-01T00:00:00Z",
        "preread": "2026-01-01T00:00:00Z",
        **fields,
    }


def _cpu(total: int, system: int, **fields: Any) -> dict[str, Any]:
    return {"cpu_usage": {"total_usage": total, **fields}, "system_cpu_usage": system}


_SAMPLES = {
    # control groups v1: operations with a capital letter, memory's figures with the children's
    "1": _sample(
        "1",
        cpu_stats=_cpu(900_000_000, 20_000_000_000, percpu_usage=[1, 2, 3]),
        precpu_stats=_cpu(400_000_000, 18_000_000_000),
        memory_stats={
            "usage": 100 << 20,
            "limit": _GIB,
            "stats": {"total_inactive_file": 30 << 20, "inactive_file": 1 << 20},
        },
        blkio_stats={
            "io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "Read", "value": 1_234_567},
                {"major": 8, "minor": 16, "op": "Read", "value": 1},
                {"major": 8, "minor": 0, "op": "Write", "value": 99},
                {"major": 8, "minor": 0, "op": "Total", "value": 10**12},
                {"major": 8, "minor": 0, "op": "", "value": 10**12},
            ]
        },
        networks={"eth0": {"rx_bytes": 5338, "tx_bytes": 648}, "eth1": {"rx_bytes": 10**7, "tx_bytes": 1}},
        pids_stats={"current": 12},
    ),
    # v2
    "2": _sample(
        "2",
        cpu_stats={**_cpu(100_000_123, 20_000_000_000), "online_cpus": 2},
        precpu_stats=_cpu(0, 18_000_000_000),
        memory_stats={"usage": 1_600_000, "limit": 25_276_469_248, "stats": {"inactive_file": 4096}},
        blkio_stats={
            "io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "read", "value": 10**9},
                {"major": 8, "minor": 0, "op": "write", "value": 1500},
            ]
        },
        pids_stats={"current": 1, "limit": 100},
    ),
    # more is idle than is used, time went back, no limit
    "3": _sample(
        "3",
        cpu_stats={**_cpu(1, 1), "online_cpus": 2},
        precpu_stats=_cpu(2, 2),
        memory_stats={"usage": 10, "limit": 0, "stats": {"total_inactive_file": 20, "inactive_file": 20}},
        blkio_stats={"io_service_bytes_recursive": None},
        pids_stats={},
    ),
    # what a container has that does not run
    "4": _sample("4"),
    "5": {},
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[canned.Canned]:
    answers: dict[str, Any] = {f"/containers/{name * 12}/stats": sample for name, sample in _SAMPLES.items()}
    answers |= {f"/containers/{name}/stats": sample for name, sample in _SAMPLES.items()}
    answers["/containers/json"] = [{"Id": name * 64} for name in sorted(_SAMPLES, reverse=True)]
    answers["/events"] = {"Type": "container", "Action": "exec_start", "Actor": {"ID": "1" * 64, "Attributes": {}}}
    with canned.serving(tmp_path_factory.mktemp("samples"), answers) as served:
        yield served


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-a"],
        ["1", "2"],
        ["--no-trunc", "1"],
        ["--format", "json"],
        ["--format", "{{.Container}} {{.ID}} {{.Name}} {{.CPUPerc}}"],
        ["--format", r"table {{.Container}}\t{{.MemUsage}}\t{{.NetIO}}"],
        ["--format", "{{.x}}"],
        ["--format", "{{.x"],
        ["6"],
        ["6", "1"],
        ["--bogus"],
    ],
    ids=" ".join,
)
def test_figures_are_docker_s(samples: canned.Canned, arguments: list[str]) -> None:
    ours, docker_s = (run("stats", "--no-stream", *arguments) for run in (samples.lamina, samples.docker))
    assert (ours.code, ours.out, ours.err.replace("lamina", "docker")) == (docker_s.code, docker_s.out, docker_s.err)


class _Screen:
    """What a ``lamina stats`` that goes on has drawn."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        env = {**os.environ, "LAMINA_HOST": daemon.host}
        argv = [str(LAMINA), "stats", *arguments]
        self.process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self._output = self.process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._text = ""

    def wait_for(self, pattern: str) -> str:
        """The first whole drawing from now on that has the pattern."""
        deadline = time.monotonic() + 20
        self._text = ""
        while time.monotonic() < deadline:
            self._text += (self._output.read() or b"").decode()
            for drawing in self._text.split("\033[H")[1:]:
                if drawing.endswith("\033[J") and re.search(pattern, drawing):
                    return drawing
            time.sleep(0.05)
        raise AssertionError(f"{pattern} is not in {self._text!r}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=10)
        return self.process.returncode


def test_the_table_follows_what_starts_and_ends(daemon: Daemon) -> None:
    screen = _Screen(daemon)
    daemon.docker_ok("run", "-d", "--name", "stats-one", "busybox", "sleep", "1000")
    drawing = screen.wait_for(r"stats-one +\d+\.\d\d%")
    assert drawing.startswith("CONTAINER ID ")
    assert all(line.endswith(" \033[K") for line in drawing.splitlines()[:-1])
    daemon.docker_ok("rm", "-f", "stats-one")
    screen.wait_for(r"\A(?!.*stats-one)(?s:.*)")
    assert screen.end() == 130


def test_containers_that_are_named_stay(daemon: Daemon) -> None:
    daemon.docker_ok("run", "-d", "--name", "stats-two", "busybox", "sleep", "1000")
    screen = _Screen(daemon, "stats-two", "--format", "{{.Container}} {{.PIDs}}")
    screen.wait_for("stats-two 1")
    daemon.docker_ok("kill", "stats-two")
    screen.wait_for("stats-two (0|--)")
    daemon.docker_ok("rm", "stats-two")
    screen.wait_for("stats-two --")
    assert screen.end() == 130


def test_what_uses_nothing_is_shown_as_docker_shows_it(daemon: Daemon) -> None:
    daemon.docker_ok("create", "--name", "stats-three", "busybox", "true")
    ours, docker_s = (run("stats", "--no-stream", "stats-three") for run in (daemon.lamina, daemon.docker))
    assert ours == docker_s
    assert "0B / 0B" in ours.out
    daemon.docker_ok("rm", "stats-three")
