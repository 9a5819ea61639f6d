"""Control groups: which of the three layouts a host has, and the files of one group.

v1: a hierarchy a controller. Hybrid: v1 controllers with a cgroup2 mounted beside them that has few or none. v2: one hierarchy for
all (cgroups(7)). Nothing else in lamina knows where a group's files lie.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

Layout = Literal["v1", "hybrid", "v2"]
_KILL_ROUNDS = 200


@dataclass(frozen=True)
class Hierarchies:
    """Where cgroup file systems are mounted: v1 controllers by name, and the cgroup2 mount if there is one."""

    controllers: dict[str, Path]
    unified: Path | None

    @classmethod
    def of_host(cls) -> Hierarchies:
        """Read the mounts of this process's namespace."""
        controllers: dict[str, Path] = {}
        unified = None
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields, _, tail = line.partition(" - ")
                kind, _, options = tail.strip().split(" ", 2)
                point = Path(fields.split(" ")[4])
                if kind == "cgroup2":
                    unified = unified or point
                elif kind == "cgroup":
                    for option in options.split(","):
                        controllers.setdefault(option.removeprefix("name="), point)
        return cls({k: v for k, v in controllers.items() if k not in ("rw", "ro")}, unified)

    @cached_property
    def layout(self) -> Layout:
        """v2 if no controller is on a v1 hierarchy; hybrid if both kinds are mounted."""
        real = [name for name in self.controllers if name != "systemd"]
        if not real:
            return "v2"
        return "hybrid" if self.unified else "v1"

    def directories(self, group: str) -> list[Path]:
        """Every directory that a group has: one on v2, one a hierarchy otherwise."""
        name = group.strip("/")
        roots = list(dict.fromkeys(self.controllers.values()))
        if self.unified is not None:
            roots.append(self.unified)
        return [root / name for root in roots]

    def directory(self, group: str, controller: str) -> Path | None:
        """Where a controller's files of a group lie, or None if this host lacks the controller."""
        root = self.unified if self.layout == "v2" else self.controllers.get(controller)
        return root / group.strip("/") if root else None

    def enter(self, group: str, pid: int) -> None:
        """Move a process into a group, made if need be, of the hierarchies in which a service manager keeps its own. Raises OSError."""
        name = group.strip("/")
        for root in filter(None, (self.controllers.get("systemd"), self.unified)):
            directory = root / name
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "cgroup.procs").write_text(str(pid))

    def processes(self, group: str) -> list[int]:
        """The processes in a group and in the groups below it."""
        found: set[int] = set()
        for directory in self.directories(group):
            for path, _, files in os.walk(directory):
                if "cgroup.procs" in files:
                    with suppress(OSError):
                        found.update(int(n) for n in Path(path, "cgroup.procs").read_text().split())
        return sorted(found)

    def kill(self, group: str) -> None:
        """Kill every process in a group and in the groups below it, until there is none or they make more than can be killed."""
        for _ in range(_KILL_ROUNDS):
            pids = self.processes(group)
            if not pids:
                return
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def freeze(self, group: str, *, frozen: bool, timeout_s: float = 10.0) -> None:
        """Stop or go on with every process of a group, and return when that is so.

        A group that does not come to a stop in time goes on. Raises OSError, also if the host has no freezer. Blocking.
        """
        if self.layout == "v2":
            self._write_freezer(group, "cgroup.freeze", "1" if frozen else "0")
        else:
            self._write_freezer(group, "freezer.state", "FROZEN" if frozen else "THAWED")
        deadline = time.monotonic() + timeout_s
        while self.is_frozen(group) != frozen:
            if time.monotonic() > deadline:
                if frozen:
                    self.freeze(group, frozen=False)
                raise TimeoutError(f"the processes of {group} do not come to a stop")
            time.sleep(0.002)

    def is_frozen(self, group: str) -> bool:
        """Whether a group's processes are stopped; no group is. Blocking."""
        directory = self.directory(group, "freezer")
        if directory is None:
            return False
        try:
            if self.layout == "v2":
                return "frozen 1" in (directory / "cgroup.events").read_text()
            return (directory / "freezer.state").read_text().strip() == "FROZEN"
        except OSError:
            return False

    def _write_freezer(self, group: str, name: str, value: str) -> None:
        directory = self.directory(group, "freezer")
        if directory is None:
            raise OSError(errno.EOPNOTSUPP, "this host has no freezer for control groups")
        (directory / name).write_text(value)

    def remove(self, group: str, *, timeout_s: float = 5.0) -> None:
        """Remove an empty group with those below it; one that is not there is no error.

        The kernel answers EBUSY for a moment after the last process has gone, so this tries for up to *timeout_s*.
        Raises OSError if processes remain; what could be removed in other hierarchies is gone then.
        """
        deadline = time.monotonic() + timeout_s
        failed: OSError | None = None
        for directory in self.directories(group):
            with suppress(OSError):  # it has groups below it, or the kernel holds it still
                os.rmdir(directory)
                continue
            for path, _, _ in os.walk(directory, topdown=False):
                try:
                    _remove_directory(path, deadline)
                except OSError as error:
                    failed = error
        if failed is not None:
            raise failed

    def remove_if_empty(self, group: str, *, timeout_s: float = 2.0) -> None:
        """Remove a group that has no groups below it; one with processes stays. As ``remove``, it tries for a while."""
        deadline = time.monotonic() + timeout_s
        for directory in self.directories(group):
            with suppress(OSError):
                if not any(entry.is_dir() for entry in directory.iterdir()):
                    _remove_directory(str(directory), deadline)


def is_managed() -> bool:
    """Whether a service manager started this process in a group that it ends as a whole (sd_booted(3), systemd.kill(5))."""
    if not Path("/run/systemd/system").is_dir():
        return False
    groups = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith(("0::", "1:name=systemd:")) and line.endswith(".service") for line in groups)


def _remove_directory(path: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
