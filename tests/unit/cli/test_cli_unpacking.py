"""What a tar from the daemon may write where: for ``build --output``, and by docker cp's rules."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lamina.cli.grammar import CommandFailed
from lamina.cli.unpacking import unpack


def archive(*members: tuple[str, bytes, str]) -> Any:
    """(name, tar's type, link or contents) as a body in small pieces."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, text in members:
            header = tarfile.TarInfo(name)
            header.type, header.mode, header.mtime = kind, 0o4755, 77
            if kind == tarfile.REGTYPE:
                header.size = len(text)
            else:
                header.linkname = text
            tar.addfile(header, io.BytesIO(text.encode()))
    data = buffer.getvalue()
    return [data[i : i + 700] for i in range(0, len(data), 700)]


def test_files_are_written_over_what_was_there_and_links_are_kept(tmp_path: Path) -> None:
    body = archive(
        ("d", tarfile.DIRTYPE, ""),
        ("d/f", tarfile.REGTYPE, "text"),
        ("d/g", tarfile.LNKTYPE, "d/f"),
        ("sh", tarfile.SYMTYPE, "/bin/busybox"),
    )
    for _ in range(2):
        unpack(body, tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "d" / "f").read_text() == "text"
    assert (out / "d" / "f").samefile(out / "d" / "g")
    assert os.readlink(out / "sh") == "/bin/busybox"
    status = (out / "d" / "f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_uid) == (0o4755, 77, os.getuid())
    assert (out / "d").stat().st_mtime == 77


@pytest.mark.parametrize(
    "members",
    [
        [("../f", tarfile.REGTYPE, "x")],
        [("a", tarfile.SYMTYPE, "/tmp"), ("a/f", tarfile.REGTYPE, "x")],
        [("a", tarfile.SYMTYPE, ".."), ("a/f", tarfile.REGTYPE, "x")],
        [("f", tarfile.LNKTYPE, "../outside")],
        [("a/..", tarfile.DIRTYPE, "")],
    ],
)
def test_no_file_leads_out_of_the_directory(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(CommandFailed, match="leads out of"):
        unpack(archive(*members), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "outside"]


def test_a_link_that_was_there_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "f").symlink_to(tmp_path / "outside")
    unpack(archive(("f", tarfile.REGTYPE, "new")), tmp_path / "out")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (tmp_path / "out" / "f").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "kind", "link", "reason"),
    [
        ("f", tarfile.DIRTYPE, "", 'cannot overwrite non-directory "{}/f" with directory "{}"'),
        ("d", tarfile.REGTYPE, "x", 'cannot overwrite directory "{}/d" with non-directory "{}"'),
        ("link", tarfile.DIRTYPE, "", 'cannot overwrite non-directory "{}/link" with directory "{}"'),
        ("new", tarfile.SYMTYPE, "../outside", 'invalid symlink "{}/new" -> "../outside"'),
        ("d/new", tarfile.SYMTYPE, "../../x", 'invalid symlink "{}/d/new" -> "../../x"'),
        ("link/f", tarfile.REGTYPE, "x", "link/f leads out of {}"),
    ],
)
def test_a_copy_keeps_kinds_and_takes_no_link_that_leads_out(
    tmp_path: Path, name: str, kind: bytes, link: str, reason: str
) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "f").write_text("mine")
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(CommandFailed) as caught:
        unpack(archive((name, kind, link)), root, as_cp=True)
    assert str(caught.value) == reason.format(root, root)
    assert (root / "f").read_text() == "mine"
    assert (root / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_a_copy_takes_links_that_lead_elsewhere_in_the_container(tmp_path: Path) -> None:
    links = {"absolute": "/etc/passwd", "below": "d/e", "d/up": "../f", "broken": "nothing"}
    members = [("d", tarfile.DIRTYPE, ""), *((name, tarfile.SYMTYPE, link) for name, link in links.items())]
    unpack(archive(*members), tmp_path, as_cp=True)
    assert {name: os.readlink(tmp_path / name) for name in links} == links


def test_entries_get_the_names_that_they_are_given(tmp_path: Path) -> None:
    body = archive((".", tarfile.DIRTYPE, ""), ("./f", tarfile.REGTYPE, "x"), ("./g", tarfile.LNKTYPE, "./f"))
    unpack(body, tmp_path, name_of=lambda name: "new" + name[1:], as_cp=True)
    assert (tmp_path / "new" / "f").samefile(tmp_path / "new" / "g")
    before = tmp_path.stat().st_mode
    unpack(body, tmp_path, as_cp=True)
    assert (tmp_path / "f").read_text() == "x"
    assert tmp_path.stat().st_mode == before


def test_times_are_exact_and_those_that_are_none_do_no_harm(tmp_path: Path) -> None:
    for text, expected in (("1700000000.123456789", 1_700_000_000_123_456_789), ("-1.5", -1_500_000_000), ("inf", 0)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            header = tarfile.TarInfo("f")
            header.pax_headers = {"mtime": text}
            tar.addfile(header)
        unpack([buffer.getvalue()], tmp_path)
        assert (tmp_path / "f").stat().st_mtime_ns == expected


def test_a_failure_leaves_directories_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        unpack(archive(("d", tarfile.DIRTYPE, ""), ("../f", tarfile.REGTYPE, "x")), tmp_path)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o4755


@pytest.mark.parametrize("body", [b"x" * 2000, b"".join(archive(("f", tarfile.REGTYPE, "text")))[:514]])
def test_what_is_no_tar_is_said(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(CommandFailed, match="the archive is damaged"):
        unpack([body], tmp_path)


def test_a_name_with_a_zero_byte_is_said(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        header = tarfile.TarInfo("f")
        header.pax_headers = {"path": "a\0b"}
        tar.addfile(header)
    with pytest.raises(CommandFailed, match="the archive is damaged"):
        unpack([buffer.getvalue()], tmp_path)
