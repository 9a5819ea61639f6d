"""Registries on loopback ports and directories of their own: Debian's docker-registry, as a peer, and lamina's."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import pytest

from lamina.oci.digest import Digest

START_TIMEOUT_S = 20
LAMINA = str(Path(sys.executable).with_name("lamina"))
USER, PASSWORD = "somebody", "pass:word"


@dataclass(frozen=True)
class Registry:
    """A registry that runs."""

    host: str
    root: Path

    def blobs(self) -> set[str]:
        """The digests of what it stores, in hexadecimal."""
        return {path.parent.name for path in self.root.glob("docker/registry/v2/blobs/sha256/*/*/data")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    directory: Path, *, htpasswd: str = "", more: str = "", tls: Path | None = None, address: str = "127.0.0.1"
) -> Iterator[Registry]:
    """A registry on *directory*; with *htpasswd*, the lines of such a file, it wants to know who asks.

    *more* are lines for its configuration; *tls* is a file with a certificate and its key.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (make setup)")
    directory.mkdir(parents=True, exist_ok=True)
    host = f"{address}:{free_port()}"
    lines = ["version: 0.1", "log: {level: error}", "storage:", f"  filesystem: {{rootdirectory: {directory}/data}}"]
    secure = f", tls: {{certificate: '{tls}', key: '{tls}'}}" if tls else ""
    lines += ["  delete: {enabled: true}", f"http: {{addr: '{host}'{secure}}}", more]
    if htpasswd:
        (directory / "htpasswd").write_text(htpasswd)
        lines += [f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}"]
    (directory / "config.yml").write_text("\n".join(lines) + "\n")
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(directory / "config.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(host):
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.02)
        yield Registry(host, directory / "data")
    finally:
        process.terminate()
        process.wait(10)


def _answers(host: str) -> bool:
    with suppress(OSError), socket.create_connection((host.rpartition(":")[0], int(host.rpartition(":")[2])), 1):
        return True
    return False


def htpasswd_line() -> str:
    """What lets USER in; hashed anew, as bcrypt is what docker-registry takes."""
    return f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n"


def docker_config(directory: Path, host: str) -> Path:
    """A directory whose config.json knows USER at a registry; for DOCKER_CONFIG."""
    directory.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    os.chmod(directory / "config.json", 0o600)
    return directory


@dataclass
class OwnRegistry:
    """``lamina registry serve`` on a directory of its own, which a test may kill and start again on the same port."""

    directory: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        argv = [LAMINA, "registry", "serve", "--root", str(self.root), "--listen", self.host, *self.options]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.host):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"the registry does not answer:\n{self.log}"
            time.sleep(0.02)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def blobs(self) -> set[str]:
        """The digests of what it stores, in hexadecimal."""
        return {path.name for path in self.root.glob("blobs/*/*/*")}


@contextmanager
def serving_own(directory: Path, *options: str) -> Iterator[OwnRegistry]:
    """A registry of lamina's own."""
    made = OwnRegistry(directory, options)
    made.start()
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.stop()


def put_manifest(host: str, path: str, media_type: str, document: object) -> Digest:
    """Put a manifest into a registry, at ``REPOSITORY/manifests/REFERENCE``; returns its digest."""
    data = json.dumps(document).encode()
    request = urllib.request.Request(f"http://{host}/v2/{path}", data, {"Content-Type": media_type}, method="PUT")
    with urllib.request.urlopen(request, timeout=20):
        return Digest.of(data)
