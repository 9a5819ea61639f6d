"""Work with many containers, and with one that has said much: set up once, then measured."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.corpus import Corpus
from bench.engines import Engine, pss
from bench.host import settle

HUNDRED = 100
_AT_ONCE = 32
_LISTED = 1000
_INNER_RUNS = 7
_STATS_S = 10.0
_TICKS_S = os.sysconf("SC_CLK_TCK")
_LOG_BYTES = 1 << 30


def run_detached(engine: Engine, corpus: Corpus) -> float:
    """A hundred ``run -d``, one after another."""
    settle()
    names = _names(HUNDRED)
    try:
        start = time.perf_counter()
        for name in names:
            _start(engine, name)
        return time.perf_counter() - start
    finally:
        engine.run("rm", "-f", *names)


def remove_running(engine: Engine, corpus: Corpus) -> float:
    """``rm -f`` of a hundred that run."""
    names = _names(HUNDRED)
    for name in names:
        _start(engine, name)
    settle()
    return engine.timed("rm", "-f", *names)


def run_at_once(engine: Engine, corpus: Corpus) -> float:
    """Thirty-two ``run --rm`` at once."""
    threads = [threading.Thread(target=engine.run, args=("run", "--rm", "busybox", "true")) for _ in range(_AT_ONCE)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def memory_of_one(engine: Engine, corpus: Corpus) -> float | None:
    """What each of a hundred running containers costs beside its own processes: its keeper, and what the daemon grows by."""
    before = engine.memory_bytes()
    with _running(engine, HUNDRED):
        keepers = set(engine.keepers())
        grown = sum(pss(pid) for pid in engine.pids() if pid not in keepers) - before
        return (sum(map(pss, keepers)) + max(0, grown)) / HUNDRED


def list_many(engine: Engine, corpus: Corpus) -> float:
    """``ps -a`` with a thousand containers."""
    names = _names(_LISTED)
    for name in names:
        engine.run("create", "--name", name, "busybox", "true")
    try:
        return median(engine.timed("ps", "-a") for _ in range(_INNER_RUNS))
    finally:
        for start in range(0, _LISTED, HUNDRED):
            engine.run("rm", *names[start : start + HUNDRED])


def tail_of_much(engine: Engine, corpus: Corpus) -> float:
    """``logs --tail 10`` of a log of 1 GB."""
    # the peers have no limit unless they are asked for one, and take no -1
    options = {"lamina": ["--log-opt", "max-size=-1"], "podman": ["--log-driver", "k8s-file"]}.get(engine.name, [])
    script = f"yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c {_LOG_BYTES}"
    engine.run("run", "-d", "--name", "talker", *options, "busybox", "sh", "-c", script)
    engine.run("wait", "talker")
    try:
        return median(engine.timed("logs", "--tail", "10", "talker") for _ in range(_INNER_RUNS))
    finally:
        engine.run("rm", "-f", "talker")


def watching(engine: Engine, corpus: Corpus) -> float | None:
    """The share of one core that the daemon takes while somebody looks at ``stats`` of a hundred containers."""
    if not engine.pids():
        return None
    with _running(engine, HUNDRED), open(os.devnull, "wb") as nowhere:
        looking = subprocess.Popen([*engine.cli, "stats"], stdout=nowhere, stderr=nowhere)
        try:
            time.sleep(2)
            before = _cpu_ticks(engine.pids())
            time.sleep(_STATS_S)
            return (_cpu_ticks(engine.pids()) - before) / _TICKS_S / _STATS_S
        finally:
            looking.terminate()
            looking.wait()


@contextmanager
def _running(engine: Engine, count: int) -> Iterator[None]:
    names = _names(count)
    for name in names:
        _start(engine, name)
    try:
        yield
    finally:
        engine.run("rm", "-f", *names)


def _start(engine: Engine, name: str) -> None:
    engine.run("run", "-d", "--name", name, "busybox", "sleep", "1000")


def _names(count: int) -> list[str]:
    return [f"many-{number}" for number in range(count)]


def _cpu_ticks(pids: list[int]) -> int:
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks
