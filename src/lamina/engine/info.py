"""What this host and this engine are: the facts behind ``version`` and ``info``."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def lamina_version() -> str:
    """The version of the installed package."""
    try:
        return version("lamina")
    except PackageNotFoundError:
        return "0"


@dataclass(frozen=True)
class HostFacts:
    """What does not change while a daemon runs. Memory in bytes."""

    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    name: str
    cpus: int
    memory: int


def host_facts() -> HostFacts:
    """Look at the host."""
    uname = os.uname()
    release = _os_release()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return HostFacts(
        uname.release,
        release.get("PRETTY_NAME", platform.system()),
        release.get("VERSION_ID", ""),
        uname.machine,
        uname.nodename,
        os.cpu_count() or 1,
        memory,
    )


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip().strip('"') for key, _, value in pairs}
