"""What a client makes of an error, and how little the wire's basics import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import errors
from lamina.api import versions
from lamina.api.errors import error_body, error_from, kind_of, status_of
from lamina.api.frames import Decoder, MalformedFrame, encode


class Hinted(errors.Unavailable):
    @property
    def hint(self) -> str | None:
        return "start it"


@pytest.mark.parametrize("kind", [errors.CommandNotFound, errors.CommandNotExecutable, errors.ContainerStartError])
def test_a_start_error_keeps_its_exit_code_over_the_wire(kind: type[errors.ContainerStartError]) -> None:
    error = kind("no such file")
    told = error_from(status_of(error), error_body(error))
    assert isinstance(told, errors.ContainerStartError)
    assert told.exit_code == error.exit_code


def test_a_leaf_is_told_by_its_kind_and_the_root_by_itself() -> None:
    assert kind_of(Hinted("x")) == "Unavailable"
    assert kind_of(errors.LaminaError("x")) == "LaminaError"


def test_a_hint_reaches_the_client() -> None:
    told = error_from(503, error_body(Hinted("registry is down")))
    assert isinstance(told, errors.Unavailable)
    assert (told.message, told.hint) == ("registry is down", "start it")
    assert error_from(503, {"message": "x"}).hint is None


@pytest.mark.parametrize("body", [{}, {"kind": "annotations"}, {"kind": 3}, {"message": None}, {"hint": ""}])
def test_a_server_that_tells_no_kind_is_understood_by_status(body: dict[str, object]) -> None:
    assert type(error_from(404, body)) is errors.NotFound
    assert type(error_from(500, body)) is errors.LaminaError
    assert error_from(418, body).message == "the daemon answered with status 418"


@given(st.binary(max_size=60), st.integers(1, 60))
def test_any_bytes_are_frames_or_refused(data: bytes, size: int) -> None:
    decoder = Decoder()
    try:
        pieces = [p for n in range(0, len(data), size) for p in decoder.feed(data[n : n + size])]
    except MalformedFrame:
        return
    assert all(stream <= 3 and piece for stream, piece in pieces)


def test_a_decoder_knows_whether_a_frame_is_unfinished() -> None:
    decoder = Decoder()
    frame = encode(1, b"abc")
    for byte in frame[:-1]:
        decoder.feed(bytes((byte,)))
        assert not decoder.is_between_frames
    assert decoder.feed(frame[-1:]) == [(1, b"c")]
    assert decoder.is_between_frames


def test_a_frame_without_data_gives_nothing() -> None:
    assert Decoder().feed(encode(2, b"") + encode(1, b"x")) == [(1, b"x")]


def test_versions_are_compared_as_numbers() -> None:
    assert versions.parse("1.9") < versions.parse(versions.MINIMUM) < versions.parse(versions.CURRENT)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("lamina.api.errors, lamina.api.frames, lamina.api.versions", ("msgspec", "asyncio", "json", "http")),
        ("lamina.http", ("aiohttp", "requests", "pyroute2", "http.client", "email")),
    ],
)
def test_imports_stay_small(modules: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys; before = set(sys.modules); import {modules}; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy) & set(run.stdout.split())
