"""lamina's own command line: docker's grammar, output and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import ROOT, Daemon


def test_run_with_streams_and_exit_codes(daemon: Daemon) -> None:
    assert daemon.lamina_ok("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert daemon.lamina_ok("run", "-i", "--rm=true", "busybox", "cat", data=b"through\n") == "through"
    result = daemon.lamina("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (result.code, result.out, result.err) == (5, "out\n", "err\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--rm", "busybox", "nonexistent"], 127, "executable file not found"),
        (["run", "--rm", "busybox", "/etc"], 126, "permission denied"),
        (["run", "--bogus", "busybox"], 125, "unknown flag: --bogus"),
        (["run", "nothing"], 125, "No such image: nothing:latest"),
        (["ps", "--bogus"], 1, "unknown flag: --bogus"),
        (["frobnicate"], 1, "is not a lamina command"),
        (["rm", "nothing"], 1, "No such container: nothing"),
        (["ps", "--filter", "nonsense"], 1, "bad format of filter"),
    ],
)
def test_errors_are_worded_and_coded_as_docker_s(daemon: Daemon, arguments: list[str], code: int, message: str) -> None:
    result = daemon.lamina(*arguments)
    assert result.code == code
    assert message in result.err


def test_a_container_from_create_to_rm(daemon: Daemon) -> None:
    container = daemon.lamina_ok(
        "create", "--name", "cli", "-e", "A=b", "busybox", "sh", "-c", "echo $A; exec sleep 60"
    )
    assert daemon.lamina_ok("start", "cli") == "cli"
    assert daemon.lamina_ok("ps", "-q", "--no-trunc", "--filter", "name=cli") == container
    assert (
        daemon.lamina_ok("ps", "--filter", "name=cli", "--format", "{{.Names}} {{.Image}} {{upper .State}}")
        == "cli busybox RUNNING"
    )
    assert json.loads(daemon.lamina_ok("inspect", "cli"))[0]["Id"] == container
    assert (
        daemon.lamina_ok("inspect", "-f", "{{range .Config.Env}}{{.}};{{end}}{{.State.Running}}", "cli") == "A=b;true"
    )
    daemon.lamina_ok("restart", "-t", "0", "cli")
    daemon.lamina_ok("kill", "cli")
    assert daemon.lamina_ok("wait", "cli") == "137"
    assert daemon.lamina_ok("logs", "--tail", "1", "cli") == "b"
    assert daemon.lamina_ok("stop", "cli") == "cli"
    assert daemon.lamina_ok("rm", "cli") == "cli"


def test_start_attached_gives_output_and_code(daemon: Daemon) -> None:
    daemon.lamina_ok("create", "--name", "again", "busybox", "sh", "-c", "echo run; exit 3")
    result = daemon.lamina("start", "-a", "again")
    assert (result.code, result.out) == (3, "run\n")
    daemon.lamina_ok("container", "rm", "again")


def test_attach_follows_a_running_container(daemon: Daemon) -> None:
    container = daemon.lamina_ok("run", "-d", "busybox", "sh", "-c", "sleep 1; echo late; exit 2")
    result = daemon.lamina("attach", "--no-stdin", container)
    assert (result.code, result.out) == (2, "late\n")
    daemon.lamina_ok("rm", container)


def test_build_history_tag_save_load_and_rmi(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "skipped").write_text("s")
    (tmp_path / ".dockerignore").write_text("skipped\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nARG V=1\nCOPY . /c/\nRUN test ! -e /c/skipped && echo $V > /v\nLABEL x=y\n"
    )
    out = daemon.lamina_ok("build", "-t", "cli:1", "--build-arg", "V=2", "--iidfile", tmp_path / "id", tmp_path)
    assert "Successfully tagged cli:1" in out
    assert daemon.lamina_ok("run", "--rm", "cli:1", "cat", "/v", "/c/f") == "2\nf"
    assert daemon.lamina_ok("images", "-q", "--no-trunc", "cli") == (tmp_path / "id").read_text()
    assert "COPY . /c/" in daemon.lamina_ok("history", "cli:1")
    daemon.lamina_ok("tag", "cli:1", "cli:2")
    daemon.lamina_ok("save", "-o", tmp_path / "s.tar", "cli:2")
    assert "Untagged: cli:2" in daemon.lamina_ok("rmi", "cli:2")
    assert daemon.lamina_ok("load", "-i", tmp_path / "s.tar") == "Loaded image: cli:2"
    daemon.lamina_ok("rmi", "cli:2", "cli:1")


def test_build_from_standard_input(daemon: Daemon) -> None:
    image = daemon.lamina_ok("build", "-q", "-", data=b"FROM busybox\nRUN echo stdin > /f\n")
    assert daemon.lamina_ok("run", "--rm", image, "cat", "/f") == "stdin"
    daemon.lamina_ok("rmi", image)


def test_import_and_export_are_inverse(daemon: Daemon, busybox_tar: Path, tmp_path: Path) -> None:
    daemon.lamina_ok("import", "-c", "ENV K=v", busybox_tar, "imported")
    container = daemon.lamina_ok("run", "-d", "imported", "sh", "-c", "echo $K > /k; rm /etc/group")
    daemon.lamina_ok("wait", container)
    daemon.lamina_ok("export", "-o", tmp_path / "e.tar", container)
    with tarfile.open(tmp_path / "e.tar") as tar:
        names = tar.getnames()
        assert "etc/group" not in names
        member = tar.extractfile("k")
        assert member is not None
        assert member.read() == b"v\n"
        assert tar.getmember("bin/sh").issym()
    daemon.lamina_ok("rm", container)
    daemon.lamina_ok("rmi", "imported")


def test_version_info_events_and_doctor(daemon: Daemon) -> None:
    assert json.loads(daemon.lamina_ok("version", "--format", "json"))["Server"]["ApiVersion"] == "1.51"
    assert "Storage Driver: " in daemon.lamina_ok("info")
    assert daemon.lamina_ok("events", "--since", "1h", "--until", "0.1s") != ""
    assert daemon.lamina("doctor", "--root", daemon.root).out.startswith("ok       root")


def test_an_unreachable_daemon_is_told(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "lamina.cli.main", "-H", f"unix://{tmp_path}/none.sock", "ps"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Is the lamina daemon running?" in done.stderr


def test_the_compatibility_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "compatibility"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "compatibility.md").read_text(), "run: make compatibility"
