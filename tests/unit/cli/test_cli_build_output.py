"""``build --output``: how it is read."""

from __future__ import annotations

import io

import pytest

from lamina.cli.build_output import Output, read_each, read_output
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
