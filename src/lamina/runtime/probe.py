"""Which runtime, monitor and init program this host has, and which of the runtimes works with its control groups."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from lamina.errors import Unavailable
from lamina.linux.cgroups import Hierarchies, Layout

_INSTALL = "install it, for example: apt-get install {package}"


class ToolMissing(Unavailable):
    """A program that lamina stands on is not installed."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is not installed: {_INSTALL.format(package=package)}")
        self.tool = tool
        self.package = package


@dataclass(frozen=True)
class Tool:
    """An installed program."""

    name: str
    path: str
    version: str


@dataclass(frozen=True)
class Tools:
    """What containers are run with; ``init`` is None if the host has none."""

    runtime: Tool
    monitor: Tool
    init: Tool | None


def find_tools(wanted_runtime: str | None = None) -> Tools:
    """The programs to use; *wanted_runtime* is a name or a path. Raises ToolMissing. Blocking (asks for versions)."""
    monitor = find_tool("conmon")
    if monitor is None:
        raise ToolMissing("conmon", "conmon")
    names = [wanted_runtime] if wanted_runtime else candidates(Hierarchies.of_host().layout)
    for name in names:
        runtime = find_tool(name)
        if runtime is not None:
            return Tools(runtime, monitor, _find_init())
    raise ToolMissing(names[0], "runc")


def find_others(wanted: Mapping[str, str], default: Tool) -> dict[str, Tool]:
    """Further runtimes by name: those that are *wanted* (name to path), and those that are known to work here. Raises ToolMissing."""
    found: dict[str, Tool] = {}
    layout = Hierarchies.of_host().layout
    for name in candidates(layout):
        if name != default.name and not (name == "crun" and layout == "hybrid"):
            tool = find_tool(name)
            if tool is not None:
                found[name] = tool
    for name, path in wanted.items():
        tool = find_tool(path)
        if tool is None:
            raise ToolMissing(path, name)
        found[name] = Tool(name, tool.path, tool.version)
    return found


def candidates(layout: Layout) -> list[str]:
    """Runtimes in the order of preference: crun starts quicker, but refuses controllers on v1 beside a cgroup2."""
    return ["runc", "crun"] if layout == "hybrid" else ["crun", "runc"]


def find_tool(name: str) -> Tool | None:
    """An installed program and its version."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return Tool(name.rpartition("/")[2], path, match.group() if match else "unknown")


def _find_init() -> Tool | None:
    return next((t for t in map(find_tool, ("docker-init", "catatonit", "tini")) if t is not None), None)
