"""Builds that take files from elsewhere: ADD of URLs and repositories, remote contexts."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conftest import Daemon


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


@dataclass
class Site:
    """A directory behind a URL."""

    directory: Path
    url: str


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    directory = tmp_path / "site"
    directory.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(directory)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Site(directory, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def repository(site: Site, tmp_path: Path) -> str:
    """A repository with a Dockerfile, that git's dumb protocol serves."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM busybox\nCOPY sub/f /f\n")
    (work / "sub" / "f").write_text("from git")
    (work / "sub" / "Dockerfile").write_text("FROM busybox\nCOPY f /sub-f\n")
    config = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*config, "commit", "-q", "-m", "m"]):
        subprocess.run(["git", *words], cwd=work, check=True)
    bare = site.directory / "repo.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)
    return f"{site.url}/repo.git"


def build(daemon: Daemon, tmp_path: Path, dockerfile: str) -> str:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    return daemon.docker_ok("build", "-t", "fetched", "-f", tmp_path / "Dockerfile", context)


def run(daemon: Daemon, *command: str) -> str:
    return daemon.docker_ok("run", "--rm", "fetched", *command)


def test_add_downloads_a_file_with_its_time_and_again_only_when_it_changed(
    daemon: Daemon, site: Site, tmp_path: Path
) -> None:
    (site.directory / "file.txt").write_text("one")
    dockerfile = f"FROM busybox\nADD {site.url}/file.txt /d/\nADD {site.url}/file.txt /renamed\n"
    build(daemon, tmp_path, dockerfile)
    assert run(daemon, "stat", "-c", "%a %u %n", "/d/file.txt", "/renamed") == "600 0 /d/file.txt\n600 0 /renamed"
    assert "Using cache" in build(daemon, tmp_path, dockerfile)
    (site.directory / "file.txt").write_text("twice")
    assert "Using cache" not in build(daemon, tmp_path, dockerfile)
    assert run(daemon, "cat", "/renamed") == "twice"


def test_add_checks_a_checksum_and_extracts_only_when_it_is_asked_to(
    daemon: Daemon, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "inside").write_text("inside")
    with tarfile.open(site.directory / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "inside", "inside")
    digest = hashlib.sha256((site.directory / "a.tar.gz").read_bytes()).hexdigest()
    url = f"{site.url}/a.tar.gz"
    build(
        daemon, tmp_path, f"FROM busybox\nADD --checksum=sha256:{digest} {url} /kept/\nADD --unpack=true {url} /out/\n"
    )
    assert run(daemon, "ls", "/kept", "/out").split() == ["/kept:", "a.tar.gz", "/out:", "inside"]
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {url} /x\n")
    failed = daemon.docker("build", "-f", tmp_path / "Dockerfile", tmp_path / "context")
    assert failed.code == 1
    assert digest in failed.err
    assert "   2 | >>> ADD --checksum=" in failed.err


def test_add_takes_a_repository_and_a_part_of_one(daemon: Daemon, repository: str, tmp_path: Path) -> None:
    build(daemon, tmp_path, f"FROM busybox\nADD {repository} /all/\nADD {repository}#main:sub /part/\n")
    assert run(daemon, "cat", "/all/sub/f", "/part/f") == "from gitfrom git"
    assert "No such file" in run(daemon, "sh", "-c", "ls /all/.git 2>&1 || true")


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_a_context_may_be_a_repository_a_tar_or_a_lone_dockerfile(
    daemon: Daemon, site: Site, repository: str, tmp_path: Path, cli: str
) -> None:
    command = daemon.docker_ok if cli == "docker" else daemon.lamina_ok
    if cli == "lamina":  # docker's command line clones by itself, with the host's git
        command("build", "-t", "fetched", repository)
        assert run(daemon, "cat", "/f") == "from git"
        command("build", "-t", "fetched", f"{repository}#main:sub")
        assert run(daemon, "cat", "/sub-f") == "from git"
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY Dockerfile /it\n")
    with tarfile.open(site.directory / "context.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "Dockerfile", "Dockerfile")
    command("build", "-t", "fetched", f"{site.url}/context.tar.gz")
    assert "COPY Dockerfile" in run(daemon, "cat", "/it")
    (site.directory / "Lone").write_text("FROM busybox\nRUN echo lone > /lone\n")
    command("build", "-t", "fetched", f"{site.url}/Lone")
    assert run(daemon, "cat", "/lone") == "lone"
