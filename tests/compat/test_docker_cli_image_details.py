"""The unmodified docker command line: the corners of images, where lamina was once unlike docker."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from conftest import Daemon
from hostile_tars import END, header, pax, regular


def _context(dockerfile: bytes) -> bytes:
    """A context as the docker command line sends a Dockerfile that comes on its standard input: without padding, without end."""
    return header(b"Dockerfile", len(dockerfile)) + dockerfile


def test_a_context_without_padding_and_end_is_built(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "c.tar").write_bytes(_context(b"FROM busybox\nLABEL unpadded=1\n"))
    assert "Successfully tagged unpadded:1" in daemon.docker_ok(
        "build", "-t", "unpadded:1", "-", data=(tmp_path / "c.tar").read_bytes()
    )
    daemon.docker_ok("rmi", "unpadded:1")


def test_images_shows_the_names_that_were_asked_for(daemon: Daemon) -> None:
    daemon.docker_ok("tag", "busybox", "shown:1")
    daemon.docker_ok("tag", "busybox", "shown:2")
    table = daemon.docker_ok("images", "--format", "{{.Repository}}:{{.Tag}}", "shown")
    assert sorted(table.split()) == ["shown:1", "shown:2"]
    assert daemon.docker_ok("images", "--format", "{{.Repository}}:{{.Tag}}", "shown:2") == "shown:2"
    assert len(daemon.docker_ok("images", "-q", "shown:1").split()) == 1
    wrong = daemon.docker("images", "a[")
    assert (wrong.code, "syntax error in pattern" in wrong.err) == (1, True)
    wrong = daemon.docker("images", "-f", "dangling=x")
    assert "invalid filter 'dangling=[x]'" in wrong.err
    daemon.docker_ok("rmi", "shown:1", "shown:2")


def test_an_image_goes_from_under_a_stopped_container_that_can_still_start(own_daemon: Daemon, tmp_path: Path) -> None:
    container = own_daemon.docker_ok("create", "busybox", "echo", "still here")
    image = own_daemon.docker_ok("images", "-q", "busybox")
    assert "Deleted: sha256:" in own_daemon.docker_ok("rmi", "-f", image)
    assert own_daemon.docker_ok("start", "-a", container) == "still here"
    own_daemon.docker_ok("rm", container)


def test_ps_shows_the_id_of_an_image_that_lost_its_name(daemon: Daemon) -> None:
    daemon.docker_ok("tag", "busybox", "named:1")
    container = daemon.docker_ok("create", "named:1", "true")

    def shown() -> str:
        return daemon.docker_ok("ps", "-a", "--filter", f"id={container}", "--format", "{{.Image}}")

    assert shown() == "named:1"
    daemon.docker_ok("rmi", "named:1")
    assert shown() == daemon.docker_ok("images", "-q", "busybox")
    daemon.docker_ok("rm", container)


@pytest.mark.parametrize("platform", ["foo", "windows/amd64", "linux/foo"])
def test_an_import_for_what_does_not_exist_is_refused(daemon: Daemon, busybox_tar: Path, platform: str) -> None:
    result = daemon.docker("import", "--platform", platform, busybox_tar, "strange:1")
    assert result.code == 1
    assert daemon.docker_ok("images", "-q", "strange") == ""


def test_what_an_old_docker_said_of_an_image_is_shown(daemon: Daemon) -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "1.13.1",
        "comment": "by hand",
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    files = {
        "c.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["old:1"], "Layers": []}]).encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    daemon.docker_ok("load", data=buffer.getvalue())
    assert daemon.docker_ok("inspect", "-f", "{{.DockerVersion}} {{.Comment}}", "old:1") == "1.13.1 by hand"
    daemon.docker_ok("rmi", "old:1")


def test_a_deep_tree_comes_in_and_is_exported(own_daemon: Daemon, tmp_path: Path) -> None:
    path = b"a/" * 1200 + b"x"
    tar = pax((b"path", path)) + regular(b"x", b"deep") + END
    own_daemon.docker_ok("import", "-", "deep:1", data=tar)
    container = own_daemon.docker_ok("create", "deep:1", "/x")
    own_daemon.docker_ok("export", "-o", tmp_path / "out.tar", container)
    with tarfile.open(tmp_path / "out.tar") as exported:
        assert any(member.name == path.decode() for member in exported)
    own_daemon.docker_ok("rm", container)


def test_a_layer_that_cannot_be_mounted_is_refused_with_its_reason(daemon: Daemon) -> None:
    result = daemon.docker("import", "-", "bad:1", data=header(b"a", 0, b"1", b"nope") + END)
    assert result.code == 1
    assert "hard link to 'nope'" in result.err


def test_a_save_of_what_is_lost_says_so(own_daemon: Daemon, tmp_path: Path) -> None:
    own_daemon.docker_ok("tag", "busybox", "lost:1")
    (layer,) = json.loads(own_daemon.docker_ok("inspect", "lost:1"))[0]["RootFS"]["Layers"]
    blob = own_daemon.root / "content" / "blobs" / "sha256" / layer.removeprefix("sha256:")
    data = blob.read_bytes()
    blob.unlink()
    missing = own_daemon.docker("save", "-o", tmp_path / "s.tar", "lost:1")
    assert (missing.code, layer in missing.err) == (1, True)
    blob.write_bytes(b"?" + data[1:])
    assert own_daemon.docker("save", "-o", tmp_path / "s.tar", "lost:1").code == 1
    blob.write_bytes(data)
