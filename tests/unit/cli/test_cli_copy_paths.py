"""What paths mean to ``cp``; what is expected here is what docker 28.2.2 does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.cli import copy_paths
from lamina.cli.copy_paths import Destination, Source
from lamina.cli.grammar import CommandFailed


@pytest.mark.parametrize(
    ("text", "container", "path"),
    [
        ("c:/x", "c", "/x"),
        ("c:x:y", "c", "x:y"),
        ("c:", "c", ""),
        ("/a:b", "", "/a:b"),
        ("./a:b", "", "./a:b"),
        ("../a:b", "", "../a:b"),
        ("a", "", "a"),
        ("-", "", "-"),
    ],
)
def test_a_colon_tells_a_container(text: str, container: str, path: str) -> None:
    assert copy_paths.container_and_path(text) == (container, path)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/a/b", ("/a", "b")),
        ("/a/b/", ("/a", "b")),
        ("/a/b/.", ("/a/b", ".")),
        ("/a/b/./", ("/a/b", ".")),
        ("/a/../b", ("/", "b")),
        ("//a", ("/", "a")),
        ("/", ("/", "/")),
        ("/.", ("/", ".")),
        ("a", (".", "a")),
        ("", (".", ".")),
        ("a/b", ("a", "b")),
    ],
)
def test_a_path_has_a_directory_and_a_name(path: str, parts: tuple[str, str]) -> None:
    assert copy_paths.parent_and_name(path) == parts


@pytest.mark.parametrize(
    ("path", "expected"),
    [("f", "f"), ("d/", "d/"), ("d/.", "d/."), (".", "."), ("./", "./"), ("d/../e/", "e/"), ("d/x/..", "d")],
)
def test_a_path_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert copy_paths.absolute(path) == f"{tmp_path}/{expected}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("")
    for link, target in (("ld", "d"), ("lf", "f"), ("broken", "new"), ("lost", "no/new"), ("loop", "loop")):
        (tmp_path / link).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "follow", "found", "name", "is_directory"),
    [
        ("f", False, "f", "f", False),
        ("lf", False, "lf", "lf", False),
        ("lf", True, "f", "lf", False),
        ("ld", False, "ld", "ld", False),
        ("ld", True, "d", "ld", True),
        ("ld/", False, "d", "ld", True),
        ("ld/.", False, "d", ".", True),
        ("broken", False, "broken", "broken", False),
    ],
)
def test_links_are_followed_where_docker_follows_them(
    files: Path, path: str, follow: bool, found: str, name: str, is_directory: bool
) -> None:
    expected = Source(os.path.realpath(files) + f"/{found}", name, is_directory)
    assert copy_paths.host_source(f"{files}/{path}", follow=follow) == expected


@pytest.mark.parametrize(
    ("path", "follow", "reason"),
    [
        ("nothing", False, "lstat {}/nothing: no such file or directory"),
        ("no/thing", False, "lstat {}/no: no such file or directory"),
        ("f/x", False, "not a directory"),
        ("f/", False, "not a directory"),
        ("f/.", False, "not a directory"),
        ("broken", True, "lstat {}/new: no such file or directory"),
        ("loop", True, "EvalSymlinks: too many links"),
    ],
)
def test_sources_that_are_not_there_are_refused(files: Path, path: str, follow: bool, reason: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        copy_paths.host_source(f"{files}/{path}", follow=follow)
    assert str(caught.value) == reason.format(files)


@pytest.mark.parametrize(
    ("path", "found", "exists", "is_directory"),
    [
        ("new", "new", False, False),
        ("new/", "new/", False, False),
        ("d", "d", True, True),
        ("ld", "d", True, True),
        ("lf", "f", True, False),
        ("broken", "new", False, False),
    ],
)
def test_a_link_as_destination_stands_for_what_it_leads_to(
    files: Path, path: str, found: str, exists: bool, is_directory: bool
) -> None:
    assert copy_paths.host_destination(f"{files}/{path}") == Destination(f"{files}/{found}", exists, is_directory)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no/new", 'invalid output path: directory "{}/no" does not exist'),
        ("f/", "stat {}/f/: not a directory"),
        ("loop", "stat {}/loop: too many levels of symbolic links"),
        ("lost", "stat {}/no: no such file or directory"),
    ],
)
def test_destinations_that_cannot_be_are_refused(files: Path, path: str, reason: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        copy_paths.check_host_destination(f"{files}/{path}")
        copy_paths.host_destination(f"{files}/{path}")
    assert str(caught.value) == reason.format(files)


FILE, DIRECTORY, CONTENTS = Source("/s/a", "a", False), Source("/s/a", "a", True), Source("/s/a", ".", True)


@pytest.mark.parametrize(
    ("source", "path", "there", "where"),
    [
        (FILE, "/d", "directory", ("/d", "a")),
        (FILE, "/d", "file", ("/", "d")),
        (FILE, "/d", "", ("/", "d")),
        (FILE, "/d/", "", "no such directory"),
        (FILE, "/d/.", "", "no such directory"),
        (DIRECTORY, "/d", "directory", ("/d", "a")),
        (DIRECTORY, "/d", "file", "cannot copy directory"),
        (DIRECTORY, "/d", "", ("/", "d")),
        (DIRECTORY, "/d/", "", ("/", "d")),
        (CONTENTS, "/d", "directory", ("/d", ".")),
        (CONTENTS, "/d", "file", "cannot copy directory"),
        (CONTENTS, "/d", "", ("/", "d")),
    ],
)
def test_where_a_copy_goes_depends_on_what_is_there(
    source: Source, path: str, there: str, where: tuple[str, str] | str
) -> None:
    destination = Destination(path, exists=bool(there), is_directory=there == "directory")
    if isinstance(where, str):
        with pytest.raises(CommandFailed, match=where):
            copy_paths.placed(source, destination)
    else:
        assert copy_paths.placed(source, destination) == where


@pytest.mark.parametrize(
    ("name", "base", "new", "expected"),
    [
        ("a", "a", "b", "b"),
        ("a/a", "a", "b", "b/a"),
        ("ab", "a", "b", "ab"),
        ("./x", ".", "b", "b/x"),
        (".", ".", "b", "b"),
        ("/x", "/", "b", "b/x"),
        ("", "/", "b", "b"),
        ("x", "/", ".", "./x"),
    ],
)
def test_only_the_first_part_of_a_name_is_another_one(name: str, base: str, new: str, expected: str) -> None:
    assert copy_paths.renamed(name, base, new) == expected
