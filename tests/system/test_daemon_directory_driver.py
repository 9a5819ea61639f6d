"""A daemon on the driver that extracts layers does the same main job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Daemon, leftovers


@pytest.fixture
def extracting(needs_root: None, tmp_path: Path, busybox_tar: Path) -> Iterator[Daemon]:
    served = Daemon(tmp_path, options=("--storage-driver", "directory"))
    try:
        served.start()
        served.docker_ok("import", busybox_tar, "busybox")
        yield served
    finally:
        served.discard()
    assert leftovers(served) == []


def test_import_build_run_save_and_remove(extracting: Daemon, tmp_path: Path) -> None:
    assert json.loads(extracting.docker_ok("info", "--format", "{{json .Driver}}")) == "directory"
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN rm /etc/group && echo new > /etc/new\nCOPY Dockerfile /d/\n")
    extracting.docker_ok("build", "-t", "built", context)
    assert extracting.docker_ok("run", "--rm", "built", "sh", "-c", "cat /etc/new; ls /etc /d") == (
        "new\n/d:\nDockerfile\n\n/etc:\nhostname\nhosts\nmtab\nnew\npasswd\nresolv.conf"
    )
    extracting.docker_ok("save", "-o", tmp_path / "b.tar", "built")
    extracting.docker_ok("rmi", "built")
    assert "Loaded image: built" in extracting.docker_ok("load", "-i", tmp_path / "b.tar")
    assert extracting.docker_ok("run", "--rm", "built", "cat", "/etc/new") == "new"
    assert extracting.lamina_ok("verify", "built").endswith("built: ok")
