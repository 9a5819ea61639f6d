"""Devices by their vendor's description (CDI)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon

DIRECTORY = Path("/var/run/cdi")


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[str]:
    """A vendor of a name that nobody has, whose description is there for the test's length."""
    kind = f"test-{os.urandom(4).hex()}.example/thing"
    (tmp_path / "library").write_text("library")
    edits = {
        "env": ["THING=1"],
        "deviceNodes": [{"path": "/dev/thing0", "hostPath": "/dev/null"}],
        "mounts": [{"hostPath": str(tmp_path / "library"), "containerPath": "/opt/library", "options": ["ro", "bind"]}],
    }
    common = {"env": ["VENDOR=here"], "additionalGids": [4711]}
    document = {
        "cdiVersion": "0.6.0",
        "kind": kind,
        "devices": [{"name": "zero", "containerEdits": edits}, {"name": "bare", "containerEdits": {"env": ["BARE=1"]}}],
        "containerEdits": common,
    }
    made = not DIRECTORY.exists()
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{kind.partition('.')[0]}.json"
    path.write_text(json.dumps(document))
    yield kind
    path.unlink(missing_ok=True)
    path.with_suffix(".yaml").unlink(missing_ok=True)
    if made:
        DIRECTORY.rmdir()


def test_a_device_brings_what_its_vendor_says(daemon: Daemon, vendor: str) -> None:
    script = "echo $THING $VENDOR; ls -l /dev/thing0 | cut -c1; cat /opt/library; echo; id -G; echo x > /dev/thing0 && echo written"
    out = daemon.docker_ok("run", "--rm", "--device", f"{vendor}=zero", "busybox", "sh", "-c", script).splitlines()
    assert out[:3] == ["1 here", "c", "library"]
    assert "4711" in out[3].split()
    assert out[4] == "written"


def test_a_description_may_be_yaml(daemon: Daemon, vendor: str) -> None:
    path = DIRECTORY / f"{vendor.partition('.')[0]}.json"
    path.unlink()
    path.with_suffix(".yaml").write_text(
        f"cdiVersion: 0.6.0\nkind: {vendor}\ndevices:\n- name: y\n  containerEdits:\n    env: [FROM=yaml]\n"
    )
    assert daemon.docker_ok("run", "--rm", "--device", f"{vendor}=y", "busybox", "sh", "-c", "echo $FROM") == "yaml"


def test_a_device_that_nobody_describes_fails_the_start(daemon: Daemon, vendor: str) -> None:
    result = daemon.docker("run", "--rm", "--device", f"{vendor}=none", "busybox", "true")
    assert result.code == 125
    assert f"CDI device injection failed: unresolvable CDI devices {vendor}=none" in result.err


def test_gpus_without_a_description_are_refused(daemon: Daemon) -> None:
    result = daemon.docker("create", "--gpus", "all", "busybox", "true")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in result.err
