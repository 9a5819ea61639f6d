"""The filters parameter in both of its forms."""

from __future__ import annotations

import pytest

from lamina.api.filters import Filters, InvalidFilter

_ACCEPTED = ("label", "status", "dangling", "id")


@pytest.mark.parametrize(
    "text",
    [
        '{"status":["running","exited"]}',
        '{"status":{"running":true,"exited":true}}',
        '{"status":{"running":false,"exited":true}}',
    ],
)
def test_both_forms_mean_the_same(text: str) -> None:
    filters = Filters.parse(text, _ACCEPTED)
    assert dict(filters) == {"status": ("running", "exited")}
    assert filters.allows("status", "exited")
    assert not filters.allows("status", "paused")


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_no_filter_lets_everything_pass(text: str | None) -> None:
    filters = Filters.parse(text, _ACCEPTED)
    assert len(filters) == 0
    assert filters.allows("status", "anything")
    assert filters.allows_prefix("id", "abc")
    assert filters.allows_labels({})
    assert filters.boolean("dangling") is None


@pytest.mark.parametrize("text", ["[", "[]", '{"status":1}', '{"status":[1]}', '{"status":{"a":"b"}}', "null"])
def test_what_is_no_filters_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter):
        Filters.parse(text, _ACCEPTED)


def test_an_unknown_filter_is_named() -> None:
    with pytest.raises(InvalidFilter) as raised:
        Filters.parse('{"status":["a"],"colour":["red"]}', _ACCEPTED)
    assert raised.value.message == "invalid filter 'colour'"


def test_an_id_passes_by_its_beginning() -> None:
    filters = Filters.parse('{"id":["abc","f"]}', _ACCEPTED)
    assert filters.allows_prefix("id", "abcdef")
    assert filters.allows_prefix("id", "1", "ff")
    assert not filters.allows_prefix("id", "ab")


def test_every_label_that_is_asked_for_must_be_there() -> None:
    labels = {"a": "1", "b": "", "c": "x=y"}
    for wanted, expected in (
        ('["a"]', True),
        ('["a=1","b"]', True),
        ('["c=x=y"]', True),
        ('["b="]', True),
        ('["a="]', False),
        ('["a=2"]', False),
        ('["a","d"]', False),
    ):
        assert Filters.parse(f'{{"label":{wanted}}}', _ACCEPTED).allows_labels(labels) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [('["true"]', True), ('["1"]', True), ('["0"]', False), ('{"false":true}', False)]
)
def test_booleans(value: str, expected: bool) -> None:
    assert Filters.parse(f'{{"dangling":{value}}}', _ACCEPTED).boolean("dangling") is expected


@pytest.mark.parametrize("value", ['["maybe"]', '["true","false"]'])
def test_what_is_no_boolean_is_refused(value: str) -> None:
    with pytest.raises(InvalidFilter, match="invalid filter 'dangling="):
        Filters.parse(f'{{"dangling":{value}}}', _ACCEPTED).boolean("dangling")
