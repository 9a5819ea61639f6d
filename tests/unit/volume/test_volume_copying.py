"""Copies of trees: what they share with the copy before is what it is now."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from lamina.linux.deletion import remove_tree
from lamina.volume import copying
from lamina.volume.copying import Earlier, copy_tree


@pytest.fixture(autouse=True)
def no_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed a moment ago is relied on, too, so that no test need wait."""
    monkeypatch.setattr(copying, "_RACY_NS", -1_000_000_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_bytes(b"0000" * 2048)
    return path


def test_what_has_not_changed_is_the_same_file(source: Path, tmp_path: Path) -> None:
    first = copy_tree(source, tmp_path / "one")
    second = copy_tree(source, tmp_path / "two", Earlier(tmp_path / "one", first.marks))
    assert (tmp_path / "one" / "file").stat().st_ino == (tmp_path / "two" / "file").stat().st_ino
    assert second.shared == second.size == 8192
    (source / "file").chmod(0o600)
    copy_tree(source, tmp_path / "three", Earlier(tmp_path / "two", second.marks))
    assert (tmp_path / "three" / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "two" / "file").stat().st_mode & 0o777 != 0o600


def test_what_a_mapping_has_changed_is_copied(source: Path, tmp_path: Path) -> None:
    """A mapping changes a file without a word to its inode, as long as its page was not written."""
    with (source / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:4] = b"1111"
        first = copy_tree(source, tmp_path / "one")
        mapped[0:4] = b"2222"
        copy_tree(source, tmp_path / "two", Earlier(tmp_path / "one", first.marks))
    assert (tmp_path / "one" / "file").read_bytes()[:4] == b"1111"
    assert (tmp_path / "two" / "file").read_bytes()[:4] == b"2222"


def test_holes_stay_holes(source: Path, tmp_path: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(500 << 20)
        file.write(b"in the middle")
    copy_tree(source, tmp_path / "copy")
    status = (tmp_path / "copy" / "sparse").stat()
    assert (status.st_size, status.st_blocks * 512 < 1 << 20) == (1 << 30, True)
    with (tmp_path / "copy" / "sparse").open("rb") as file:
        file.seek(500 << 20)
        assert file.read(13) == b"in the middle"


def test_a_tree_that_is_deeper_than_a_path_may_be_long(source: Path, tmp_path: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("directory", dir_fd=fd)
        inner = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    copy_tree(source, tmp_path / "copy")
    depth, fd = 0, os.open(tmp_path / "copy", os.O_RDONLY)
    while "directory" in os.listdir(fd):
        inner = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd, depth = inner, depth + 1
    os.close(fd)
    for top in (source, tmp_path / "copy"):
        remove_tree(top)  # what cleans up behind tests cannot go so deep
    assert depth == 1500


def test_links_lead_nowhere(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (source / "link").symlink_to(tmp_path / "secret")
    (source / "directory").symlink_to(tmp_path)
    copy_tree(source, tmp_path / "copy")
    assert os.readlink(tmp_path / "copy" / "link") == str(tmp_path / "secret")
    assert (tmp_path / "copy" / "directory").is_symlink()
