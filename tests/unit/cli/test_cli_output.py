"""What lists look like: docker's columns, JSON, sizes and times."""

from __future__ import annotations

import pytest

from lamina.api.sizes import human_binary_size, human_size
from lamina.cli.output import Listing, go_json, go_quoted, human_duration, print_rows, print_table

_LISTING = Listing({"ID": "THE ID", "Name": "NAME"}, kind="*formatter.thing", raw="id: {{.ID}}\n")
_ROWS = [{"Name": "<b>é", "ID": "1", "Label": lambda name: f"label {name}"}]


def test_columns_are_ten_wide_at_least_and_three_apart_but_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["A", "LONGER THAN TEN", "LAST"], ["b", "c", ""]])
    assert capsys.readouterr().out == "A         LONGER THAN TEN   LAST\nb         c                 \n"


@pytest.mark.parametrize(
    ("form", "quiet", "expected"),
    [
        (None, False, "THE ID    NAME\n1         <b>é\n"),
        ("table", False, "THE ID    NAME\n1         <b>é\n"),
        (None, True, "1\n"),
        ("json", False, '{"ID":"1","Name":"\\u003cb\\u003eé"}\n'),
        ("raw", False, "id: 1\n\n"),
        ("{{json .}}", False, '{"ID":"1","Name":"<b>é"}\n'),
        (r"{{.ID}}\t{{.Name}}", False, "1\t<b>é\n"),
        (r"table {{.Name | upper}}\t{{.ID}}", False, "NAME      THE ID\n<B>É      1\n"),
        (
            r'table {{.ID}}\t{{.Label "org.some-thing"}}',
            False,
            "THE ID    some thing\n1         label org.some-thing\n",
        ),
    ],
)
def test_formats_are_docker_s(capsys: pytest.CaptureFixture[str], form: str | None, quiet: bool, expected: str) -> None:
    print_rows(_ROWS, _LISTING, ("ID", "Name"), form=form, quiet=quiet)
    assert capsys.readouterr().out == expected


def test_no_rows_are_a_header_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for form, quiet in ((None, False), (None, True), ("json", False), ("{{.ID}}", False)):
        print_rows([], _LISTING, ("ID", "Name"), form=form, quiet=quiet)
    assert capsys.readouterr().out == "THE ID    NAME\n"


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (2129920, "2.13MB"), (126_400_000, "126MB"), (999_600_000, "1000MB")],
)
def test_sizes_have_three_digits(size: int, expected: str) -> None:
    assert human_size(size) == expected


def test_binary_sizes_have_four_digits() -> None:
    assert human_binary_size(25276502016) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_lengths_of_time_are_told_as_docker_tells_them(seconds: float, expected: str) -> None:
    assert human_duration(seconds) == expected


def test_json_is_compact_sorted_and_fit_for_html() -> None:
    assert go_json({"b": "<&>", "a": "é"}) == '{"a":"é","b":"\\u003c\\u0026\\u003e"}'


def test_text_is_quoted_as_go_quotes_it() -> None:
    assert go_quoted('sh -c "é\n\x1b"') == '"sh -c \\"é\\n\\x1b\\""'
