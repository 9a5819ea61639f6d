"""``docker cp`` both ways, of containers that run and that do not, and that nothing leads out of their roots."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from conftest import Daemon


@pytest.fixture(params=["running", "stopped", "created"])
def container(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"files-{os.urandom(4).hex()}"
    volume = f"{name}-data"
    script = "mkdir -p /dir/sub; echo one > /dir/one; ln -s one /dir/link; ln -s /dir /abs; echo two > /dir/sub/two; sleep 1000"
    argv = ["--name", name, "-v", f"{volume}:/data", "busybox", "sh", "-c", script]
    if request.param == "created":
        daemon.docker_ok("create", *argv)
    else:
        daemon.docker_ok("run", "-d", *argv)
        wait_for(daemon, name, "/dir/sub/two")
    if request.param == "stopped":
        daemon.docker_ok("kill", name)
    yield name
    daemon.docker("rm", "-f", name)
    daemon.docker("volume", "rm", volume)


@pytest.fixture
def running(daemon: Daemon) -> Iterator[str]:
    name = f"files-{os.urandom(4).hex()}"
    daemon.docker_ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    yield name
    daemon.docker("rm", "-f", name)


def wait_for(daemon: Daemon, name: str, path: str) -> None:
    while daemon.docker("exec", name, "test", "-e", path).code != 0:
        pass


def archive_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(text)
            tar.addfile(header, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_files_go_in_and_come_out(daemon: Daemon, container: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "a").write_text("a")
    (source / "below" / "b").write_text("b")
    (source / "link").symlink_to("a")
    (source / "a").chmod(0o4750)
    os.utime(source / "a", (1_000_000_000, 1_000_000_000))
    daemon.docker_ok("cp", source, f"{container}:/tmp/in")
    daemon.docker_ok("cp", f"{container}:/tmp/in", tmp_path / "out")
    assert (tmp_path / "out" / "below" / "b").read_text() == "b"
    assert (tmp_path / "out" / "link").readlink() == Path("a")
    status = (tmp_path / "out" / "a").stat()
    assert (status.st_mode & 0o7777, int(status.st_mtime)) == (0o4750, 1_000_000_000)


def test_a_volume_is_part_of_the_root(daemon: Daemon, container: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("kept")
    daemon.docker_ok("cp", tmp_path / "f", f"{container}:/data/f")
    where = Path(daemon.docker_ok("volume", "inspect", "-f", "{{.Mountpoint}}", f"{container}-data").strip())
    assert (where / "f").read_text() == "kept"
    assert daemon.docker_ok("cp", f"{container}:/data/f", "-").count("kept") == 1


def test_an_existing_directory_gets_the_source_inside(daemon: Daemon, container: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    daemon.docker_ok("cp", tmp_path / "d", f"{container}:/tmp")
    daemon.docker_ok("cp", f"{tmp_path}/d/.", f"{container}:/root")
    for path in ("/tmp/d/f", "/root/f"):
        daemon.docker_ok("cp", f"{container}:{path}", tmp_path / "got")
        assert (tmp_path / "got").read_text() == "x"


def test_the_whole_root_comes_out(daemon: Daemon, container: str, tmp_path: Path) -> None:
    daemon.docker_ok("cp", f"{container}:/etc", tmp_path / "etc")
    assert (tmp_path / "etc" / "passwd").read_text().startswith("root:")
    daemon.docker_ok("cp", f"{container}:/etc/.", tmp_path / "inner")
    assert (tmp_path / "inner" / "passwd").exists()


def test_what_is_not_there_is_said(daemon: Daemon, container: str, tmp_path: Path) -> None:
    result = daemon.docker("cp", f"{container}:/no/such", tmp_path / "x")
    assert result.code == 1
    assert "Could not find the file /no/such in container" in result.err
    (tmp_path / "f").write_text("")
    result = daemon.docker("cp", tmp_path / "f", f"{container}:/no/such/place")
    assert result.code == 1
    assert "Could not find the file" in result.err
    result = daemon.docker("cp", tmp_path / "f", f"{container}:/etc/passwd/")
    assert "no such directory" in result.err


def test_links_are_followed_when_asked_for(daemon: Daemon, running: str, tmp_path: Path) -> None:
    daemon.docker_ok(
        "exec", running, "sh", "-c", "mkdir /dir; echo one > /dir/one; ln -s one /dir/link; ln -s /dir /abs"
    )
    daemon.docker_ok("cp", f"{running}:/abs/link", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    daemon.docker_ok("cp", "-L", f"{running}:/abs/link", tmp_path / "followed")
    assert (tmp_path / "followed").read_text() == "one\n"
    (tmp_path / "new").write_text("new")
    daemon.docker_ok("cp", tmp_path / "new", f"{running}:/abs/link")
    assert daemon.docker_ok("exec", running, "cat", "/dir/one") == "new"
    assert daemon.docker_ok("exec", running, "readlink", "/dir/link") == "one"


def test_the_description_of_a_path_is_docker_s(daemon: Daemon, running: str) -> None:
    daemon.docker_ok(
        "exec", running, "sh", "-c", "mkdir -m 1777 /sticky; echo four > /f; ln -s ../f /sticky/l; mkfifo /fifo"
    )
    client = docker.APIClient(base_url=daemon.host, version="auto")
    modes = {}
    for path in ("/sticky", "/f", "/sticky/l", "/fifo", "/sticky/"):
        _, stat = client.get_archive(running, path)
        modes[path] = stat
    assert modes["/sticky"]["mode"] == 1 << 31 | 1 << 20 | 0o777
    assert (modes["/f"]["name"], modes["/f"]["size"], modes["/f"]["mode"]) == ("f", 5, 0o644)
    assert (modes["/sticky/l"]["mode"], modes["/sticky/l"]["linkTarget"]) == (1 << 27 | 0o777, "/f")
    assert modes["/fifo"]["mode"] >> 25 == 1
    assert modes["/sticky/"]["name"] == "sticky"
    client.close()


def test_an_archive_s_names_begin_with_the_last_part_of_the_path(daemon: Daemon, running: str) -> None:
    client = docker.APIClient(base_url=daemon.host, version="auto")

    def names(path: str) -> list[str]:
        stream, _ = client.get_archive(running, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            return tar.getnames()

    daemon.docker_ok("exec", running, "sh", "-c", "mkdir -p /d/e; touch /d/e/f; ln -s d /l")
    assert names("/d") == ["d", "d/e", "d/e/f"]
    assert names("/d/e/f") == ["f"]
    assert names("/d/.") == [".", "./e", "./e/f"]
    assert names("/l/") == ["l", "l/e", "l/e/f"]
    assert names("/l") == ["l"]
    client.close()


def test_compressed_archives_are_unpacked(daemon: Daemon, running: str) -> None:
    import gzip
    import lzma

    client = docker.APIClient(base_url=daemon.host, version="auto")
    packers: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, lzma.compress)
    for number, pack in enumerate(packers):
        assert client.put_archive(running, "/tmp", pack(archive_of(**{f"f{number}": "text"})))
        assert daemon.docker_ok("exec", running, "cat", f"/tmp/f{number}") == "text"
    client.close()


def test_owners_are_kept_or_the_container_s(daemon: Daemon) -> None:
    daemon.docker_ok("run", "-d", "--name", "owned", "-u", "1000:1001", "busybox", "sleep", "1000")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("f")
        header.uid, header.gid = 7, 8
        tar.addfile(header)
    client = docker.APIClient(base_url=daemon.host, version="auto")
    assert client.put_archive("owned", "/tmp", buffer.getvalue())
    assert daemon.docker_ok("exec", "owned", "stat", "-c", "%u:%g", "/tmp/f") == "7:8"
    url = f"{client.base_url}/v1.47/containers/owned/archive"
    client.put(url, params={"path": "/tmp", "copyUIDGID": "true"}, data=buffer.getvalue()).raise_for_status()
    assert daemon.docker_ok("exec", "owned", "stat", "-c", "%u:%g", "/tmp/f") == "1000:1001"
    client.close()
    daemon.docker_ok("rm", "-f", "owned")


def test_read_only_places_are_refused(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    options = ["--read-only", "-v", "readonly-data:/ro:ro", "-v", "writable-data:/rw"]
    daemon.docker_ok("run", "-d", "--name", "guarded", *options, "busybox", "sleep", "1000")
    for state in ("running", "stopped"):
        assert "container rootfs is marked read-only" in daemon.docker("cp", tmp_path / "f", "guarded:/tmp").err, state
        assert "mounted volume is marked read-only" in daemon.docker("cp", tmp_path / "f", "guarded:/ro").err, state
        daemon.docker_ok("cp", tmp_path / "f", "guarded:/rw")
        daemon.docker_ok("kill", "guarded") if state == "running" else None
    daemon.docker_ok("rm", "-v", "guarded")
    daemon.docker_ok("volume", "rm", "readonly-data", "writable-data")


@pytest.mark.parametrize(
    ("name", "link"),
    [("../../escaped", ""), ("way/escaped", ""), ("hard", "../../../etc/shadow"), ("deep/../../../x", "")],
)
def test_no_archive_leads_out_of_the_root(daemon: Daemon, running: str, name: str, link: str) -> None:
    """``way`` is a link to the host's root as the container would write it; followed, it leads to the container's own."""
    daemon.docker_ok("exec", running, "ln", "-s", "../../../../../../../../..", "/tmp/way")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo(name)
        if link:
            header.type, header.linkname = tarfile.LNKTYPE, link
        tar.addfile(header)
    client = docker.APIClient(base_url=daemon.host, version="auto")
    before = set(os.listdir("/"))
    if name == "way/escaped":
        assert client.put_archive(running, "/tmp", buffer.getvalue())
        assert daemon.docker("exec", running, "test", "-e", "/escaped").code == 0
    else:
        with pytest.raises(docker.errors.APIError) as caught:
            client.put_archive(running, "/tmp", buffer.getvalue())
        assert caught.value.response.status_code == 400
    assert set(os.listdir("/")) == before
    client.close()


def test_a_container_that_changes_its_links_meanwhile_leads_nowhere(
    daemon: Daemon, running: str, tmp_path: Path
) -> None:
    """A directory that becomes a link to / and back, again and again: what is copied in and out stays in the container."""
    script = "cd /tmp; mkdir -p real; while :; do ln -s / swap; rm swap; mkdir swap; rmdir swap 2>/dev/null || rm -rf swap; done"
    daemon.docker_ok("exec", "-d", running, "sh", "-c", script)
    mark = f"escaped-{os.urandom(4).hex()}"
    client = docker.APIClient(base_url=daemon.host, version="auto")
    data = archive_of(**{f"swap/{mark}": "x", f"swap/tmp/{mark}": "y"})
    stop = threading.Event()

    def read() -> None:
        reader = docker.APIClient(base_url=daemon.host, version="auto")
        while not stop.is_set():
            try:
                stream, _ = reader.get_archive(running, "/tmp/swap/etc/hostname")
                assert b"".join(stream).find(os.uname().nodename.encode()) < 0
            except docker.errors.APIError:
                continue
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(30):
        try:
            client.put_archive(running, "/tmp", data)
        except docker.errors.APIError:
            continue
    stop.set()
    thread.join()
    assert not Path("/", mark).exists()
    assert not Path("/tmp", mark).exists()
    client.close()


def test_what_is_no_tar_is_refused(daemon: Daemon, running: str) -> None:
    client = docker.APIClient(base_url=daemon.host, version="auto")
    for junk in (b"x" * 2000, archive_of(f="text")[:700]):
        with pytest.raises(docker.errors.APIError) as caught:
            client.put_archive(running, "/tmp", junk)
        assert caught.value.response.status_code == 400
    client.close()


def test_a_directory_and_a_file_do_not_take_each_other_s_place(daemon: Daemon, running: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "passwd").mkdir()
    result = daemon.docker("cp", f"{tmp_path}/dir/.", f"{running}:/etc")
    assert result.code == 1
    assert "cannot overwrite non-directory" in result.err
    (tmp_path / "tmp").write_text("")
    result = daemon.docker("cp", tmp_path / "tmp", f"{running}:/")
    assert result.code == 1
    assert "cannot overwrite directory" in result.err


def test_a_large_file_goes_in_and_out_unchanged(daemon: Daemon, running: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40
    (tmp_path / "large").write_bytes(data)
    daemon.docker_ok("cp", tmp_path / "large", f"{running}:/tmp/large")
    daemon.docker_ok("cp", f"{running}:/tmp/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_events_tell_of_it(daemon: Daemon, running: str, tmp_path: Path) -> None:
    import time

    began = str(time.time() - 1)
    (tmp_path / "f").write_text("")
    daemon.docker_ok("cp", tmp_path / "f", f"{running}:/tmp")
    daemon.docker_ok("cp", f"{running}:/tmp/f", tmp_path / "g")
    argv = ["events", "--since", began, "--until", str(time.time()), "--filter", f"container={running}", "--format"]
    told = daemon.docker_ok(*argv, "{{.Action}}").splitlines()
    assert [action for action in told if action in ("extract-to-dir", "archive-path")] == [
        "extract-to-dir",
        "archive-path",
    ]


def test_diff_tells_what_was_added_changed_and_deleted(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN mkdir -p /d/gone /e && touch /d/f /d/gone/x /d/same /e/x\n")
    daemon.docker_ok("build", "-q", "-t", "changing", context)
    script = "echo new > /d/f; rm -r /d/gone; mkdir /n; touch /n/x; rm /e/x; rm -r /e; mkdir /e; touch /e/y"
    daemon.docker_ok("run", "--name", "changed", "changing", "sh", "-c", script)
    out = daemon.docker_ok("diff", "changed").splitlines()
    assert out == ["C /d", "C /d/f", "D /d/gone", "C /e", "A /e/y", "D /e/x", "A /n", "A /n/x"]
    daemon.docker_ok("rm", "changed")
    daemon.docker_ok("create", "--name", "fresh", "busybox", "true")
    assert daemon.docker_ok("diff", "fresh") == ""
    daemon.docker_ok("start", "-a", "fresh")
    assert daemon.docker_ok("diff", "fresh") == ""
    daemon.docker_ok("rm", "fresh")


def test_commit_makes_an_image_of_what_a_container_has_done(daemon: Daemon) -> None:
    daemon.docker_ok(
        "run", "--name", "worked", "-e", "A=1", "busybox", "sh", "-c", "echo work > /result; rm /etc/group"
    )
    options = ["-m", "why", "-a", "who", "-c", "CMD cat /result", "-c", "ENV B=2", "-c", "EXPOSE 80"]
    image_id = daemon.docker_ok("commit", *options, "worked", "committed:1").strip()
    found = json.loads(daemon.docker_ok("inspect", "committed:1"))[0]
    assert found["Id"] == image_id
    assert found["Author"] == "who"
    assert found["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /result"]
    assert {"A=1", "B=2"} <= set(found["Config"]["Env"])
    assert found["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert daemon.docker_ok("run", "--rm", "committed:1") == "work"
    assert daemon.docker("run", "--rm", "committed:1", "test", "-e", "/etc/group").code == 1
    entry = json.loads(daemon.docker_ok("history", "--no-trunc", "--format", "json", "committed:1").splitlines()[0])
    assert entry["Comment"] == "why"
    assert "echo work" in entry["CreatedBy"]
    layers = daemon.docker_ok("save", "committed:1")
    assert layers.find(".dockerenv") < 0
    daemon.docker_ok("rm", "worked")
    daemon.docker_ok("rmi", "committed:1")


def test_commit_lets_a_container_stand_still(daemon: Daemon, running: str) -> None:
    import time

    began = str(time.time() - 1)
    daemon.docker_ok("commit", running, "stood-still")
    daemon.docker_ok("commit", "--pause=false", running, "moved")
    argv = ["events", "--since", began, "--until", str(time.time()), "--filter", f"container={running}", "--format"]
    told = daemon.docker_ok(*argv, "{{.Action}}").splitlines()
    assert told[2:] == ["pause", "unpause", "commit", "commit"]
    assert daemon.docker_ok("inspect", "-f", "{{.State.Status}}", running).strip() == "running"
    daemon.docker_ok("rmi", "stood-still", "moved")


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["-c", "RUN true", "X", "name"], "run is not a valid change command"),
        (["X", "Upper/Case"], "repository name"),
        (["no-such-container", "name"], "No such container: no-such-container"),
    ],
)
def test_commits_that_cannot_be_are_refused(daemon: Daemon, running: str, argv: list[str], reason: str) -> None:
    result = daemon.docker("commit", *[running if word == "X" else word for word in argv])
    assert result.code == 1
    assert reason in result.err


def test_the_root_of_a_running_container_comes_without_the_kernel_s_file_systems(
    daemon: Daemon, running: str, tmp_path: Path
) -> None:
    daemon.docker_ok("cp", f"{running}:/", tmp_path / "root")
    assert (tmp_path / "root" / "etc" / "passwd").exists()
    assert list((tmp_path / "root" / "proc").iterdir()) == []


def test_a_link_that_leads_to_itself_is_said(daemon: Daemon, running: str, tmp_path: Path) -> None:
    daemon.docker_ok("exec", running, "ln", "-s", "loop", "/tmp/loop")
    result = daemon.docker("cp", "-L", f"{running}:/tmp/loop", tmp_path / "x")
    assert result.code == 1
    assert "too many levels of symbolic links" in result.err
