"""Images on their way between an engine, archives and a registry on the loopback interface; and registries by themselves."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.corpus import Corpus
from bench.engines import LAMINA, Engine
from bench.host import settle

_PATIENCE_S = 20
_SMALL, _LARGE = 1 << 20, 100_000_000
_NO_TLS = {"podman": ["--tls-verify=false"]}


def pull(engine: Engine, corpus: Corpus) -> float:
    """``pull`` of an image whose layer is compressed; the registry is Debian's."""
    with _registry(corpus, filled=True) as host:
        settle()
        try:
            return engine.timed("pull", *_NO_TLS.get(engine.name, ()), f"{host}/big:1")
        finally:
            engine.run("rmi", "-f", f"{host}/big:1")


def push(engine: Engine, corpus: Corpus) -> float:
    """``push`` of an image that was loaded, to a registry that has nothing."""
    engine.run("load", "-i", corpus.archive)
    try:
        with _registry(corpus) as host:
            engine.run("tag", "big:latest", f"{host}/big:1")
            settle()
            try:
                return engine.timed("push", *_NO_TLS.get(engine.name, ()), f"{host}/big:1")
            finally:
                engine.run("rmi", "-f", f"{host}/big:1")
    finally:
        _forget(engine)


def load(engine: Engine, corpus: Corpus) -> float:
    """``load`` of an archive."""
    settle()
    try:
        return engine.timed("load", "-i", corpus.archive)
    finally:
        _forget(engine)


def save(engine: Engine, corpus: Corpus) -> float:
    """``save`` of what was loaded."""
    engine.run("load", "-i", corpus.archive)
    target = corpus.archive.with_name("saved.tar")
    try:
        settle()
        return engine.timed("save", "-o", target, "big:latest")
    finally:
        target.unlink(missing_ok=True)
        _forget(engine)


def pull_memory(engine: Engine, corpus: Corpus) -> float | None:
    """The most that the daemon and its workers hold while they pull."""
    if not engine.memory_bytes():
        return None
    with engine.watched_memory() as watch:
        pull(engine, corpus)
    return watch.peak_bytes


def _forget(engine: Engine) -> None:
    with suppress(subprocess.CalledProcessError):
        engine.run("rmi", "-f", "big:latest")


@contextmanager
def _registry(corpus: Corpus, *, filled: bool = False) -> Iterator[str]:
    """Debian's registry, with the large image if it is to be *filled*, which is done once for all runs."""
    kept = corpus.archive.with_name("registry")
    with (
        tempfile.TemporaryDirectory(dir=corpus.archive.parent) as directory,
        _serving(_debian(kept if filled else Path(directory))) as host,
    ):
        if filled and not (kept / "filled").exists():
            argv = ["skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{corpus.archive}"]
            subprocess.run([*argv, f"docker://{host}/big:1"], check=True, capture_output=True)
            (kept / "filled").touch()
        yield host


Command = Callable[[str], Sequence[str]]


def _debian(root: Path) -> Command:
    def command(host: str) -> Sequence[str]:
        root.mkdir(exist_ok=True)
        config = root / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {root}/data}}\n"
            f"http: {{addr: '{host}'}}\n"
        )
        return ["docker-registry", "serve", str(config)]

    return command


def _own(root: Path) -> Command:
    options = ["--processes", str(os.cpu_count() or 1)]
    return lambda host: [LAMINA, "registry", "serve", "--root", str(root), "--listen", host, *options]


@contextmanager
def _serving(command: Command) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command(host), stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _answers(host):
            if time.monotonic() > deadline:
                raise TimeoutError("a registry does not start")
            time.sleep(0.02)
        yield host
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _answers(host: str) -> bool:
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(host, timeout=2)
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    return False


def registry(what: str, clients: int, times: int) -> Callable[[Engine, Corpus], float | None]:
    """Seconds that a number of clients need to do something a number of times each.

    lamina's registry stands under lamina's name, Debian's docker-registry under docker's; podman has none.
    """

    def measure(engine: Engine, corpus: Corpus) -> float | None:
        makers = {"lamina": _own, "docker": _debian}
        if engine.name not in makers:
            return None
        root = Path(tempfile.mkdtemp(dir=corpus.archive.parent))
        try:
            with _serving(makers[engine.name](root)) as host:
                settle()
                return _load(host, what, clients, times)
        finally:
            shutil.rmtree(root)

    return measure


def _load(host: str, what: str, clients: int, times: int) -> float:
    """Start the clients, let them make ready, and time them together."""
    argv = [sys.executable, "-m", "bench.registry_client", host, what, str(times)]
    subprocess.run([*argv[:-1], "0"], check=True, input=b"go\n", capture_output=True)  # puts what is read
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(argv, stdin=pipe, stdout=pipe) for _ in range(clients)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    elapsed = time.perf_counter() - start
    if any(process.wait(_PATIENCE_S) for process in processes):
        raise RuntimeError(f"a client of {what} failed")
    return elapsed
