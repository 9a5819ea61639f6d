"""Every parameter and field of the container endpoints at least once, through docker-py, against the specification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compat.api_specification import specification
from compat.matrix import tables
from compat.matrix.keys import every_key
from compat.matrix.lab import Case, Lab
from conftest import Daemon

_CASES = tables.all_cases()


def _parameter(name: str, case: Case) -> object:
    marks = [pytest.mark.xfail(strict=True, reason=case.defect)] if case.defect else []
    return pytest.param(case, id=name, marks=marks)


@pytest.fixture
def lab(daemon: Daemon, tmp_path: Path) -> Iterator[Lab]:
    specification()
    made = Lab(daemon, tmp_path)
    yield made
    made.close()


def test_every_parameter_and_field_has_a_case() -> None:
    covered = {key for case in _CASES.values() for key in case.keys}
    known = every_key()
    assert sorted(known - covered) == [], "no case covers these"
    assert sorted(covered - known) == [], "the specification does not know these"


@pytest.mark.parametrize("case", [_parameter(*item) for item in _CASES.items()])
def test_a_request_does_what_docker_makes_of_it(case: Case, lab: Lab) -> None:
    logged = len(lab.daemon.log)
    case.check(lab)
    assert "Traceback" not in lab.daemon.log[logged:]
    assert sorted(set(case.keys) - lab.sent) == [], "the case says that it covers these, and does not send them"
