"""A real daemon on roots, bridge, table and socket of its own, and the peers that tests talk to it with.

One daemon serves a whole session; tests that kill daemons start their own. After the session nothing may be left: no process, mount,
interface, rule or control group.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import registries
from lamina.linux import mount
from lamina.linux.cgroups import Hierarchies
from named import Names

collect_ignore = [] if os.environ.get("LAMINA_SOAK") else ["soak"]  # ``make soak``
ROOT = Path(__file__).parent.parent
LAMINA = Path(sys.executable).with_name("lamina")
START_TIMEOUT_S = 20
COMMAND_TIMEOUT_S = 60
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nbob:x:1000:\nextra:x:77:bob\n",
}


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Daemon:
    """A lamina daemon below a directory."""

    base: Path
    options: Sequence[str] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(3))
    process: subprocess.Popen[bytes] | None = None
    command_timeout_s: float = COMMAND_TIMEOUT_S
    network_ids: Sequence[str] = ()

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def run_root(self) -> Path:
        return self.base / "run"

    @property
    def socket_path(self) -> Path:
        return self.base / "s.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def bridge(self) -> str:
        return f"lt{self.token}"

    @property
    def table(self) -> str:
        return f"lamina_test_{self.token}"

    @property
    def cgroup(self) -> str:
        return f"/lamina_test_{self.token}"

    @property
    def log(self) -> str:
        return (self.base / "daemon.log").read_text()

    def start(self) -> None:
        octet = int(self.token, 16) % 250
        argv = [str(LAMINA), "daemon", "--root", str(self.root), "--run-root", str(self.run_root), "--host", self.host]
        argv += ["--bridge", self.bridge, "--bip", f"10.231.{octet}.1/24", "--nft-table", self.table]
        argv += ["--cgroup-parent", self.cgroup, *self.options]
        with open(self.base / "daemon.log", "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"the daemon does not answer:\n{self.log}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self.socket_path))
            return True
        return False

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def _run(self, argv: Sequence[str], data: bytes | None, cwd: Path | None, env: Mapping[str, str]) -> Result:
        environment = {**os.environ, "LAMINA_HOST": self.host, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0", **env}
        done = subprocess.run(
            argv,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=self.command_timeout_s,
            cwd=cwd,
            env=environment,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def docker(
        self,
        *args: str | Path,
        data: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the real docker command line against this daemon."""
        return self._run(["docker", *map(str, args)], data, cwd, env or {})

    def lamina(
        self,
        *args: str | Path,
        data: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the lamina command line against this daemon."""
        return self._run([str(LAMINA), *map(str, args)], data, cwd, env or {})

    def docker_ok(self, *args: str | Path, data: bytes | None = None) -> str:
        """As ``docker``, and the command must succeed; returns its output."""
        result = self.docker(*args, data=data)
        assert result.code == 0, f"docker {args}: {result.code}\n{result.out}\n{result.err}\n{self.log[-2000:]}"
        return result.out.strip()

    def lamina_ok(self, *args: str | Path, data: bytes | None = None) -> str:
        """As ``lamina``, and the command must succeed; returns its output."""
        result = self.lamina(*args, data=data)
        assert result.code == 0, f"lamina {args}: {result.code}\n{result.out}\n{result.err}\n{self.log[-2000:]}"
        return result.out.strip()

    def discard(self) -> None:
        """End the daemon with its containers, and remove what it had."""
        if self.process is not None and self.process.poll() is None:
            ids = self.docker("ps", "-aq").out.split()
            if ids:
                self.docker("rm", "-fv", *ids)
            self.network_ids = self.docker("network", "ls", "-q", "--filter", "type=custom").out.split()
            self.stop()
        self.last_log = self.log
        mount.unmount_all(str(self.base))
        shutil.rmtree(self.base, ignore_errors=True)


def leftovers(daemon: Daemon) -> list[str]:
    """What a daemon that was discarded left on the host."""
    found = [f"mount {point}" for point in mount.mountpoints(str(daemon.base))]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    own = [daemon.bridge, *(f"{prefix}-{network_id}" for network_id in daemon.network_ids for prefix in ("br", "dm"))]
    found += [f"interface {line}" for line in links.splitlines() if any(name in line for name in own)]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    found += [f"table {line}" for line in tables.splitlines() if daemon.table in line]
    found += [f"control group {d}" for d in Hierarchies.of_host().directories(daemon.cgroup) if d.exists()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(daemon.base) in text and "pytest" not in text:
                found.append(f"process {text}")
    return found


@pytest.fixture(scope="session")
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and a container runtime")


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system's tar with busybox under all its names."""
    source = shutil.which("busybox")
    assert source is not None, "busybox-static is not installed (make setup)"
    names = subprocess.run([source, "--list"], capture_output=True, text=True, check=True).stdout.split()
    path = tmp_path_factory.mktemp("busybox") / "busybox.tar"
    with tarfile.open(path, "w") as tar:
        for directory in ("bin", "etc", "root", "tmp"):
            header = tarfile.TarInfo(directory)
            header.type, header.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(header)
        tar.add(source, "bin/busybox", filter=_as_root)
        for name in names:
            if name != "busybox":
                header = tarfile.TarInfo(f"bin/{name}")
                header.type, header.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(header)
        for name, text in _FILES.items():
            (path.parent / "text").write_text(text)
            tar.add(path.parent / "text", name, filter=_as_root)
    return path


def _as_root(header: tarfile.TarInfo) -> tarfile.TarInfo:
    header.uid = header.gid = 0
    header.uname = header.gname = ""
    return header


@contextmanager
def serving(base: Path, busybox_tar: Path, options: Sequence[str] = ()) -> Iterator[Daemon]:
    """A daemon below a directory, with the image ``busybox``. After it nothing may be left, whoever killed it."""
    base.mkdir(exist_ok=True)
    served = Daemon(base, options)
    try:
        served.start()
        served.docker_ok("import", busybox_tar, "busybox")
        yield served
    finally:
        if served.process is not None and served.process.poll() is not None:
            served.start()
        served.discard()
    assert leftovers(served) == [], served.last_log[-4000:]


@pytest.fixture(scope="session")
def daemon(needs_root: None, tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path) -> Iterator[Daemon]:
    """The session's daemon."""
    with serving(tmp_path_factory.mktemp("lamina"), busybox_tar) as served:
        yield served


@pytest.fixture
def own_daemon(needs_root: None, tmp_path: Path, busybox_tar: Path) -> Iterator[Daemon]:
    """A daemon for one test, which may kill and start it as it likes."""
    with serving(tmp_path, busybox_tar) as served:
        yield served


@pytest.fixture
def names(daemon: Daemon) -> Iterator[Names]:
    """Names for networks and containers, which are removed in the end."""
    made = Names(daemon)
    yield made
    made.remove()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty directory to build from."""
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """Debian's docker-registry, which lets everybody in."""
    with registries.serving(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture
def podman_root() -> Iterator[Path]:
    """A directory with a short name, which podman asks for."""
    with tempfile.TemporaryDirectory(prefix="lp", dir="/tmp") as directory:
        yield Path(directory)
