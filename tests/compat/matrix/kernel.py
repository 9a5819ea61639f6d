"""What this host's kernel has, and where it shows a container's limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.linux.cgroups import Hierarchies


def is_v2() -> bool:
    """Whether the controllers are those of the second version."""
    return Hierarchies.of_host().layout == "v2"


def limit(controller: str, v1: str, v2: str) -> str:
    """A shell's command that reads a limit, of whichever version of control groups this host has."""
    return f"cat /sys/fs/cgroup/{v2}" if is_v2() else f"cat /sys/fs/cgroup/{controller}/{v1}"


def has_weights() -> bool:
    """Whether the kernel shares a block device's time by weights."""
    return is_v2() or Path("/sys/fs/cgroup/blkio/blkio.weight").exists()


def block_device() -> tuple[str, str]:
    """A whole block device of this host, with its numbers; the test is skipped without one."""
    for found in sorted(Path("/sys/block").glob("[vsnx][dv]*")):
        node = Path("/dev") / found.name
        if node.is_block_device():
            number = node.stat().st_rdev
            return str(node), f"{os.major(number)}:{os.minor(number)}"
    pytest.skip("this host has no block device")
