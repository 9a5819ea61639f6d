"""What builds keep for later ones: told by df and du, removed by prune, and never from under a build."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import LAMINA, Daemon

STAGES = "FROM busybox AS tool\nRUN head -c 3000000 /dev/urandom > /big\nFROM busybox\nCOPY --from=tool /bin/sh /sh\n"


def kept(daemon: Daemon) -> list[dict[str, Any]]:
    out = daemon.docker_ok("system", "df", "--format", "{{json .BuildCache}}", "-v")
    items: list[dict[str, Any]] = json.loads(out)
    return items


def described(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {item["Description"]: item for item in kept(daemon)}


def test_df_tells_of_steps_and_mounts(own_daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text(STAGES + "RUN --mount=type=cache,target=/cache echo 1 > /cache/file\n")
    own_daemon.lamina_ok("build", "-t", "t", context)
    own_daemon.lamina_ok("build", "-t", "t", context)
    items = described(own_daemon)
    assert items["cached mount /cache"]["CacheType"] == "exec.cachemount"
    tool, copy = (next(item for d, item in items.items() if d.startswith(start)) for start in ("RUN /bin", "COPY"))
    assert (tool["Shared"], tool["InUse"], tool["UsageCount"]) == ("false", "false", "2"), tool
    assert copy["Shared"] == "true", "the layer is the built image's"
    assert "cached mount /cache" in own_daemon.lamina_ok("builder", "du")
    assert "Type:           exec.cachemount" in own_daemon.lamina_ok("builder", "du", "--verbose")
    assert "Build Cache" in own_daemon.lamina_ok("system", "df")


def test_prune_frees_what_no_image_has_and_all_forgets_the_rest(own_daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text(STAGES + "RUN --mount=type=cache,target=/cache echo 1 > /cache/file\n")
    own_daemon.docker_ok("build", "-t", "t", context)
    assert own_daemon.docker_ok("builder", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B"
    out = own_daemon.docker_ok("builder", "prune", "-f")
    assert "Deleted build cache objects:" in out
    assert out.splitlines()[-1].startswith("Total reclaimed space: 3."), out
    assert [item["Shared"] for item in kept(own_daemon)] == ["true", "true"]
    assert own_daemon.docker_ok("run", "--rm", "t", "/sh", "-c", "echo fine") == "fine"
    assert own_daemon.docker_ok("build", "-t", "t", context).count("Using cache") == 2
    assert "Total reclaimed space: 3." in own_daemon.lamina_ok("builder", "prune", "-af")
    assert kept(own_daemon) == []
    assert own_daemon.docker_ok("run", "--rm", "t", "/sh", "-c", "echo fine") == "fine"


def test_prune_stops_when_little_enough_is_left(own_daemon: Daemon, context: Path) -> None:
    for number in range(3):
        stages = STAGES.replace("tool", f"tool{number}").replace("3000000", str(3000000 + number))
        (context / "Dockerfile").write_text(stages)
        own_daemon.docker_ok("build", "-t", "t", context)
    own_daemon.lamina_ok("builder", "prune", "-f", "--max-used-space", "7m")
    left = [d for d, item in described(own_daemon).items() if "head" in d and item["Shared"] == "false"]
    assert len(left) == 2
    assert not any("3000000" in text for text in left), "the longest unused went"


def test_a_step_whose_layer_was_removed_is_forgotten(own_daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo gone > /gone\n")
    own_daemon.docker_ok("build", "-t", "t", context)
    own_daemon.docker_ok("rmi", "t")
    assert kept(own_daemon) == []


def test_a_build_that_runs_loses_nothing(own_daemon: Daemon, context: Path) -> None:
    (context / "f").write_text("f")
    (context / "Dockerfile").write_text(
        "FROM busybox AS tool\nRUN echo early > /early\n"
        "RUN --mount=type=cache,target=/cache echo mine > /cache/file; touch /cache/began; "
        "while [ ! -e /cache/go ]; do sleep 0.1; done; cat /cache/file > /late\n"
        "FROM busybox\nCOPY --from=tool /early /late /\nCOPY f /f\n"
    )
    mounts = own_daemon.root / "build" / "mounts"
    argv = [str(LAMINA), "-H", own_daemon.host, "build", "-t", "t", str(context)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + 30
        while not list(mounts.glob("*/began")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        own_daemon.docker_ok("builder", "prune", "-af")
        own_daemon.docker_ok("image", "prune", "-f")
        (mounts / next(mounts.glob("*/began")).parent / "go").touch()
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0, out
    assert own_daemon.docker_ok("run", "--rm", "t", "cat", "/early", "/late") == "early\nmine"


@pytest.mark.parametrize("query", ["filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", "max-used-space=x"])
def test_a_prune_that_makes_no_sense_is_refused(daemon: Daemon, query: str) -> None:
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(daemon.socket_path)]
    url = f"http://d/v1.51/build/prune?{query}"
    assert subprocess.run([*argv, "-X", "POST", url], capture_output=True, check=True).stdout == b"400"
