"""Heads of requests: read in any pieces, refused when they are none, and never a byte beyond their end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.http.head import MAXIMUM_HEAD_BYTES, MAXIMUM_TARGET_BYTES, HeadParser, MalformedRequest, RequestHead

_EXEC = (
    b"POST /v1.51/exec/ab/start?x=1&x=%20 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    b"Content-Length: 2\r\nX-A: one\r\nx-a: two\r\n\r\n"
)


def parsed(data: bytes) -> RequestHead:
    parser = HeadParser()
    assert parser.feed(data) == b""
    assert parser.head is not None
    return parser.head


@given(st.lists(st.integers(0, len(_EXEC)), max_size=6), st.binary(max_size=20))
def test_a_head_is_the_same_however_it_is_cut_and_what_follows_is_left(cuts: list[int], following: bytes) -> None:
    parser = HeadParser()
    bounds = [0, *sorted(cuts), len(_EXEC)]
    for start, end in pairwise(bounds):
        if end < len(_EXEC):
            assert parser.feed(_EXEC[start:end]) == b""
        else:
            assert parser.feed(_EXEC[start:] + following) == following
            break
    head = parser.head
    assert head is not None
    assert (head.method, head.path, head.query) == ("POST", "/v1.51/exec/ab/start", "x=1&x=%20")
    assert (head.length, head.upgrade, head.keep_alive) == (2, "tcp", True)
    assert head.headers["X-A"] == head.headers["x-a"] == "one, two"


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_head_or_refused_or_unfinished(data: bytes) -> None:
    parser = HeadParser()
    try:
        parser.feed(data)
    except MalformedRequest as error:
        assert error.message.startswith("malformed request: ")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : value\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        HeadParser().feed(data)


def test_a_head_that_never_ends_is_refused_before_it_is_held() -> None:
    parser = HeadParser()
    parser.feed(b"GET / HTTP/1.1\r\nX: ")
    with pytest.raises(MalformedRequest, match="head is longer"):
        for _ in range(MAXIMUM_HEAD_BYTES // 1024 + 1):
            parser.feed(b"a" * 1024)


def test_a_target_that_is_too_long_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="target is longer"):
        HeadParser().feed(b"GET /" + b"a" * MAXIMUM_TARGET_BYTES + b" HTTP/1.1\r\n\r\n")


def test_empty_lines_before_a_request_are_ignored() -> None:
    assert parsed(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").path == "/"


def test_a_target_with_scheme_and_host_is_its_path() -> None:
    head = parsed(b"GET http://localhost:2375/info?a=b HTTP/1.1\r\n\r\n")
    assert (head.path, head.query) == ("/info", "a=b")


def test_only_http_1_1_without_close_keeps_the_connection() -> None:
    assert parsed(b"GET / HTTP/1.1\r\n\r\n").keep_alive
    assert not parsed(b"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").keep_alive
    assert not parsed(b"GET / HTTP/1.0\r\n\r\n").keep_alive


def test_a_chunked_body_has_no_length() -> None:
    assert parsed(b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n").length is None
