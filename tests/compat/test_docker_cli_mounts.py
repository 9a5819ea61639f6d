"""Mounts that come from other containers, and parts of volumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Daemon


def points(daemon: Daemon, name: str) -> dict[str, tuple[str, bool]]:
    found = json.loads(daemon.docker_ok("inspect", "-f", "{{json .Mounts}}", name))
    return {m["Destination"]: (m.get("Name") or m["Source"], m["RW"]) for m in found}


def test_a_container_gets_another_s_volumes(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("bound")
    options = ["-v", "given:/named", "-v", "/nameless", "-v", f"{tmp_path}:/bound:ro"]
    daemon.docker_ok("create", "--name", "giver", *options, "busybox", "true")
    daemon.docker_ok(
        "run",
        "--name",
        "taker",
        "--volumes-from",
        "giver",
        "busybox",
        "sh",
        "-c",
        "echo x > /named/x; echo y > /nameless/y",
    )
    assert points(daemon, "taker") == points(daemon, "giver")
    assert points(daemon, "taker")["/bound"] == (str(tmp_path), False)
    reader = ["run", "--rm", "--volumes-from", "taker:ro", "busybox", "sh", "-c"]
    assert daemon.docker_ok(*reader, "cat /named/x /nameless/y /bound/f") == "x\ny\nbound"
    assert "Read-only" in daemon.docker(*reader, "touch /named/z").err
    daemon.docker_ok("rm", "-v", "giver")
    assert daemon.docker_ok("start", "-a", "taker") == ""
    nameless = points(daemon, "taker")["/nameless"][0]
    daemon.docker_ok("rm", "-v", "taker")
    assert daemon.docker("volume", "inspect", nameless).code == 1
    daemon.docker_ok("volume", "rm", "given")


def test_what_is_asked_for_goes_before_what_comes_from_another(daemon: Daemon) -> None:
    daemon.docker_ok("create", "--name", "giver", "-v", "one:/data", "-v", "one:/more", "busybox", "true")
    daemon.docker_ok("create", "--name", "other", "-v", "two:/data", "busybox", "true")
    daemon.docker_ok("create", "--name", "taker", "--volumes-from", "giver", "-v", "three:/data", "busybox", "true")
    assert points(daemon, "taker") == {"/data": ("three", True), "/more": ("one", True)}
    daemon.docker_ok("rm", "taker")
    daemon.docker_ok(
        "create", "--name", "taker", "--volumes-from", "giver", "--volumes-from", "other:ro", "busybox", "true"
    )
    assert points(daemon, "taker") == {"/data": ("two", False), "/more": ("one", True)}
    daemon.docker_ok("rm", "taker", "giver", "other")
    daemon.docker_ok("volume", "rm", "one", "two", "three")


@pytest.mark.parametrize(
    ("value", "reason"), [("nobody", "No such container: nobody"), ("giver2:wild", "invalid mode: wild")]
)
def test_volumes_from_nowhere_are_refused(daemon: Daemon, value: str, reason: str) -> None:
    daemon.docker_ok("create", "--name", "giver2", "busybox", "true")
    assert reason in daemon.docker("create", "--volumes-from", value, "busybox", "true").err
    daemon.docker_ok("rm", "giver2")


def test_a_part_of_a_volume_is_mounted(daemon: Daemon) -> None:
    script = "mkdir -p /v/a/b; echo deep > /v/a/b/f; echo up > /v/top; ln -s /etc /v/way; ln -s a/b /v/near"
    daemon.docker_ok("run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", script)
    mount = "type=volume,source=parts,target=/p,volume-subpath="
    assert daemon.docker_ok("run", "--rm", "--mount", f"{mount}a/b", "busybox", "cat", "/p/f") == "deep"
    assert daemon.docker_ok("run", "--rm", "--mount", f"{mount}near", "busybox", "cat", "/p/f") == "deep"
    assert daemon.docker_ok("run", "--rm", "--mount", f"{mount}top", "busybox", "cat", "/p") == "up"
    assert "cannot access path" in daemon.docker("run", "--rm", "--mount", f"{mount}way", "busybox", "ls", "/p").err
    assert "cannot access path none" in daemon.docker("run", "--rm", "--mount", f"{mount}none", "busybox", "true").err
    for wrong in ("../x", "/etc"):
        assert (
            "relative path within the volume"
            in daemon.docker("create", "--mount", f"{mount}{wrong}", "busybox", "true").err
        )
    daemon.docker_ok("volume", "rm", "parts")


def test_a_part_of_a_volume_is_written(daemon: Daemon) -> None:
    daemon.docker_ok("run", "--rm", "-v", "parts:/v", "busybox", "mkdir", "/v/sub")
    mount = "type=volume,source=parts,target=/p,volume-subpath=sub"
    daemon.docker_ok("run", "--name", "partial", "--mount", mount, "busybox", "touch", "/p/new")
    daemon.docker_ok("start", "-a", "partial")
    assert daemon.docker_ok("run", "--rm", "-v", "parts:/v", "busybox", "ls", "/v/sub") == "new"
    daemon.docker_ok("rm", "partial")
    daemon.docker_ok("volume", "rm", "parts")


def test_an_image_is_mounted_read_only(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir /tree && echo leaf > /tree/leaf\nRUN echo two > /two\n"
    )
    daemon.docker_ok("build", "-q", "-t", "mounted", context)
    mount = "type=image,source=mounted,target=/i"
    assert daemon.docker_ok("run", "--rm", "--mount", mount, "busybox", "cat", "/i/tree/leaf", "/i/two") == "leaf\ntwo"
    assert "Read-only" in daemon.docker("run", "--rm", "--mount", mount, "busybox", "touch", "/i/new").err
    part = f"{mount},image-subpath=tree"
    assert daemon.docker_ok("run", "--rm", "--mount", part, "busybox", "ls", "/i") == "leaf"
    daemon.docker_ok("run", "-d", "--name", "onlooker", "--mount", mount, "busybox", "sleep", "1000")
    assert "is using its" in daemon.docker("rmi", "mounted").err
    daemon.docker_ok("restart", "-t", "0", "onlooker")
    assert daemon.docker_ok("exec", "onlooker", "cat", "/i/two") == "two"
    found = json.loads(daemon.docker_ok("inspect", "-f", "{{json .Mounts}}", "onlooker"))[0]
    assert (found["Type"], found["Source"], found["Destination"], found["RW"]) == ("image", "mounted", "/i", False)
    daemon.docker_ok("rm", "-f", "onlooker")
    daemon.docker_ok("rmi", "mounted")


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ("type=image,source=nothing,target=/i", "nothing"),
        ("type=image,target=/i", "field Source must not be empty"),
        ("type=image,source=busybox,target=/i,image-subpath=../x", "relative path within the image"),
    ],
)
def test_image_mounts_that_cannot_be_are_refused(daemon: Daemon, mount: str, reason: str) -> None:
    result = daemon.docker("create", "--mount", mount, "busybox", "true")
    assert result.code != 0
    assert reason in result.err
