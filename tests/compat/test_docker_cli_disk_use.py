"""What takes the disk, and removing what nobody uses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import Daemon


def use(daemon: Daemon) -> dict[str, Any]:
    import docker

    client = docker.APIClient(base_url=daemon.host, version="auto")
    found: dict[str, Any] = client.df()
    client.close()
    return found


def filled(daemon: Daemon, context: Path) -> None:
    """Images that share layers, a build cache, a volume, a read-write layer and a log, of megabytes each."""
    (context / "big").write_bytes(b"x" * 5_000_000)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big /big\nRUN head -c 3000000 /dev/zero > /zero\n")
    daemon.docker_ok("build", "-q", "-t", "large", context)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big /big\nRUN head -c 2000000 /dev/zero > /other\n")
    daemon.docker_ok("build", "-q", "-t", "larger", context)
    daemon.docker_ok("rmi", "larger")
    script = "head -c 4000000 /dev/urandom > /mine; head -c 6000000 /dev/urandom > /data/f; head -c 1000000 /dev/zero | tr '\\0' y"
    daemon.docker_ok("run", "--name", "writer", "-v", "kept:/data", "-v", "/nameless", "large", "sh", "-c", script)


def test_what_df_counts_is_what_du_says(own_daemon: Daemon, context: Path) -> None:
    filled(own_daemon, context)
    found = use(own_daemon)
    counted = found["LayersSize"] + sum(c["SizeRw"] for c in found["Containers"])
    counted += sum(v["UsageData"]["Size"] for v in found["Volumes"])
    counted += sum(item["Size"] for item in found["BuildCache"] if not item["Shared"])
    argv = ["du", "-sb", "--exclude=state.db*", "--exclude=events*", str(own_daemon.root)]
    on_disk = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[0])
    assert abs(counted - on_disk) < 0.03 * on_disk
    volume = next(v for v in found["Volumes"] if v["Name"] == "kept")
    assert volume["UsageData"] == {"Size": 6_000_000, "RefCount": 1}
    assert 4_000_000 + 1_000_000 < found["Containers"][0]["SizeRw"] < 5_300_000
    table = own_daemon.docker_ok("system", "df")
    assert [line.split()[0] for line in table.splitlines()] == ["TYPE", "Images", "Containers", "Local", "Build"]


def test_kinds_that_are_not_asked_for_are_not_measured(daemon: Daemon) -> None:
    import docker

    client = docker.APIClient(base_url=daemon.host, version="auto")
    found = client.get(f"{client.base_url}/v1.47/system/df", params={"type": ["volume", "container"]}).json()
    assert found["Images"] is None
    assert found["BuildCache"] is None
    assert isinstance(found["Volumes"], list)
    assert client.get(f"{client.base_url}/v1.47/system/df", params={"type": "moon"}).status_code == 400
    client.close()


@pytest.mark.parametrize("command", ["docker", "lamina"])
def test_system_prune_removes_what_nobody_uses(own_daemon: Daemon, context: Path, command: str) -> None:
    filled(own_daemon, context)
    own_daemon.docker_ok("run", "-d", "--name", "staying", "busybox", "sleep", "1000")
    before = use(own_daemon)
    if command == "lamina":
        told = own_daemon.lamina_ok("system", "prune", "-a", "--volumes", "--dry-run")
        assert use(own_daemon)["LayersSize"] == before["LayersSize"]
    run = own_daemon.docker_ok if command == "docker" else own_daemon.lamina_ok
    out = run("system", "prune", "-a", "-f", "--volumes")
    after = use(own_daemon)
    assert [c["Names"] for c in after["Containers"]] == [["/staying"]]
    assert [i["RepoTags"] for i in after["Images"]] == [["busybox:latest"]]
    assert [v["Name"] for v in after["Volumes"]] == ["kept"]
    assert after["BuildCache"] == []
    assert "Deleted Containers:" in out
    assert "Deleted Volumes:" in out
    if command == "lamina":
        gone = {c["Id"] for c in before["Containers"]} - {c["Id"] for c in after["Containers"]}
        assert all(container_id in told for container_id in gone)
        assert own_daemon.lamina("volume", "prune", "-f").out == "Total reclaimed space: 0B\n"
    assert "kept" in run("volume", "prune", "-a", "-f")
    assert use(own_daemon)["Volumes"] == []


def test_prunes_are_told_as_events(own_daemon: Daemon) -> None:
    import time

    began = str(time.time() - 1)
    own_daemon.docker_ok("system", "prune", "-f", "--volumes")
    argv = [
        "events",
        "--since",
        began,
        "--until",
        str(time.time()),
        "--filter",
        "event=prune",
        "--format",
        "{{json .}}",
    ]
    told = [json.loads(line) for line in own_daemon.docker_ok(*argv).splitlines()]
    assert {event["Type"] for event in told} == {"container", "network", "volume", "image", "builder"}
    assert all(event["Actor"]["Attributes"]["reclaimed"].isdigit() for event in told)


@pytest.mark.parametrize(
    "argv",
    [
        ["system", "prune"],
        ["system", "prune", "-a", "--volumes"],
        ["system", "prune", "--filter", "label=x"],
        ["volume", "prune"],
        ["volume", "prune", "-a"],
        ["network", "prune"],
        ["network", "prune", "-f"],
        ["volume", "prune", "-f"],
        ["system", "prune", "--volumes", "--filter", "until=1h"],
    ],
)
def test_lamina_asks_and_answers_as_docker(daemon: Daemon, argv: list[str]) -> None:
    if argv[-1] == "-f":
        daemon.docker_ok(*argv)
    docker, lamina = daemon.docker(*argv, data=b"n\n"), daemon.lamina(*argv, data=b"n\n")
    assert lamina.out.rstrip() == docker.out.rstrip()
    assert (lamina.code == 0) == (docker.code == 0)
