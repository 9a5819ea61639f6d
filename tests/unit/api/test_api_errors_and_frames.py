"""Every error has a status, and frames survive being cut anywhere."""

from __future__ import annotations

import importlib
import pkgutil

from hypothesis import given
from hypothesis import strategies as st

import lamina
from lamina import errors
from lamina.api.errors import error_body, error_from, kind_of, status_of
from lamina.api.frames import Decoder, encode


def all_errors(kind: type[errors.LaminaError]) -> list[type[errors.LaminaError]]:
    return [kind, *(e for sub in kind.__subclasses__() for e in all_errors(sub))]


def test_every_kind_and_every_leaf_has_a_status_of_docker_s() -> None:
    for module in pkgutil.walk_packages(lamina.__path__, "lamina."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known = {304, 400, 401, 403, 404, 409, 500, 501, 503}
    for kind in all_errors(errors.LaminaError):
        error = kind.__new__(kind)
        error.args = ("text",)
        assert status_of(error) in known, kind


def test_a_client_gets_the_kind_that_the_server_told() -> None:
    for error in (errors.NotFound("x"), errors.Conflict("x"), errors.DataLoss("x"), errors.Unsupported("x")):
        told = error_from(status_of(error), error_body(error))
        assert type(told) is type(error)
        assert told.message == "x"
        assert kind_of(error) == type(error).__name__


def test_a_bug_is_500_and_no_traceback() -> None:
    error = KeyError("inside")
    assert status_of(error) == 500
    assert set(error_body(error)) == {"message"}


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(min_size=1, max_size=50)), max_size=8), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    raw = b"".join(encode(stream, piece) for stream, piece in frames)
    decoder = Decoder()
    got: list[tuple[int, bytes]] = []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        got += decoder.feed(raw[:size])
        raw = raw[size:]
    for stream in (0, 1, 2):
        assert b"".join(d for s, d in got if s == stream) == b"".join(d for s, d in frames if s == stream)
