"""What is timed: one row a kind of work, the same commands for every engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import exchange, many, traffic
from bench.corpus import Corpus
from bench.engines import Engine
from bench.host import settle

Unit = Literal["s", "bytes", "share"]
_SHORT, _LONG = 7, 3


@dataclass(frozen=True)
class Row:
    """A kind of work. *measure* does it once and returns seconds, bytes, or a share of a core; *floor* does what nobody can do without."""

    name: str
    title: str
    goal: float
    runs: int
    measure: Callable[[Engine, Corpus], float | None]
    floor: Callable[[Corpus, Path], float] | None = None
    floor_title: str = ""
    unit: Unit = "s"


def _run(*options: str) -> Callable[[Engine, Corpus], float]:
    return lambda engine, corpus: engine.timed("run", "--rm", *options, "busybox", "true")


def _exec(engine: Engine, corpus: Corpus) -> float:
    engine.run("run", "-d", "--name", "target", "busybox", "sleep", "1000")
    try:
        return engine.timed("exec", "target", "true")
    finally:
        engine.run("rm", "-f", "target")


def _ps(engine: Engine, corpus: Corpus) -> float:
    return engine.timed("ps", own=True)


def _memory(engine: Engine, corpus: Corpus) -> float | None:
    return engine.memory_bytes() or None


def _import(engine: Engine, corpus: Corpus) -> float:
    settle()
    try:
        return engine.timed("import", corpus.big, "big")
    finally:
        engine.run("rmi", "big")


def _import_and_run(engine: Engine, corpus: Corpus) -> float:
    settle()
    try:
        return engine.timed("import", corpus.big, "big") + engine.timed("run", "--rm", "big", "true")
    finally:
        engine.run("rmi", "big")


def _build_cold(engine: Engine, corpus: Corpus) -> float:
    settle()
    return engine.timed("build", "-q", "--no-cache", "-t", "benched", corpus.context)


def _build_cached(engine: Engine, corpus: Corpus) -> float:
    return engine.timed("build", "-q", "-t", "benched", corpus.context)


def _build_cached_own(engine: Engine, corpus: Corpus) -> float:
    return engine.timed("build", "-q", "-t", "benched", corpus.context, own=True)


def _build_stages(engine: Engine, corpus: Corpus) -> float:
    return engine.timed("build", "-q", "--no-cache", "-t", "stages", corpus.slow_context)


def _copy_memory(engine: Engine, corpus: Corpus) -> float | None:
    """The most that the resident processes, and those that they start, hold together while a file of 2 GB is copied into an image."""
    settle()
    with engine.watched_memory() as watch:
        engine.run("build", "-q", "--no-cache", "-t", "large", corpus.large_context)
    engine.run("rmi", "large")
    return watch.peak_bytes or None


def _copy_and_hash(corpus: Corpus, scratch: Path) -> float:
    settle()
    target = scratch / "copy"
    start = time.perf_counter()
    command = 'tee "$2" < "$1" | sha256sum > /dev/null && sync "$2"'
    subprocess.run(["sh", "-c", command, "sh", corpus.big, target], check=True)
    elapsed = time.perf_counter() - start
    target.unlink()
    return elapsed


def _interpreter(corpus: Corpus, scratch: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.perf_counter() - start


def _client_and_runtime_exec(corpus: Corpus, scratch: Path) -> float:
    """The command line's start, and the runtime's part in a container that runs without any engine."""
    bundle = scratch / "sleeping"
    if not bundle.exists():
        _make_bundle(corpus, bundle, ["sleep", "1000"])
    runc, name, nowhere = ["runc", "--root", str(scratch / "runc")], f"lmexec{os.getpid()}", subprocess.DEVNULL
    run = [*runc, "run", "--detach", "--bundle", str(bundle), name]
    subprocess.run(run, check=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        start = time.perf_counter()
        subprocess.run(["docker", "--version"], check=True, stdout=nowhere)
        subprocess.run([*runc, "exec", name, "true"], check=True, stdin=nowhere, stdout=nowhere)
        return time.perf_counter() - start
    finally:
        subprocess.run([*runc, "delete", "--force", name], check=True, stdin=nowhere)


def _runtime(corpus: Corpus, scratch: Path) -> float:
    bundle = scratch / "bundle"
    if not bundle.exists():
        _make_bundle(corpus, bundle, ["true"])
    begin = time.perf_counter()
    argv = ["runc", "--root", str(scratch / "runc"), "run", "--bundle", str(bundle), f"lmbench{os.getpid()}"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _make_bundle(corpus: Corpus, bundle: Path, argv: list[str]) -> None:
    (bundle / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-xf", corpus.busybox, "-C", bundle / "rootfs"], check=True)
    subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": argv, "terminal": False, "rlimits": []}
    (bundle / "config.json").write_text(json.dumps(config))


ROWS = (
    Row(
        "run",
        "`run --rm busybox true`, default bridge",
        0.070,
        _SHORT,
        _run(),
        _runtime,
        "`runc run`, no network, no log",
    ),
    Row("run-none", "`run --rm --network none busybox true`", 0.055, _SHORT, _run("--network", "none")),
    Row("run-host", "`run --rm --network host busybox true`", 0.050, _SHORT, _run("--network", "host")),
    Row("run-network", "the same in a network of the user's own", 0.110, _SHORT, traffic.run_in_own_network),
    Row("move", "iperf3: 8 GB from one container to another", 3.0, _LONG, traffic.move),
    Row("requests", "3,000 requests to a port published at 127.0.0.1", 3.0, _LONG, traffic.request_published),
    Row(
        "exec",
        "`exec` of `true` in a running container",
        0.035,
        _SHORT,
        _exec,
        _client_and_runtime_exec,
        "`docker --version` and `runc exec`",
    ),
    Row("run-d", "100 × `run -d`, one after another", 7.0, _LONG, many.run_detached),
    Row("rm-100", "`rm -f` of 100 that run", 2.0, _LONG, many.remove_running),
    Row("run-32", "32 × `run --rm busybox true` at once", 1.5, _SHORT, many.run_at_once),
    Row(
        "container-memory",
        "memory of a running container beside its own processes (PSS)",
        512 << 10,
        1,
        many.memory_of_one,
        unit="bytes",
    ),
    Row("logs-tail", "`logs --tail 10` of a log of 1 GB", 0.05, 1, many.tail_of_much),
    Row("ps-1000", "`ps -a` with 1,000 containers", 0.1, 1, many.list_many),
    Row("stats", "CPU of the daemon while `stats` shows 100 containers", 0.05, 1, many.watching, unit="share"),
    Row("ps", "`ps`, the engine's own command", 0.040, _SHORT, _ps, _interpreter, "`python3 -I -S -c pass`"),
    Row("memory", "memory of the idle daemon (PSS)", 60 << 20, 1, _memory, unit="bytes"),
    Row(
        "import",
        "`import` of 1.2 GB, 42,000 files",
        2.5,
        _LONG,
        _import,
        _copy_and_hash,
        "`tee` to a copy and to `sha256sum`, synced",
    ),
    Row("build", "`build --no-cache`, 18 instructions, 5,000 files and 200 MB", 3.0, _LONG, _build_cold),
    Row("build-cached", "the same, everything cached", 1.5, _LONG, _build_cached),
    Row("build-own", "the same by the engine's own command", 0.2, _SHORT, _build_cached_own),
    Row("build-stages", "two stages of five seconds that do not need each other", 6.5, _LONG, _build_stages),
    Row(
        "build-memory",
        "the engine's peak memory during `COPY` of a 2 GB file",
        150 << 20,
        1,
        _copy_memory,
        unit="bytes",
    ),
    Row("pull", "`pull` of 1.25 GB, 42,000 files, 430 MB of gzip", 3.0, _LONG, exchange.pull),
    Row("push", "`push` of the same, nothing there yet", 4.0, _LONG, exchange.push),
    Row("load", "`load` of its archive", 2.5, _LONG, exchange.load),
    Row("save", "`save` of it", 2.0, _LONG, exchange.save),
    Row("pull-memory", "the engine's peak memory during that `pull`", 200 << 20, 1, exchange.pull_memory, unit="bytes"),
    *(
        Row(
            f"registry-{what}-{clients}",
            f"registry: {title}, {clients} client{'s' if clients > 1 else ''}",
            goal,
            _LONG,
            exchange.registry(what, clients, times),
        )
        for what, title, clients, times, goal in (
            ("manifest", "1,000 manifests", 1, 1000, 1.5),
            ("manifest", "60 manifests each", 32, 60, 1.7),
            ("pull-1", "200 blobs of 1 MB", 1, 200, 0.6),
            ("pull-1", "15 blobs of 1 MB each", 32, 15, 1.1),
            ("pull-100", "10 blobs of 100 MB", 1, 10, 0.5),
            ("pull-100", "a blob of 100 MB each", 32, 1, 1.5),
            ("push-1", "push of 50 blobs of 1 MB", 1, 50, 0.5),
            ("push-1", "push of 5 blobs of 1 MB each", 32, 5, 1.7),
            ("push-100", "push of 3 blobs of 100 MB", 1, 3, 1.3),
            ("push-100", "push of a blob of 100 MB each", 32, 1, 12.0),
        )
    ),
    Row("import-run", "`import` and the first `run` of it", 3.0, _LONG, _import_and_run),
)
