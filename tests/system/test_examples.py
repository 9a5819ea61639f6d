"""The examples, built on a Debian of `lamina bootstrap` and run: what a user of each kind of Dockerfile sees.

The base is made once and kept below the checkout's ``.lamina``. Packages come from Debian's archive and from the Python index that the
host's pip uses; where one is not to be reached, what needs it is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from conftest import ROOT, Daemon, leftovers

EXAMPLES = ROOT / "examples"
KEPT_BASE = ROOT / ".lamina" / "debian-12.tar"
REACH_TIMEOUT_S = 15
BUILD_TIMEOUT_S = 200
"""Of a hanging mirror, not of a slow machine: each build takes a fraction of it."""
WAIT_S = 30


def ask(url: str, *, authorities: str | None = None, data: bytes | None = None) -> str:
    context = ssl.create_default_context(cafile=authorities)
    with urlopen(Request(url, data=data), timeout=REACH_TIMEOUT_S, context=context) as answer:
        text: bytes = answer.read(1 << 20)
    return text.decode(errors="replace")


def skip_unless_reached(url: str, authorities: str | None = None) -> None:
    try:
        ask(url, authorities=authorities)
    except OSError as error:
        pytest.skip(f"{url} cannot be reached: {error}")


def skip_without_archive() -> None:
    """Go on only if the first archive that the host's apt knows can be reached."""
    form = "$(REPO_URI)dists/$(RELEASE)/InRelease"
    done = subprocess.run(["apt-get", "indextargets", "--format", form], capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("http")]
    if not found:
        pytest.skip("the host's apt knows no archive behind a URL")
    skip_unless_reached(found[0])


@pytest.fixture(scope="session")
def archive() -> None:
    """Debian's archive can be reached."""
    skip_without_archive()


@pytest.fixture(scope="module")
def debian(needs_root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the image ``debian:12``: one that an earlier run made, else from Debian's packages."""
    if not KEPT_BASE.exists():
        skip_without_archive()
    served = Daemon(tmp_path_factory.mktemp("examples"), command_timeout_s=BUILD_TIMEOUT_S)
    try:
        served.start()
        if KEPT_BASE.exists():
            served.lamina_ok("load", "-i", KEPT_BASE)
        else:
            served.lamina_ok("bootstrap", "debian:12")
            keep_base(served)
        yield served
    finally:
        served.discard()
    assert leftovers(served) == [], served.last_log[-4000:]


def keep_base(daemon: Daemon) -> None:
    KEPT_BASE.parent.mkdir(exist_ok=True)
    unfinished = KEPT_BASE.with_suffix(f".{daemon.token}")
    try:
        daemon.lamina_ok("save", "-o", unfinished, "debian:12")
        unfinished.replace(KEPT_BASE)
    finally:
        unfinished.unlink(missing_ok=True)


def build(daemon: Daemon, tag: str, example: str | Path, *options: str | Path) -> str:
    """Build an example under a name; returns what the build prints."""
    return daemon.lamina_ok("build", "--network", "host", *options, "-t", tag, EXAMPLES / example)


def run(daemon: Daemon, *words: str) -> str:
    return daemon.lamina_ok("run", "--rm", *words)


@contextmanager
def running(daemon: Daemon, image: str) -> Iterator[str]:
    """The name of a container in the background."""
    name = f"running-{image}"
    daemon.lamina_ok("run", "-d", "--name", name, image)
    try:
        yield name
    finally:
        daemon.lamina_ok("rm", "-f", "-v", name)


def address(daemon: Daemon, container: str) -> str:
    return daemon.lamina_ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container)


