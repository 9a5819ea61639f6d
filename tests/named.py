"""Networks and containers under names that nothing else has, and looks at them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Daemon


class Names:
    """Names that nothing else has, and what is made by them, to be removed."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._stem = os.urandom(3).hex()

    def __call__(self, word: str) -> str:
        return f"{word}-{self._stem}"

    def network(self, word: str, *options: str) -> str:
        self.daemon.docker_ok("network", "create", *options, self(word))
        return self(word)

    def sleeper(self, word: str, *options: str) -> str:
        self.daemon.docker_ok("run", "-d", "--name", self(word), *options, "busybox", "sleep", "1000")
        return self(word)

    def remove(self) -> None:
        ids = self.daemon.docker("ps", "-aq", "--filter", f"name={self._stem}").out.split()
        self.daemon.docker("rm", "-fv", *ids)
        for name in self.daemon.docker(
            "network", "ls", "--format", "{{.Name}}", "--filter", f"name={self._stem}"
        ).out.split():
            self.daemon.docker_ok("network", "rm", name)


def inspected(daemon: Daemon, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker_ok(kind, "inspect", name))[0]
    return found


def inside(daemon: Daemon, container: str, script: str) -> str:
    return daemon.docker_ok("exec", container, "sh", "-c", script)


def reaches(daemon: Daemon, container: str, target: str) -> bool:
    return daemon.docker("exec", container, "ping", "-c", "1", "-W", "1", target).code == 0


def resolver_pid(daemon: Daemon) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"lamina.resolver" in words and os.fsencode(daemon.run_root / "resolver.sock") in words:
            return int(path.parent.name)
    return 0
