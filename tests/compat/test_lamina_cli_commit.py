"""``lamina commit``, ``diff``, ``top`` and ``update``: docker's answers for the same container."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conftest import Daemon, Result


@pytest.fixture(scope="module")
def container(daemon: Daemon) -> Iterator[str]:
    """A container that runs, and has changed files."""
    script = "mkdir /n; echo x > /n/x; rm /etc/group; echo y >> /etc/passwd; exec sleep 1000"
    daemon.docker_ok("run", "-d", "--name", "changing", "-e", "A=1", "busybox", "sh", "-c", script)
    daemon.docker_ok("create", "--name", "not-started", "busybox", "true")
    while "sleep" not in daemon.docker_ok("top", "changing", "-o", "pid,comm"):
        pass
    yield "changing"
    daemon.docker_ok("rm", "-f", "changing", "not-started")


def said(result: Result) -> Result:
    return Result(result.code, result.out, result.err.replace("lamina", "docker").replace("\nSee ", "\nRun "))


_DIGEST = "x@sha256:" + "0" * 64
_ALIKE = (
    ["diff", "changing"],
    ["diff", "not-started"],
    ["diff", "nothing"],
    ["diff", ""],
    ["diff"],
    ["diff", "changing", "x"],
    ["container", "diff", "changing"],
    ["top", "changing", "-o", "pid,args"],
    ["top", "changing", "-e", "-o", "pid,ppid,user,args"],
    ["top", "changing", "-o", "bogus"],
    ["top", "not-started"],
    ["top", "nothing"],
    ["top"],
    ["top", "--bogus", "changing"],
    ["commit", "nothing", "x"],
    ["commit", "changing", "Up/Case"],
    ["commit", "changing", "a:b:c"],
    ["commit", "changing", _DIGEST],
    ["commit", "-c", "RUN x", "changing", "x"],
    ["commit", "changing", "x", "-c", "CMD x"],
    ["commit"],
    ["update", "changing"],
    ["update", "--memory", "100m", "--memory-swap", "200m", "changing", "nothing", "not-started", "none"],
    ["update", "--memory", "200m", "--memory-swap", "100m", "changing"],
    ["update", "--cpus", "x", "changing"],
    ["update", "--blkio-weight", "70000", "changing"],
    ["update", "--restart", "on-failure:x", "changing"],
    ["update", "--restart", "bogus", "changing"],
    ["update", "--restart", "on-failure:3", "not-started"],
    ["update", "--bogus", "changing"],
    ["update"],
)


@pytest.mark.parametrize("arguments", _ALIKE, ids=" ".join)
def test_what_is_printed_is_what_docker_prints(daemon: Daemon, container: str, arguments: list[str]) -> None:
    assert said(daemon.lamina(*arguments)) == said(daemon.docker(*arguments))


def test_top_is_ps_ef_if_nothing_else_is_asked_for(daemon: Daemon, container: str) -> None:
    ours, docker_s = (command("top", container).splitlines() for command in (daemon.lamina_ok, daemon.docker_ok))
    assert ours[0] == docker_s[0]
    assert ours[0].startswith("UID                 PID                 PPID  ")
    assert ours[1].endswith("sleep 1000")


def test_commit_makes_an_image_of_what_a_container_has_done(daemon: Daemon, container: str) -> None:
    options = ["-m", "why", "-a", "who", "-c", "CMD cat /n/x", "--change", "ENV B=2", "--pause=false"]
    image_id = daemon.lamina_ok("commit", *options, container, "localhost:5000/made")
    found = json.loads(daemon.docker_ok("inspect", "localhost:5000/made:latest"))[0]
    assert (found["Id"], found["Author"], found["Comment"]) == (image_id, "who", "why")
    assert {"A=1", "B=2"} <= set(found["Config"]["Env"])
    assert daemon.docker_ok("run", "--rm", image_id) == "x"
    daemon.docker_ok("rmi", "localhost:5000/made")


def test_a_commit_without_a_name_has_none(daemon: Daemon, container: str) -> None:
    image_id = daemon.lamina_ok("container", "commit", container)
    assert json.loads(daemon.docker_ok("inspect", image_id))[0]["RepoTags"] == []
    daemon.docker_ok("rmi", image_id)


@pytest.mark.parametrize(("options", "actions"), [([], ["pause", "unpause", "commit"]), (["-p=false"], ["commit"])])
def test_a_commit_lets_the_container_stand_still_if_asked(
    daemon: Daemon, container: str, options: list[str], actions: list[str]
) -> None:
    import time

    began = str(time.time())
    daemon.lamina_ok("commit", *options, container, "made")
    argv = ["events", "--since", began, "--until", str(time.time()), "--filter", f"container={container}"]
    assert daemon.docker_ok(*argv, "--format", "{{.Action}}").split() == actions
    daemon.docker_ok("rmi", "made")


def test_update_sets_what_docker_s_sets(daemon: Daemon) -> None:
    flags = "--cpu-shares 77 --cpus 0.5 --cpuset-cpus 0 -m 100m --memory-reservation 50m --memory-swap -1 --pids-limit 50 --restart always"
    limits = []
    for name, command in (("one", daemon.docker_ok), ("two", daemon.lamina_ok)):
        daemon.docker_ok("create", "--name", name, "busybox", "true")
        assert command("update", *flags.split(), name) == name
        config = json.loads(daemon.docker_ok("inspect", name))[0]["HostConfig"]
        limits.append(config)
        daemon.docker_ok("rm", name)
    assert limits[0] == limits[1]
    assert (limits[1]["CpuShares"], limits[1]["PidsLimit"], limits[1]["MemorySwap"]) == (77, 50, -1)


def test_update_takes_effect_at_once(daemon: Daemon, container: str) -> None:
    assert daemon.lamina_ok("container", "update", "--pids-limit", "33", container) == container
    assert '"PidsLimit":33' in daemon.docker_ok("inspect", "-f", "{{json .HostConfig}}", container)
    assert daemon.lamina_ok("update", "--pids-limit", "-1", container) == container