def wait_until_it_logs(daemon: Daemon, container: str, text: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while text not in daemon.lamina_ok("logs", container):
        assert time.monotonic() < deadline, daemon.lamina("logs", container)
        time.sleep(0.1)


def ask_when_it_listens(url: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return ask(url)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def cached_steps(output: str) -> list[bool]:
    """Of each step of a build, whether its outcome came from the cache."""
    return ["Using cache" in step for step in re.split(r"^Step \d+/\d+ : ", output, flags=re.MULTILINE)[1:]]


def test_every_example_says_in_two_lines_what_it_is_and_how_it_is_run() -> None:
    for directory in sorted(EXAMPLES.iterdir()):
        if directory.name != "quickstart":
            assert len((directory / "README.md").read_text().splitlines()) == 2, directory.name


# what needs the base alone


def test_onbuild_triggers_of_a_parent_are_carried_out_in_its_child(debian: Daemon) -> None:
    build(debian, "book-parent", "onbuild/parent")
    output = build(debian, "book", "onbuild/child", "--build-arg", "AUTHOR=somebody")
    assert "Executing 4 build triggers" in output
    assert run(debian, "book") == "by somebody\n1: the tide is out\n2: the boats lie still"
    assert run(debian, "--entrypoint", "ls", "book", "/poem").split() == ["1.txt", "2.txt", "book"]


def test_here_documents_are_scripts_of_any_kind_and_files(debian: Daemon) -> None:
    build(debian, "heredoc", "heredoc", "--build-arg", "GREETING=good evening")
    printed = run(debian, "heredoc")
    assert printed.startswith("first script\nsecond script\n")
    files = dict(re.findall(r"==> (\w+) <==\n(.*?)\n?(?=\n==>|\Z)", printed, flags=re.DOTALL))
    assert files == {
        "bash": "2 words, the last is second",
        "expanded": "good evening, heredoc and nobody",
        "indented": "good evening",
        "literal": "$GREETING, ${NAME}",
        "one": "first file",
        "perl": "1 4 9 16 25",
        "shell": "line 1 of heredoc\nline 2 of heredoc\nline 3 of heredoc",
        "two": "second file",
    }


def test_a_monorepos_targets_have_their_own_packages_in_place(debian: Daemon) -> None:
    build(debian, "api", "monorepo", "--target", "api")
    build(debian, "web", "monorepo")
    assert run(debian, "api") == "api greets api shared web"
    assert run(debian, "web") == "web greets api shared web"
    files = run(debian, "api", "find", "/repo", "-type", "f", "-printf", "%P\\n").split()
    assert sorted(files) == [
        "packages/api/package.conf",
        "packages/api/src/main.sh",
        "packages/shared/package.conf",
        "packages/shared/src/changes.log",
        "packages/shared/src/names.sh",
        "packages/web/package.conf",
    ]


def test_a_monorepos_first_steps_run_again_only_for_the_files_that_they_take(debian: Daemon, tmp_path: Path) -> None:
    context = tmp_path / "monorepo"
    shutil.copytree(EXAMPLES / "monorepo", context)
    resolving = slice(1, 4)
    build(debian, "changing", context)
    (context / "packages/web/src/main.sh").write_text("echo changed")
    assert cached_steps(build(debian, "changing", context))[resolving] == [True, True, True]
    assert run(debian, "changing") == "changed"
    (context / "packages/web/package.conf").write_text("name=web\nneeds=none\n")
    result = debian.lamina("build", context)
    assert result.code == 1
    assert "returned a non-zero code: 1" in result.err


def test_secrets_are_there_for_their_step_alone(debian: Daemon, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nopqrstuvwxyzabcdefghijklm")
    (tmp_path / "user").write_text("a friend of mine")
    refused = debian.lamina("build", EXAMPLES / "secret")
    assert refused.code == 1
    assert "secret key: not found" in refused.err
    secrets = ["--secret", f"id=key,src={tmp_path / 'key'}", "--secret", f"id=user,src={tmp_path / 'user'}"]
    printed = build(debian, "opened", "secret", *secrets)
    assert run(debian, "opened") == "meet me at the harbour\n400 root\nopened by a friend of mine"
    assert run(debian, "opened", "sh", "-c", "ls -A /run") == run(debian, "debian:12", "sh", "-c", "ls -A /run")
    told = printed + debian.lamina_ok("history", "--no-trunc", "opened") + debian.lamina_ok("inspect", "opened")
    assert "nopqrstuvwxyz" not in told
    assert "a friend of mine" not in told


def test_a_user_that_is_not_root_has_what_was_given_to_it(debian: Daemon) -> None:
    build(debian, "diary", "non-root")
    identity = "uid=1500(keeper) gid=2000(keepers) groups=2000(keepers)"
    assert run(debian, "diary", "who").splitlines() == [
        identity,
        identity,
        "root:root 755 .",
        "root:keepers 550 diary.sh",
        "keeper:keepers 750 /var/lib/diary",
        "keeper:keepers 644 /var/lib/diary/first.txt",
    ]
    pages = ["-v", "pages:/var/lib/diary"]
    assert run(debian, *pages, "diary", "write", "the second page") == ""
    assert run(debian, *pages, "diary") == "keeper: the second page\nthe first page"
    assert run(debian, "diary") == "the first page"
    refused = debian.lamina("run", "--rm", "--entrypoint", "touch", "diary", "/srv/diary/x")
    assert (refused.code, "Permission denied" in refused.err) == (1, True)


# what downloads packages


@pytest.mark.slow
def test_a_c_program_is_all_that_is_in_its_image(debian: Daemon, archive: None) -> None:
    build(debian, "census", "c-multistage", "--build-arg", "VERSION=1.0")
    # the root has what every container gets, too
    assert re.fullmatch(r"census 1\.0: \d+ below /", run(debian, "census"))
    assert run(debian, "census", "/census") == "census 1.0: 1 below /census"
    assert debian.lamina_ok("inspect", "-f", "{{len .RootFS.Layers}}", "census") == "1"
    size = int(debian.lamina_ok("inspect", "-f", "{{.Size}}", "census"))
    assert size < 2_000_000


@pytest.mark.slow
def test_apts_lists_and_downloads_are_kept_for_the_next_build_and_not_in_the_image(
    debian: Daemon, archive: None
) -> None:
    build(debian, "releases", "apt-cache")
    assert run(debian, "releases") == "bookworm\ntrixie"
    kept = ["/var/lib/apt/lists", "/var/cache/apt/archives"]
    assert "_Packages" not in run(debian, "--entrypoint", "ls", "releases", *kept)
    # of what is to be got, a part is there
    again = build(debian, "releases", "apt-cache", "--build-arg", "PACKAGES=jq tree")
    assert re.search(r"^Need to get [^/\n]+/[^/\n]+ of archives", again, flags=re.MULTILINE), again
    assert run(debian, "--entrypoint", "tree", "releases", "--noreport", "/srv") == "/srv"


@pytest.mark.slow
def test_a_site_is_served_and_says_its_port_and_how_its_health_is_found(debian: Daemon, archive: None) -> None:
    build(debian, "site", "static-site")
    assert debian.lamina_ok("inspect", "-f", "{{json .Config.ExposedPorts}}", "site") == '{"80/tcp":{}}'
    check = debian.lamina_ok("inspect", "-f", "{{json .Config.Healthcheck}}", "site")
    assert json.loads(check) == {
        "Test": ["CMD-SHELL", "curl --fail --silent --output /dev/null http://127.0.0.1/health"],
        "Interval": 1_000_000_000,
        "Timeout": 3_000_000_000,
        "StartPeriod": 5_000_000_000,
        "Retries": 3,
    }
    with running(debian, "site") as container:
        url = f"http://{address(debian, container)}"
        assert "<h1>Tides</h1>" in ask_when_it_listens(url)
        assert ask(f"{url}/health") == ""
        assert "color: #156" in ask(f"{url}/style.css")
        assert '"GET /style.css HTTP/1.1" 200' in debian.lamina_ok("logs", container)
        debian.lamina_ok("stop", container)
        assert debian.lamina_ok("inspect", "-f", "{{.State.ExitCode}}", container) == "0"


@pytest.mark.slow
def test_a_node_service_is_tested_in_the_build_and_ends_when_it_is_told(debian: Daemon, archive: None) -> None:
    output = build(debian, "words", "node-app")
    assert re.search(r"^# pass 2$", output, flags=re.MULTILINE), output
    with running(debian, "words") as container:
        wait_until_it_logs(debian, container, "counting words on port 8080")
        url = f"http://{address(debian, container)}:8080"
        assert ask(url, data=b"to be or not to be") == '{"be":2,"to":2,"not":1,"or":1}\n'
        debian.lamina_ok("stop", container)
        assert debian.lamina_ok("inspect", "-f", "{{.State.ExitCode}}", container) == "0"
        assert debian.lamina_ok("logs", container).endswith("stopping")


def pip_setting(name: str) -> str | None:
    """What the host's pip is told, by its environment or its files."""
    told = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
    if told:
        return told
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def skip_without_pip_index(directory: Path) -> None:
    """Go on only if pip's own index can be reached."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), "jinja2"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip's index cannot be reached: {done.stderr[-200:]}")


@pytest.mark.slow
def test_a_python_program_has_packages_of_the_index_that_the_caller_names(
    debian: Daemon, archive: None, tmp_path: Path
) -> None:
    index = pip_setting("index-url")
    authorities = pip_setting("cert") or ssl.get_default_verify_paths().cafile
    if index is None:
        skip_without_pip_index(tmp_path)
    elif not index.startswith("http"):
        pytest.skip(f"a build does not see the index {index}")
    else:
        skip_unless_reached(f"{index.rstrip('/')}/jinja2/", authorities)
    secrets = []
    lines = ["[global]", *([f"index-url = {index}"] if index else [])]
    if authorities is not None:
        lines.append("cert = /run/secrets/authorities.pem")
        secrets += ["--secret", f"id=authorities,src={authorities}"]
    (tmp_path / "pip.conf").write_text("\n".join(lines) + "\n")
    secrets += ["--secret", f"id=pip.conf,src={tmp_path / 'pip.conf'}"]
    build(debian, "letter", "python-app", *secrets)
    assert run(debian, "letter", "<you>", "me") == "<p>Hello, &lt;you&gt;! Hello, me!</p>"
    inside = run(
        debian, "--entrypoint", "sh", "letter", "-c", "ls -A /etc/pip.conf /run/secrets /opt/app/bin/pip 2>&1 || true"
    )
    assert inside.count("No such file") == 2
