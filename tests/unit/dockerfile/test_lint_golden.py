"""Every rule over Dockerfiles in tests/golden/lint: RULE has what it warns of, RULE-good what it does not.

A directory has the Dockerfile, what ``build --check`` prints about it (``expected``), and where they matter a .dockerignore and build
arguments (``build-args``, one a line). Images that stages are FROM are of linux/amd64 and have a PATH. The cases are those of BuildKit's
documentation and linter tests, and more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.dockerfile import IgnoreRules, parse
from lamina.dockerfile.lint import BaseImage, LintWarning, lint, render_check
from lamina.dockerfile.lint.rules import RULES
from lamina.oci.platform import Platform

_GOLDEN = Path(__file__).parents[2] / "golden" / "lint"
_CASES = sorted(path.name for path in _GOLDEN.iterdir())
_IMAGE = BaseImage({"PATH": "/bin"}, platform=Platform("linux", "amd64"))


def _optional(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _warnings(name: str) -> list[LintWarning]:
    case = _GOLDEN / name
    dockerfile = parse((case / "Dockerfile").read_bytes())
    pairs = [line.partition("=") for line in _optional(case / "build-args").splitlines()]
    of_stages = {stage.name for stage in dockerfile.stages} | {"scratch"}
    images = {stage.index: _IMAGE for stage in dockerfile.stages if stage.base.image not in of_stages}
    return lint(
        dockerfile,
        build_args={key: value for key, _, value in pairs},
        images=images,
        ignore=IgnoreRules.parse(_optional(case / ".dockerignore")),
    )


@pytest.mark.parametrize("name", _CASES)
def test_a_check_prints_what_is_expected(name: str) -> None:
    assert render_check(_warnings(name)) + "\n" == (_GOLDEN / name / "expected").read_text()


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_every_rule_has_a_case_that_it_warns_of_and_one_that_it_does_not(rule: str) -> None:
    assert rule in {warning.rule for warning in _warnings(rule)}
    assert rule not in {warning.rule for warning in _warnings(f"{rule}-good")}


def test_every_rule_has_its_section_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "lint.md").read_text()
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    wanted = [rule.name + (" (experimental)" if rule.is_experimental else "") for rule in RULES]
    assert sections == sorted(wanted)
