"""Git repositories as sources, from real servers on loopback: git's http-backend, a plain file server, and git's own daemon."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lamina.build.remote.credentials import git_authorization
from lamina.build.remote.git import (
    CheckedOut,
    GitChecksumMismatch,
    GitDirectoryNotFound,
    GitRefNotFound,
    GitTimeout,
    Resolved,
    check_out,
    resolve,
)
from lamina.build.remote.git_command import GitAccess, GitFailed, GitMissing
from lamina.build.remote.sources import GitRepository, InvalidRemote, parse_source

IDENTITY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file"} | {
    f"GIT_{who}_{what}": "tester@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}

SURROUNDINGS = os.environ | IDENTITY
"""What the servers and the tests' own git commands run in, whatever a test does to its environment."""


def git(cwd: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=cwd, env=SURROUNDINGS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(cwd: Path, **files: str) -> str:
    for name, text in files.items():
        (cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (cwd / name).write_text(text)
    git(cwd, "add", "-A")
    git(cwd, "commit", "-qm", "change", "--allow-empty")
    return git(cwd, "rev-parse", "HEAD")


def init(path: Path) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    return path


@dataclass
class Server:
    """An HTTP server of the repositories below a directory; *password* is asked for where there is one.

    An *is_old* one speaks protocol 0, in which a server gives only what refs point to.
    """

    port: int
    password: str = ""
    is_old: bool = False
    authorizations: list[str | None] = field(default_factory=list)

    def url(self, name: str, userinfo: str = "") -> str:
        return f"http://{userinfo}{'@' if userinfo else ''}127.0.0.1:{self.port}/{name}"


@contextmanager
def _run(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def serve_smart(root: Path) -> Iterator[Server]:
    """``git http-backend`` behind http.server: the least of CGI (RFC 3875) that git needs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers["Authorization"]
            described.authorizations.append(given)
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if described.password and given != git_authorization("http://h/", {"GIT_AUTH_TOKEN": described.password}):
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic realm=test")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            environment = SURROUNDINGS | {
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": "" if described.is_old else self.headers["Git-Protocol"] or "",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers["Content-Type"] or "",
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
            }
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
            )
            head, _, data = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, _run(server):
        described = Server(server.server_port)
        yield described


@contextmanager
def serve_files(root: Path) -> Iterator[Server]:
    """A plain file server, which knows nothing of git ("dumb" HTTP)."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, request: socket.socket, address: str, server: ThreadingHTTPServer) -> None:
            super().__init__(request, address, server, directory=str(root))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, _run(server):
        yield Server(server.server_port)


@dataclass
class Origin:
    """A repository with a history, and the server that has it under ``repo.git``."""

    path: Path
    server: Server
    first: str
    second: str
    feature: str

    def repository(self, suffix: str = "") -> GitRepository:
        parsed = parse_source(self.server.url("repo.git") + suffix)
        assert isinstance(parsed, GitRepository)
        return parsed


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "srv").mkdir()
    with serve_smart(tmp_path / "srv") as server:
        yield server


@pytest.fixture
def origin(tmp_path: Path, served: Server) -> Origin:
    path = init(tmp_path / "srv" / "repo.git")
    first = commit(path, abc="foo\n")
    git(path, "tag", "light")
    git(path, "tag", "-a", "-m", "annotated", "v1")
    second = commit(path, **{"sub/dir/def": "bar\n"})
    git(path, "checkout", "-qb", "feature/x")
    feature = commit(path, ghi="baz\n")
    git(path, "update-ref", "refs/pull/42/head", feature)
    git(path, "checkout", "-q", "main")
    return Origin(path, served, first, second, feature)


def files_of(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir())


@pytest.mark.parametrize(
    ("suffix", "name", "files"),
    [
        ("", "second", ["abc", "sub/dir/def"]),
        ("?ref=HEAD", "second", ["abc", "sub/dir/def"]),
        ("#main", "second", ["abc", "sub/dir/def"]),
        ("#feature/x", "feature", ["abc", "ghi", "sub/dir/def"]),
        ("?branch=feature/x", "feature", ["abc", "ghi", "sub/dir/def"]),
        ("#pull/42/head", "feature", ["abc", "ghi", "sub/dir/def"]),
        ("#refs/heads/feature/x", "feature", ["abc", "ghi", "sub/dir/def"]),
        ("#light", "first", ["abc"]),
        ("#v1", "first", ["abc"]),
        ("?tag=v1", "first", ["abc"]),
        ("#FIRST", "first", ["abc"]),
        ("#:sub", "second", ["dir/def"]),
        ("?subdir=/sub/../sub/dir", "second", ["def"]),
    ],
)
async def test_a_ref_and_a_directory_of_it_are_checked_out(
    origin: Origin, tmp_path: Path, suffix: str, name: str, files: list[str]
) -> None:
    repository = origin.repository(suffix.replace("FIRST", origin.first))
    expected = getattr(origin, name)
    assert (await resolve(repository)).commit == expected
    assert await check_out(repository, tmp_path / "out") == CheckedOut(tmp_path / "out", expected)
    assert files_of(tmp_path / "out") == files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "srv"]


async def test_a_branch_comes_before_a_tag_of_its_name(origin: Origin) -> None:
    git(origin.path, "tag", "main", origin.first)
    assert await resolve(origin.repository("#main")) == Resolved("refs/heads/main", origin.second)
    assert await resolve(origin.repository("?tag=main")) == Resolved("refs/tags/main", origin.first)


async def test_a_default_branch_is_named(origin: Origin) -> None:
    assert await resolve(origin.repository()) == Resolved("refs/heads/main", origin.second)
    git(origin.path, "checkout", "-q", "--detach", "feature/x")
    assert await resolve(origin.repository()) == Resolved("HEAD", origin.feature)


async def test_a_commit_means_itself_and_nobody_is_asked(origin: Origin) -> None:
    assert await resolve(origin.repository(f"#{origin.first}")) == Resolved(origin.first, origin.first)
    assert origin.server.authorizations == []


async def test_what_was_resolved_is_checked_out_though_the_branch_moved_on(origin: Origin, tmp_path: Path) -> None:
    resolved = await resolve(origin.repository())
    commit(origin.path, late="x")
    checked_out = await check_out(origin.repository(), tmp_path / "out", resolved=resolved)
    assert checked_out.commit == origin.second
    assert files_of(tmp_path / "out") == ["abc", "sub/dir/def"]


async def test_a_ref_that_is_not_there_is_told(origin: Origin, tmp_path: Path) -> None:
    for suffix in ("#nothing", "?tag=main", "#deadbeef"):
        with pytest.raises(GitRefNotFound, match="does not contain ref"):
            await resolve(origin.repository(suffix))
    with pytest.raises(GitRefNotFound) as caught:
        await resolve(origin.repository(f"#{origin.first[:7]}"))
    assert caught.value.hint == "a commit is named by its full ID"
    with pytest.raises(GitRefNotFound, match=f"does not contain ref {'ab' * 20}"):
        await check_out(origin.repository(f"#{'ab' * 20}"), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["srv"]


async def test_an_empty_repository_has_no_default_branch(served: Server, tmp_path: Path) -> None:
    init(tmp_path / "srv" / "empty.git")
    with pytest.raises(GitRefNotFound, match="does not contain ref HEAD"):
        await resolve(GitRepository(served.url("empty.git")))


async def test_a_checksum_is_that_of_the_commit_or_of_its_tag(origin: Origin) -> None:
    tag = git(origin.path, "rev-parse", "v1")
    assert tag != origin.first
    for checksum in (tag, origin.first, origin.first[:8]):
        assert (await resolve(origin.repository(f"?tag=v1&checksum={checksum}"))).commit == origin.first
    with pytest.raises(GitChecksumMismatch, match=f"expected checksum to match abcdef, got {origin.second}"):
        await resolve(origin.repository().with_flags(checksum="abcdef"))
    with pytest.raises(GitChecksumMismatch):
        await resolve(origin.repository(f"?checksum=abcdef#{origin.first}"))


async def test_the_git_directory_is_kept_if_asked_for(origin: Origin, tmp_path: Path) -> None:
    repository = parse_source(origin.server.url("repo.git", "me:secret") + "?branch=feature/x&keep-git-dir=1")
    assert isinstance(repository, GitRepository)
    out = (await check_out(repository, tmp_path / "out")).directory
    assert git(out, "rev-parse", "HEAD", "refs/heads/feature/x").split() == [origin.feature] * 2
    assert git(out, "status", "--porcelain") == ""
    assert git(out, "rev-list", "--count", "HEAD") == "1", "it is shallow"
    assert git(out, "remote", "get-url", "origin") == origin.server.url("repo.git")
    for path in (out / ".git").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


async def test_a_subdirectory_has_no_git_directory(origin: Origin, tmp_path: Path) -> None:
    await check_out(origin.repository("?subdir=sub&keep-git-dir=1"), tmp_path / "out")
    assert files_of(tmp_path / "out") == ["dir/def"]
    with pytest.raises(GitDirectoryNotFound):
        await check_out(origin.repository("?subdir=.git"), tmp_path / "other")


async def test_a_subdirectory_does_not_lead_out_of_the_repository(origin: Origin, tmp_path: Path) -> None:
    (origin.path / "out").symlink_to("/etc")
    (origin.path / "up").symlink_to("../../../sub")
    commit(origin.path)
    with pytest.raises(GitDirectoryNotFound, match=r"failed to open directory out of .*: No such file or directory"):
        await check_out(origin.repository("#:out"), tmp_path / "a")
    with pytest.raises(GitDirectoryNotFound, match="Not a directory"):
        await check_out(origin.repository("#:abc"), tmp_path / "a")
    await check_out(origin.repository("#:up"), tmp_path / "b")
    assert files_of(tmp_path / "b") == ["dir/def"]
    await check_out(origin.repository("#:../../.."), tmp_path / "c")
    assert "abc" in files_of(tmp_path / "c")


async def test_modes_do_not_follow_the_daemons_umask(origin: Origin, tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        out = (await check_out(origin.repository(), tmp_path / "out")).directory
    finally:
        os.umask(previous)
    assert [stat.S_IMODE((out / p).stat().st_mode) for p in (".", "sub", "abc")] == [0o755, 0o755, 0o644]


@pytest.mark.parametrize("is_old", [False, True])
async def test_submodules_are_fetched_unless_refused(origin: Origin, tmp_path: Path, is_old: bool) -> None:
    origin.server.is_old = is_old
    inner = init(tmp_path / "srv" / "inner.git")
    old = commit(inner, inner="old\n")
    commit(inner, inner="new\n")
    outer = init(tmp_path / "srv" / "outer.git")
    (outer / ".gitmodules").write_text('[submodule "m"]\n\tpath = deep/m\n\turl = ../inner.git\n')
    git(outer, "update-index", "--add", "--cacheinfo", f"160000,{old},deep/m")
    git(outer, "add", ".gitmodules")
    git(outer, "commit", "-qm", "with a submodule")
    url = origin.server.url("outer.git")
    await check_out(GitRepository(url), tmp_path / "with")
    assert files_of(tmp_path / "with") == [".gitmodules", "deep/m/inner"]
    assert (tmp_path / "with" / "deep" / "m" / "inner").read_text() == "old\n"
    await check_out(GitRepository(url, submodules=False), tmp_path / "without")
    assert files_of(tmp_path / "without") == [".gitmodules"]
    await check_out(GitRepository(url, keep_git_dir=True), tmp_path / "kept")
    assert git(tmp_path / "kept" / "deep" / "m", "rev-parse", "HEAD") == old


@pytest.mark.parametrize("transport", ["file", "ext"])
async def test_a_submodule_does_not_reach_the_host(origin: Origin, tmp_path: Path, transport: str) -> None:
    private, mark = init(tmp_path / "private"), tmp_path / "mark"
    url = f"file://{private}" if transport == "file" else f"ext::sh -c touch% {mark}"
    (origin.path / ".gitmodules").write_text(f'[submodule "m"]\n\tpath = m\n\turl = {url}\n')
    git(origin.path, "update-index", "--add", "--cacheinfo", f"160000,{commit(private, key='secret')},m")
    git(origin.path, "add", ".gitmodules")
    git(origin.path, "commit", "-qm", "a submodule that looks around")
    with pytest.raises(GitFailed, match=rf"transport '{transport}' not allowed"):
        await check_out(origin.repository(), tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["file:///srv/repo.git", "/srv/repo.git", "ext::sh -c id", "fd::3", "-u"])
async def test_a_transport_to_the_host_is_no_repository(url: str, tmp_path: Path) -> None:
    assert not isinstance(parse_source(url, context=True), GitRepository)
    with pytest.raises((InvalidRemote, GitFailed)):
        await resolve(GitRepository(url))


async def test_nothing_of_the_daemons_surroundings_matters_to_git(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, mark = tmp_path / "home", tmp_path / "mark"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (hooks / "post-checkout").chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n[url "http://127.0.0.1:1/"]\n\tinsteadOf = {origin.server.url("")}\n'
    )
    for name, value in {
        "HOME": str(home),
        "GIT_DIR": str(origin.path / ".git"),
        "GIT_WORK_TREE": str(tmp_path),
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath={hooks}'",
        "GIT_SSH_COMMAND": f"touch {mark}",
        "GIT_TRACE": str(mark),
    }.items():
        monkeypatch.setenv(name, value)
    await check_out(origin.repository(), tmp_path / "out")
    assert files_of(tmp_path / "out") == ["abc", "sub/dir/def"]
    assert not mark.exists()


async def test_a_token_is_sent_and_not_shown(origin: Origin, tmp_path: Path) -> None:
    origin.server.password = "t0p-secret"
    with pytest.raises(GitFailed) as caught:
        await resolve(origin.repository())
    assert "could not read Username" in str(caught.value), "nobody is asked"
    with pytest.raises(GitFailed, match=r"Authentication failed|could not read|403|401") as caught:
        await resolve(origin.repository(), GitAccess(authorization="Basic d3Jvbmc="))
    secrets = {"GIT_AUTH_TOKEN": "t0p-secret"}
    access = GitAccess(authorization=git_authorization(origin.repository().remote, secrets))
    kept = origin.repository("?keep-git-dir=1")
    out = (await check_out(kept, tmp_path / "out", access)).directory
    assert "uthorization" not in (out / ".git" / "config").read_text()
    assert "secret" not in repr(access)


async def test_a_name_and_password_in_the_url_are_sent(origin: Origin, tmp_path: Path) -> None:
    origin.server.password = "t0p-secret"
    url = origin.server.url("repo.git", "x-access-token:t0p-secret")
    assert (await resolve(GitRepository(url))).commit == origin.second
    with pytest.raises(GitRefNotFound) as caught:
        await resolve(GitRepository(url, "nothing"))
    assert "secret" not in str(caught.value)


async def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match=r"failed to read http://127\.0\.0\.1:1/x\.git: .*(refused|connect)"):
        await resolve(GitRepository("http://127.0.0.1:1/x.git"))


async def test_a_plain_file_server_gives_branches_tags_and_commits(origin: Origin, tmp_path: Path) -> None:
    bare = tmp_path / "srv" / "plain.git"
    git(tmp_path, "clone", "-q", "--bare", f"file://{origin.path}", str(bare))
    git(bare, "update-server-info")
    with serve_files(tmp_path / "srv") as server:
        for number, (ref, expected) in enumerate(
            {"": origin.second, "feature/x": origin.feature, "v1": origin.first, origin.first: origin.first}.items()
        ):
            checked_out = await check_out(GitRepository(server.url("plain.git"), ref), tmp_path / f"out{number}")
            assert checked_out.commit == expected
            assert "abc" in files_of(checked_out.directory)


async def test_from_a_server_that_gives_only_refs_a_commit_is_found_among_all(origin: Origin, tmp_path: Path) -> None:
    origin.server.is_old = True
    git(origin.path, "tag", "-d", "light", "v1")
    repository = origin.repository(f"#{origin.first}")
    assert (await check_out(repository, tmp_path / "out")).commit == origin.first
    assert files_of(tmp_path / "out") == ["abc"]


@contextmanager
def _git_daemon(root: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        "git",
        "daemon",
        "--listen=127.0.0.1",
        f"--port={port}",
        "--reuseaddr",
        "--export-all",
        f"--base-path={root}",
    ]
    process = subprocess.Popen([*argv, str(root)], env=SURROUNDINGS, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline, "the git daemon does not answer"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


async def test_gits_own_protocol_is_spoken(origin: Origin, tmp_path: Path) -> None:
    with _git_daemon(tmp_path / "srv") as port:
        repository = GitRepository(f"git://127.0.0.1:{port}/repo.git", "feature/x", "sub")
        assert (await check_out(repository, tmp_path / "out")).commit == origin.feature
        assert files_of(tmp_path / "out") == ["dir/def"]


async def test_ssh_uses_no_keys_and_no_configuration_of_the_daemons_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\necho "$SSH_AUTH_SOCK $*" >{told}\ncat {tmp_path}/lamina-git-*/known_hosts >>{told}\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/the/daemons/own")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    repository = GitRepository("git@host.invalid:repo.git", "main")
    with pytest.raises(GitFailed, match=r"failed to read git@host\.invalid:repo\.git"):
        await resolve(repository)
    words = told.read_text().split()
    assert words[:3] == ["-F", "/dev/null", "-o"], "no agent"
    assert {"IdentityFile=none", "BatchMode=yes", "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no"} < set(
        words
    )
    with pytest.raises(GitFailed):
        await resolve(repository, GitAccess(known_hosts="host.invalid ssh-x AAAA", ssh_agent=Path("/the/agent")))
    assert told.read_text().startswith("/the/agent -F")
    assert "StrictHostKeyChecking=yes" in told.read_text()
    assert told.read_text().endswith("host.invalid ssh-x AAAA")


async def test_a_repository_of_sha256_objects_is_checked_out(served: Server, tmp_path: Path) -> None:
    path = tmp_path / "srv" / "long.git"
    path.mkdir()
    git(path, "init", "-q", "-b", "main", "--object-format=sha256")
    expected = commit(path, abc="x")
    assert len(expected) == 64
    assert (await check_out(GitRepository(served.url("long.git")), tmp_path / "out")).commit == expected


async def test_a_silent_server_is_given_up_and_its_client_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        with pytest.raises(GitTimeout, match=r"it took more than 0\.5 s"):
            await resolve(GitRepository(remote), GitAccess(timeout_s=0.5))
        assert _processes_with(remote) == []


async def test_cancelling_ends_all_of_git_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        remote = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        resolved = Resolved("refs/heads/main", "ab" * 20)
        fetching = asyncio.create_task(check_out(GitRepository(remote), tmp_path / "out", resolved=resolved))
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        with connection:
            assert _processes_with(remote)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert _processes_with(remote) == []
    assert list(tmp_path.iterdir()) == []


def _processes_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes()
            if text.encode() in line:
                found.append(line.decode())
    return found


async def test_a_host_without_git_is_told(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitMissing, match="the git command is not installed") as caught:
        await resolve(origin.repository())
    assert caught.value.hint == "install it: apt-get install git"
