"""The engines that are compared, each on roots of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lamina.linux.cgroups import Hierarchies

LAMINA = str(Path(sys.executable).with_name("lamina"))
_START_TIMEOUT_S = 60
_WATCH_INTERVAL_S = 0.02


@dataclass
class Engine:
    """An engine that runs: how to talk to it.

    ``cli`` is the command that does the work that is timed (docker's, for lamina and docker alike); ``own_cli`` is the engine's own.
    ``pids`` are its resident processes, none where it has no daemon; ``keepers`` are those that each container has of its own.
    """

    name: str
    cli: Sequence[str]
    own_cli: Sequence[str]
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    pids: Callable[[], list[int]] = list
    keepers: Callable[[], list[int]] = list

    def run(self, *arguments: str | Path, own: bool = False) -> str:
        """Run one command of the engine's and return its output. Raises CalledProcessError."""
        argv = [*(self.own_cli if own else self.cli), *map(str, arguments)]
        # docker's command line has no BuildKit at hand here: the classic builder, for docker and lamina alike
        environment = {**os.environ, "DOCKER_BUILDKIT": "0", **self.environment}
        try:
            done = subprocess.run(
                argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True
            )
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise
        return done.stdout.strip()

    def timed(self, *arguments: str | Path, own: bool = False) -> float:
        """Seconds from the start of a command to its end, as a shell sees it."""
        start = time.perf_counter()
        self.run(*arguments, own=own)
        return time.perf_counter() - start

    @contextmanager
    def watched_memory(self) -> Iterator[MemoryWatch]:
        """Look at the memory of the resident processes, and of those that they start, for the length of the block."""
        watch = MemoryWatch(self.pids)
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()

    def memory_bytes(self) -> int:
        """What the resident processes hold, shared pages counted by their share (PSS)."""
        return sum(pss(pid) for pid in self.pids())


class MemoryWatch(threading.Thread):
    """Looks at processes' memory every few milliseconds and keeps the most that it saw."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self._ended = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        """The thread's work."""
        while not self._ended.wait(_WATCH_INTERVAL_S):
            everyone = {child for pid in self._pids() for child in _with_children(pid)}
            self.peak_bytes = max(self.peak_bytes, sum(map(pss, everyone)))

    def stop(self) -> None:
        """End the watch."""
        self._ended.set()
        self.join()


@contextmanager
def lamina(directory: Path) -> Iterator[Engine]:
    """lamina, driven by the docker command line."""
    host = f"unix://{directory}/lamina.sock"
    argv = [LAMINA, "daemon", "--root", f"{directory}/lamina", "--run-root", f"{directory}/lamina-run", "--host", host]
    argv += ["--bridge", "lmbench", "--nft-table", "lamina_bench", "--cgroup-parent", "/lamina_bench"]
    with _daemon(argv, directory / "lamina.log") as process:
        _until(lambda: Path(directory, "lamina.sock").exists())
        version = subprocess.run(
            [LAMINA, "-H", host, "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True, check=True
        )
        yield Engine(
            "lamina",
            ["docker", "-H", host],
            [LAMINA, "-H", host],
            version.stdout.strip(),
            pids=lambda: [process.pid],
            keepers=lambda: _keepers("conmon", f"{directory}/lamina-run"),
        )


@contextmanager
def docker(directory: Path) -> Iterator[Engine]:
    """docker.io of Debian."""
    host = f"unix://{directory}/docker.sock"
    argv = ["dockerd", "--data-root", f"{directory}/docker", "--exec-root", f"{directory}/docker-run", "-H", host]
    argv += ["-p", f"{directory}/docker.pid", "--storage-driver", "overlay2"]
    with _daemon(argv, directory / "docker.log") as process:
        command = ["docker", "-H", host]
        _until(lambda: subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0)
        version = subprocess.run(
            [*command, "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True, check=True
        )
        yield Engine(
            "docker",
            command,
            command,
            version.stdout.strip(),
            pids=lambda: _with_children(process.pid),
            keepers=lambda: _keepers("containerd-shim", f"{directory}/docker-run"),
        )


@contextmanager
def podman(directory: Path) -> Iterator[Engine]:
    """podman of Debian; on the runtime that this host allows, without limits that this host's root may not raise."""
    settings = directory / "podman-settings"
    settings.mkdir()
    # podman refuses a run root of more than 50 characters
    run_root = Path(f"/run/lmbench-{os.getpid()}")
    (settings / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/podman"\nrunroot = "{run_root}"\n'
    )
    runtime = shutil.which("runc") if Hierarchies.of_host().layout == "hybrid" else shutil.which("crun")
    wrapper = settings / "runtime"
    wrapper.write_text(_WRAPPER.format(runtime=runtime))
    wrapper.chmod(0o755)
    (settings / "containers.conf").write_text(
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "wrapped"\n'
        f'[engine.runtimes]\nwrapped = ["{wrapper}"]\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{settings}/networks"\n'
    )
    environment = {
        "CONTAINERS_STORAGE_CONF": str(settings / "storage.conf"),
        "CONTAINERS_CONF": str(settings / "containers.conf"),
    }
    version = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    engine = Engine(
        "podman",
        ["podman"],
        ["podman"],
        f"{version} ({Path(runtime or '').name})",
        environment,
        keepers=lambda: _keepers("conmon", str(run_root)),
    )
    try:
        yield engine
    finally:
        engine.run("rm", "-af")
        for point in ("podman/overlay", "podman"):
            subprocess.run(["umount", directory / point], check=False, capture_output=True)
        shutil.rmtree(run_root, ignore_errors=True)


ENGINES: Mapping[str, Callable[[Path], AbstractContextManager[Engine]]] = {
    "lamina": lamina,
    "docker": docker,
    "podman": podman,
}

_WRAPPER = r"""#!/bin/sh
previous= config=
for word in "$@"; do
    [ "$previous" = --bundle ] && config=$word/config.json
    [ "$previous" = --process ] && config=$word
    previous=$word
done
[ -n "$config" ] && sed -i -e 's/,"rlimits":\[[^]]*\]//' -e 's/"rlimits":\[[^]]*\],//' "$config"
exec {runtime} "$@"
"""


@contextmanager
def _daemon(argv: Sequence[str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log_path, "wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _until(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not answers():
        if time.monotonic() > deadline:
            raise TimeoutError("an engine does not start")
        time.sleep(0.05)


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += [int(n) for n in (task / "children").read_text().split()]
    return found


def _keepers(name: str, mark: str) -> list[int]:
    """The processes of a program that have something in their command line."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else [b""]
            if Path(os.fsdecode(words[0])).name.startswith(name) and any(mark.encode() in word for word in words):
                found.append(int(process.name))
    return found


def pss(pid: int) -> int:
    """What a process holds, in bytes, shared pages counted by their share; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
