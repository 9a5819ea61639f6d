"""Control groups on the real hierarchies, in groups of a test's own."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.linux.cgroups import Hierarchies

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")


@pytest.fixture
def group() -> Iterator[str]:
    name = f"/lamina_unit_{secrets.token_hex(3)}"
    yield name
    Hierarchies.of_host().kill(name)
    Hierarchies.of_host().remove(name)


def test_a_process_that_enters_a_group_is_found_killed_and_leaves_it_to_be_removed(group: str) -> None:
    hierarchies = Hierarchies.of_host()
    if not (hierarchies.unified or "systemd" in hierarchies.controllers):
        pytest.skip("no service manager could keep its processes here")
    with subprocess.Popen(["sleep", "600"]) as process:
        hierarchies.enter(f"{group}/conmon", process.pid)
        assert group in Path(f"/proc/{process.pid}/cgroup").read_text()
        assert hierarchies.processes(group) == [process.pid]
        hierarchies.kill(group)
        assert process.wait() == -9
    hierarchies.remove(group)
    assert not any(directory.exists() for directory in hierarchies.directories(group))
