"""Files of this machine as a tar in pieces."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from lamina.cli.grammar import CommandFailed
from lamina.cli.packing import END, entries, entry, gathered


def keep(header: tarfile.TarInfo, path: str) -> None:
    pass


def read(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def test_files_of_every_kind_are_packed_and_sockets_left_out(tmp_path: Path) -> None:
    import socket

    long = "n" * 120
    (tmp_path / long).write_text("x" * 513)
    os.link(tmp_path / long, tmp_path / "again")
    (tmp_path / "link").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    names = [long, "again", "link", "pipe", "s", ""]
    data = b"".join(entries([(f"{tmp_path}/{name}", name or ".") for name in names], keep))
    found = read(data + entry("made", b"text") + END)
    assert list(found) == [long, "again", "link", "pipe", ".", "made"]
    assert (found["again"].islnk(), found["again"].linkname) == (True, long)
    assert (found[long].size, found["made"].size, found["link"].linkname) == (513, 4, "nothing")
    assert {member.uname for member in found.values()} == {""}
    assert len(data) % tarfile.BLOCKSIZE == 0


def test_a_large_file_is_never_held_whole(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (5 << 20))
    pieces = list(gathered(entries([(f"{tmp_path}/large", "large")], keep)))
    assert max(map(len, pieces)) <= 2 << 20
    assert 5 << 20 < sum(map(len, pieces)) <= (5 << 20) + 3 * tarfile.BLOCKSIZE


def test_a_file_that_becomes_shorter_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)

    def shorten(header: tarfile.TarInfo, path: str) -> None:
        os.truncate(path, 10)

    with pytest.raises(CommandFailed, match="became shorter"):
        list(entries([(f"{tmp_path}/f", "f")], shorten))
