"""``build --output``: how it is read, and what may be written where."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lamina.cli.build_output import Output, read_each, read_output, unpack
from lamina.cli.grammar import CommandFailed


def seen(output: Output) -> tuple[str, str, tuple[str, ...]]:
    return output.kind, output.dest, output.names


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("out", ("local", "out", ())),
        ("-", ("tar", "-", ())),
        ("type=local,dest=out", ("local", "out", ())),
        ("type=tar", ("tar", "-", ())),
        ("type=oci,dest=a.tar,name=x:1", ("oci", "a.tar", ("x:1",))),
        ("type=docker,dest=-", ("docker", "-", ())),
        ("type=docker", ("image", "", ())),
        ('type=image,"name=a,b"', ("image", "", ("a", "b"))),
        ("type=cacheonly", ("cacheonly", "", ())),
    ],
)
def test_outputs_are_read_as_buildkit_reads_them(text: str, meaning: tuple[str, str, tuple[str, ...]]) -> None:
    assert seen(read_output(text)) == meaning


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dest=x", "type is required"),
        ("type=local", "dest is required"),
        ("type=zip,dest=x", "unknown output type zip"),
        ("type=oci,dest=x,push=true", "push cannot be used with output type oci"),
        ("type=image,dest=x", "dest cannot be used"),
        ("type=tar,compression=zstd", "option compression is not supported"),
        ("type=tar,dest", "invalid value dest"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(text: str, reason: str) -> None:
    with pytest.raises(CommandFailed, match=reason):
        read_each([text])


def test_only_one_output_can_be_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with pytest.raises(CommandFailed, match="only one"):
        read_each(["-", "type=oci"])


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
