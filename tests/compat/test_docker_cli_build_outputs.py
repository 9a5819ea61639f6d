"""What a build gives: files, archives, one layer, and a file that says what it was."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from conftest import LAMINA, Daemon

FILES = "FROM busybox AS made\nRUN mkdir /out && echo hello > /out/a && ln /out/a /out/b && ln -s /nowhere /out/l\n"
ALONE = f"{FILES}FROM scratch\nCOPY --from=made /out /\n"


def build(daemon: Daemon, context: Path, dockerfile: str, *options: str | Path) -> str:
    (context / "Dockerfile").write_text(dockerfile)
    return daemon.lamina_ok("build", *options, context)


def test_a_targets_files_are_written_to_a_directory(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    for _ in range(2):
        build(daemon, context, ALONE, "-o", tmp_path / "files")
    assert sorted(os.listdir(tmp_path / "files")) == ["a", "b", "l"]
    assert (tmp_path / "files" / "b").read_text() == "hello\n"
    assert os.readlink(tmp_path / "files" / "l") == "/nowhere"


def test_a_tar_goes_to_standard_output_alone(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(ALONE)
    argv: list[str | Path] = [LAMINA, "-H", daemon.host, "build", "-o", "-", context]
    done = subprocess.run(argv, capture_output=True, check=True)
    (tmp_path / "out.tar").write_bytes(done.stdout)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["a", "b", "l"]
    assert b"Step 1/" in done.stderr


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_archive_can_be_loaded_again(own_daemon: Daemon, context: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "image.tar"
    build(own_daemon, context, FILES, "-t", "exported:1", "-o", f"type={kind},dest={target}")
    own_daemon.docker_ok("rmi", "exported:1")
    assert "Loaded image: exported:1" in own_daemon.docker_ok("load", "-i", target)
    assert own_daemon.docker_ok("run", "--rm", "exported:1", "cat", "/out/b") == "hello"


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_archives_files_may_be_wanted_in_a_directory(
    daemon: Daemon, context: Path, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "layout"
    build(daemon, context, "FROM scratch\nENV A=1\n", "-t", "exported:2", "-o", f"type={kind},dest={target},tar=false")
    index = json.loads((target / "index.json").read_text())
    algorithm, _, name = index["manifests"][0]["digest"].partition(":")
    assert (target / "oci-layout").is_file()
    assert (target / "blobs" / algorithm / name).is_file()
    result = daemon.lamina("build", "-o", f"type={kind},tar=false", context)
    assert f"dest is required for {kind} output with tar=false" in result.err


def test_what_was_built_for_its_files_is_cache(own_daemon: Daemon, context: Path, tmp_path: Path) -> None:
    build(own_daemon, context, ALONE, "-o", tmp_path / "files")
    own_daemon.docker_ok("builder", "prune", "-af")
    assert own_daemon.docker_ok("images", "-aq").split() == own_daemon.docker_ok("images", "-q", "busybox").split()


def test_a_file_tells_what_was_built(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    target = tmp_path / "metadata.json"
    build(daemon, context, FILES, "-t", "meta:1", "-t", "example.com/meta", "--metadata-file", target)
    told = json.loads(target.read_text())
    inspected = json.loads(daemon.docker_ok("image", "inspect", "meta:1"))[0]
    assert told["containerimage.config.digest"] == inspected["Id"]
    assert told["containerimage.digest"] == told["containerimage.descriptor"]["digest"]
    assert told["image.name"] == "docker.io/library/meta:1,example.com/meta:latest"
    assert sorted(inspected["RepoTags"]) == ["example.com/meta:latest", "meta:1"]


def test_an_unwritable_place_is_told_before_anything_is_built(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo never\n")
    result = daemon.lamina("build", "-o", f"type=tar,dest={tmp_path}/none/x.tar", context)
    assert result.code == 1
    assert "invalid output path" in result.err
    assert "Step" not in result.out


SQUASHED = (
    "FROM busybox\nRUN echo secret > /secret; echo kept > /kept\nRUN rm /secret /etc/passwd; chmod 700 /root\n"
    "ENV A=1\nCOPY Dockerfile /copied\n"
)


@pytest.mark.parametrize("is_sent", [False, True], ids=["local", "sent"])
def test_squash_makes_one_layer_and_keeps_the_history(daemon: Daemon, context: Path, *, is_sent: bool) -> None:
    (context / "Dockerfile").write_text(SQUASHED)
    tar = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True).stdout
    for _ in range(2):
        place, data = ("-", tar) if is_sent else (context, None)
        daemon.lamina_ok("build", "--squash", "-t", "squashed", place, data=data)
    base, image = json.loads(daemon.docker_ok("image", "inspect", "busybox", "squashed"))
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert image["Config"]["Env"][-1] == "A=1"
    assert image["Comment"].startswith("merge sha256:")
    history = daemon.docker_ok("history", "--no-trunc", "--format", "{{.Size}}|{{.CreatedBy}}|{{.Comment}}", "squashed")
    top, copy, *_ = history.splitlines()
    assert "merge sha256:" in top
    assert copy.startswith("0B|COPY")
    out = daemon.docker_ok("run", "--rm", "squashed", "sh", "-c", "ls / /etc; cat /kept; stat -c %a /root")
    assert "secret" not in out
    assert "passwd" not in out
    assert out.splitlines()[-2:] == ["kept", "700"]


@pytest.mark.parametrize("command", ["echo half > /half; exit 3", "exit 3"])
def test_the_state_of_a_failed_step_can_be_looked_into(daemon: Daemon, context: Path, command: str) -> None:
    (context / "Dockerfile").write_text(f'FROM busybox\nENTRYPOINT ["false"]\nENV A=1\nWORKDIR /w\nRUN {command}\n')
    result = daemon.lamina("build", "--keep-failed", "-t", "fails", context)
    assert result.code == 3
    told = next(line for line in result.out.splitlines() if "lamina run" in line)
    _, run, rm, interactive, image, shell = told.partition("look into it: ")[2].split()
    assert (run, rm, interactive, shell) == ("run", "--rm", "-it", "sh")
    out = daemon.lamina_ok("run", "--rm", image, shell, "-c", "cat /half 2>/dev/null; pwd; echo $A")
    assert out.splitlines() == (["half"] if "half" in command else []) + ["/w", "1"]
    assert "fails" not in daemon.docker_ok("images")
    assert daemon.lamina("build", "--keep-failed", context).code == 3, "a failure is not cached"


def test_a_failed_step_leaves_no_image_without_being_asked(own_daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo half > /half; exit 3\n")
    assert own_daemon.lamina("build", context).code == 3
    assert len(own_daemon.docker_ok("images", "-aq").split()) == 1
