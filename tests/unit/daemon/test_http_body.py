"""Framing of bodies: nothing of what lies behind a body is taken, nothing of the body is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.http.body import ChunkedFraming, CountedFraming, Framing
from lamina.http.head import MalformedRequest


def chunked(pieces: list[bytes], trailer: bytes = b"") -> bytes:
    return b"".join(b"%X;ext=1\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n" + trailer + b"\r\n"


def fed(framing: Framing, raw: bytes, size: int) -> tuple[bytes, bytes]:
    """What a framing takes of bytes that come in pieces of *size*, and what it leaves."""
    body, position = b"", 0
    while position < len(raw) and not framing.is_finished:
        piece, rest = framing.feed(raw[position : position + size])
        body += piece
        position += min(size, len(raw) - position) - len(rest)
    return body, raw[position:]


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=30), st.integers(1, 50), st.booleans())
def test_chunks_in_any_pieces_give_the_body_and_leave_what_follows(
    pieces: list[bytes], following: bytes, size: int, has_trailer: bool
) -> None:
    framing = ChunkedFraming()
    raw = chunked(pieces, b"Digest: x\r\nOther: y\r\n" if has_trailer else b"")
    assert fed(framing, raw + following, size) == (b"".join(pieces), following)
    assert framing.is_finished


@given(st.binary(max_size=60), st.binary(max_size=30), st.integers(1, 50))
def test_a_counted_body_ends_at_its_length(body: bytes, following: bytes, size: int) -> None:
    framing = CountedFraming(len(body))
    assert fed(framing, body + following, size) == (body, following)
    assert framing.is_finished


@given(st.binary(max_size=100), st.integers(1, 20))
def test_any_bytes_are_chunks_or_refused(data: bytes, size: int) -> None:
    try:
        fed(ChunkedFraming(), data, size)
    except MalformedRequest as error:
        assert "chunk" in error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"1_0\r\n",
        b"ffffffffffffffffffff\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc" + b"0",
        b"3;" + b"x" * 5000,
        b"0\r\n" + b"A: b\r\n" * 5000,
    ],
)
def test_broken_chunks_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedRequest):
        fed(ChunkedFraming(), raw, 1 << 20)
