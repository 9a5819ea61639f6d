"""``lamina cp``: docker's answers, and docker's files, for the same two paths."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Daemon, Result
from terminals import Terminal

# what there is in the container, below /o
_INSIDE = """
rm -rf /o; mkdir -p /o/d/e /o/clash /o/up /o/r/dir; cd /o
echo one > f; chmod 4711 f; echo two > d/e/g; ln d/e/g d/again; mkfifo d/p; mknod d/null c 1 3; chmod 1770 d
ln -s f lf; ln -s d ld; ln -s /o/d la; ln -s nothing broken; ln -s ../f up/out; ln -s e clash/e
echo old > r/file; ln -s dir r/ld; ln -s file r/lf; ln -s new r/broken
find . -exec touch -h -d '2020-01-01 00:00:00' {} +
"""


@pytest.fixture(scope="module")
def container(daemon: Daemon) -> Iterator[str]:
    daemon.docker_ok("run", "-d", "--name", "copied", "busybox", "sleep", "1000")
    yield "copied"
    daemon.docker_ok("rm", "-f", "copied")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """What there is on the host."""
    root = tmp_path / "here"
    (root / "d" / "sub").mkdir(parents=True)
    (root / "t" / "e").mkdir(parents=True)
    for path, text in (("f", "hello"), ("d/x", "x"), ("d/h1", "linked"), ("d/ü", ""), ("n" * 120, "")):
        (root / path).write_text(text)
    os.link(root / "d" / "h1", root / "d" / "h2")
    os.mkfifo(root / "d" / "p")
    os.chown(root / "d" / "x", 1000, 1001)
    (root / "d" / "x").chmod(0o4755)
    for link, target in (("lf", "f"), ("ld", "d"), ("broken", "new"), ("loop", "loop"), ("d/up", "../f")):
        (root / link).symlink_to(target)
    for each in (root, *root.rglob("*")):
        os.utime(each, ns=(10**18 + 123_456_789,) * 2, follow_symlinks=False)
    return root


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory, but for the times of directories that something was put into."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        link = os.readlink(path) if path.is_symlink() else ""
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        mtime_ns = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_nlink, mtime_ns, link, data)
    return found


def said(result: Result) -> tuple[int, str, str]:
    """How a command ended, the program's name and docker's log of its own workings aside."""
    lines = [line for line in result.err.splitlines() if not line.startswith('time="')]
    return result.code, result.out, "\n".join(lines).replace("lamina", "docker")


_LISTING = """
cd /o; find . ! -type d -exec stat -c '%n %f %s %u:%g %Y %N' {} + | sort
find . -type d -exec stat -c '%n %f %u' {} + | sort
"""

Outcome = tuple[tuple[int, str, str], dict[str, tuple[object, ...]], str]


def both(daemon: Daemon, here: Path, run: Callable[[Callable[..., Result], Path], Result]) -> list[Outcome]:
    """The outcomes of a copy by each command line, from the same beginnings: what was said, and the files here and there."""
    outcomes = []
    place = here.with_name("place")
    for command in (daemon.docker, daemon.lamina):
        daemon.docker_ok("exec", "copied", "sh", "-c", _INSIDE)
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run(["cp", "-a", here, place], check=True)
        result = run(command, place)
        outcomes.append((said(result), tree(place), daemon.docker_ok("exec", "copied", "sh", "-c", _LISTING)))
    return outcomes


_INTO = """
f copied:/o/r; f copied:/o/r/; f copied:/o/r/new; f copied:/o/r/new/; f copied:/o/r/file; f copied:/o/r/file/; f copied:/o/r/ld
f copied:/o/r/lf; f copied:/o/r/broken; f copied:/o/r/no/new; f copied:o/r/new; f copied:; f copied:/o/r/dir/..; f copied:/dev/null
d copied:/o/r; d copied:/o/r/new; d copied:/o/r/new/; d copied:/o/r/new/.; d copied:/o/r/file; d/ copied:/o/r; d/. copied:/o/r
d/. copied:/o/r/new; d/. copied:/o/r/file; lf copied:/o/r/new; -L lf copied:/o/r/new; -L lf copied:/o/r/dir; ld copied:/o/r/new
ld/ copied:/o/r/new; ld/. copied:/o/r/new; -L ld copied:/o/r/new; -L ld copied:/o/r/dir; ld/ copied:/o/r/dir; broken copied:/o/r
-L broken copied:/o/r; -L loop copied:/o/r; loop copied:/o/r; f/ copied:/o/r; f/. copied:/o/r; f/x copied:/o/r; no copied:/o/r
no/no copied:/o/r; ./f copied:/o/r; . copied:/o/r/new; f nothing:/x; -q=false f copied:/o/r/new; -q=false d copied:/o/r/new
-q=false f copied:/o/r/lf; -a d copied:/o/r/new; a b; copied:/a copied:/b; f ./copied:x; - nothing:/x; - copied:/o/f
""".replace("\n", ";").strip("; ")

_OUT = """
copied:/o/f .; copied:/o/f new; copied:/o/f new/; copied:/o/f f; copied:/o/f f/; copied:/o/f lf; copied:/o/f ld; copied:/o/f broken
copied:/o/f loop; copied:/o/f no/new; copied:/o/f f/x; copied:/o/f d/p; copied:o/f new; copied:/o/f x/../new; copied:/o/f /dev/null
copied:/o/d .; copied:/o/d new; copied:/o/d new/; copied:/o/d new/.; copied:/o/d f; copied:/o/d/. .; copied:/o/d/. new; copied:/o/d/. f
copied:/o/d/e/. t; copied:/o/up .; copied:/o/up/. .; copied:/o/up/out t; copied:/o/clash/. t; copied:/o/lf new; -L copied:/o/lf new
-L copied:/o/lf t; copied:/o/ld t; copied:/o/ld/ t; copied:/o/ld/. t; -L copied:/o/ld t; -L copied:/o/la new; -L copied:/o/la/. new
copied:/o/broken new; -L copied:/o/broken new; copied:/o/f/ new; copied:/o/no new; copied:/o/d/null new; copied: new; nothing:/x new
-q=false copied:/o/f new; -q=false copied:/o/d .; copied:/o/f -; copied:/o/d/. -; -L copied:/o/lf -; copied:/o/no -
""".replace("\n", ";").strip("; ")


@pytest.mark.parametrize("words", [words.strip() for text in (_INTO, _OUT) for words in text.split(";")])
def test_a_copy_does_and_says_what_docker_s_does(daemon: Daemon, container: str, here: Path, words: str) -> None:
    docker_s, ours = both(daemon, here, lambda command, place: command("cp", *words.split(), cwd=place))
    assert ours == docker_s


@pytest.mark.parametrize("words", [["f"], [], ["f", ""], ["", "copied:/"], ["--bogus"], ["a", "b", "c"]], ids=repr)
def test_wrong_command_lines_are_answered_as_docker_s(daemon: Daemon, container: str, words: list[str]) -> None:
    assert said(daemon.lamina("cp", *words)) == said(daemon.docker("cp", *words))


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a", "b"):
            header = tarfile.TarInfo(name)
            header.size, header.mtime = 4, 10**9
            tar.addfile(header, io.BytesIO(b"text"))
    return buffer.getvalue()


@pytest.mark.parametrize("words", ["- copied:/o/r", "- copied:/o/r/ld", "-q=false - copied:/o/r", "- copied:/o/r/file"])
def test_a_tar_on_standard_input_is_unpacked(daemon: Daemon, container: str, here: Path, words: str) -> None:
    docker_s, ours = both(daemon, here, lambda run, place: run("cp", *words.split(), data=_archive()))
    assert ours == docker_s


def test_what_is_no_tar_is_refused(daemon: Daemon, container: str) -> None:
    daemon.docker_ok("exec", container, "sh", "-c", _INSIDE)
    result = daemon.lamina("cp", "-", "copied:/o/r", data=b"x" * 2000)
    assert (result.code, result.err[:27]) == (1, "Error response from daemon:")


@pytest.mark.parametrize("state", ["created", "ended"])
def test_a_container_that_does_not_run_is_copied_from_and_to(daemon: Daemon, here: Path, state: str) -> None:
    daemon.docker_ok("create", "--name", "still", "-v", "/v", "busybox", "true")
    if state == "ended":
        daemon.docker_ok("start", "-a", "still")
    daemon.lamina_ok("cp", here / "f", "still:/v/f")
    daemon.lamina_ok("container", "cp", f"{here}/d/.", "still:/root")
    daemon.lamina_ok("cp", "still:/v/f", here / "back")
    daemon.lamina_ok("cp", "still:/root/.", here / "root")
    assert (here / "back").read_text() == "hello"
    assert (here / "root" / "x").read_text() == "x"
    daemon.docker_ok("rm", "-v", "still")


def test_owners_are_kept_or_become_the_container_s_user(daemon: Daemon, here: Path) -> None:
    daemon.docker_ok("run", "-d", "--name", "of-bob", "-u", "bob", "busybox", "sleep", "1000")
    daemon.lamina_ok("cp", f"{here}/d/x", "of-bob:/tmp/kept")
    daemon.lamina_ok("cp", "--archive", f"{here}/f", "of-bob:/tmp/given")
    owners = daemon.docker_ok("exec", "of-bob", "stat", "-c", "%u:%g", "/tmp/kept", "/tmp/given")
    assert owners.split() == ["1000:1001", "1000:1000"]
    daemon.docker_ok("rm", "-f", "of-bob")


def test_a_large_file_goes_through_piece_by_piece(daemon: Daemon, container: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40 + b"x"
    (tmp_path / "large").write_bytes(data)
    assert daemon.lamina("cp", "-q=false", tmp_path / "large", "copied:/large").err.startswith(
        "Successfully copied 41.9MB"
    )
    daemon.lamina_ok("cp", "copied:/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    daemon.docker_ok("exec", container, "rm", "/large")


def test_somebody_at_a_terminal_is_told_how_much_was_copied(daemon: Daemon, container: str, here: Path) -> None:
    terminal = Terminal(daemon, "cp", str(here / "f"), "copied:/tmp")
    terminal.expect(b"Successfully copied 2.05kB to copied:/tmp")
    assert terminal.end() == 0
    terminal = Terminal(daemon, "cp", "-q", str(here / "f"), "copied:/tmp")
    assert terminal.end() == 0
    assert terminal.shown == b""
    assert daemon.lamina("cp", here / "f", "copied:/tmp").err == ""
