"""Paths inside a container's root are looked at as the container sees them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.linux.paths import is_directory_in_root, read_in_root


def test_only_regular_files_are_read_and_nothing_else_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/file")
    assert read_in_root(tmp_path, "/link", limit=4) == b"hell"
    names = ["fifo", "directory"]
    if os.geteuid() == 0:
        os.mknod(tmp_path / "device", 0o20666, os.makedev(4, 250))  # a terminal that is not there: opening it is ENXIO
        names.append("device")
    for name in names:
        with pytest.raises(OSError, match="not a regular file"):
            read_in_root(tmp_path, name, limit=4)


def test_links_to_directories_stay_in_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hosts").symlink_to("/usr")
    assert not is_directory_in_root(root, "/etc/hosts")
    (root / "usr").mkdir()
    assert is_directory_in_root(root, "/etc/hosts")
