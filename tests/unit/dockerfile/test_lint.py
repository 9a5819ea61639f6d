"""Lint beside its rules: what is handed in, ``# check=``, and what is said in short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.dockerfile import DockerfileError, parse
from lamina.dockerfile.lint import (
    BaseImage,
    CheckOptions,
    LintViolation,
    LintWarning,
    lint,
    platform_args,
    render_check,
    render_summary,
)
from lamina.dockerfile.lint.rules import RULES
from lamina.dockerfile.lint.variables import did_you_mean
from lamina.errors import InvalidArgument
from lamina.oci.platform import Platform


def _lint(text: str, **known: object) -> list[tuple[str, int]]:
    return [(warning.rule, warning.first) for warning in lint(parse(text), **known)]  # type: ignore[arg-type]


def test_rules_are_named_and_explained_as_in_the_documentation() -> None:
    urls = {rule.name: rule.url for rule in RULES}
    assert len(urls) == 22
    assert urls["JSONArgsRecommended"] == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert urls["FromAsCasing"] == "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"
    assert urls["SecretsUsedInArgOrEnv"] == "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/"
    assert urls["InvalidBaseImagePlatform"] == ""


def test_a_warning_has_all_that_is_shown_of_it() -> None:
    (warning,) = lint(parse("FROM scratch\nMAINTAINER \\\n me\nRUN x\n", filename="web/Dockerfile"))
    assert warning == LintWarning(
        rule="MaintainerDeprecated",
        description="The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        detail="Maintainer instruction is deprecated in favor of using label",
        url="https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
        first=2,
        last=3,
        excerpt="web/Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> MAINTAINER \\\n   3 | >>>  me\n"
        "   4 |     RUN x\n--------------------",
    )
    assert (
        warning.short == "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"
    )


def test_a_build_says_in_short_what_a_check_says_in_full() -> None:
    warnings = lint(parse("FROM scratch as a\nCMD x\n"))
    assert render_summary(warnings).splitlines() == [
        " 2 warnings found (use --check to expand):",
        " - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
        " - JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
    ]
    assert render_summary(warnings[:1], "more elsewhere").startswith(" 1 warning found (more elsewhere):\n")
    assert render_summary([]) == ""
    assert render_check([]) == "Check complete, no warnings found."


def test_a_violation_names_each_rule_once() -> None:
    error = LintViolation(lint(parse("FROM scratch as a\nFROM scratch as B\n")))
    assert isinstance(error, InvalidArgument)
    assert str(error) == "lint violation found for rules: FromAsCasing, StageNameCasing"


def test_stages_that_are_not_needed_are_checked_by_their_text_and_their_from_alone() -> None:
    text = "FROM scratch AS a\nCOPY $foo .\nCMD x\nFROM $BASE as B\nENV a b\nFROM a\nCMD x\n"
    everything = set(_lint(text))
    assert set(_lint(text, stages={0, 2})) == everything - {("LegacyKeyValueFormat", 5)}
    assert everything == {
        ("UndefinedVar", 2),
        ("JSONArgsRecommended", 3),
        ("StageNameCasing", 4),
        ("FromAsCasing", 4),
        ("InvalidDefaultArgInFrom", 4),
        ("UndefinedArgInFrom", 4),
        ("LegacyKeyValueFormat", 5),
        ("JSONArgsRecommended", 7),
    }


def test_what_a_base_image_sets_is_defined() -> None:
    text = "FROM debian AS a\nCOPY $LANG /\nCMD x\nFROM a\nCOPY $LANG $PATH /\n"
    assert _lint(text, images={0: BaseImage({"LANG": "C"})}) == [("JSONArgsRecommended", 3)]
    assert _lint(text, images={0: BaseImage({"LANG": "C"}, has_shell=True)}) == []
    assert ("UndefinedVar", 2) in _lint(text, images={0: BaseImage()})


def test_of_an_unknown_base_image_any_variable_may_come() -> None:
    assert _lint("FROM debian AS a\nCOPY $LANG /\nFROM a\nCOPY $LANG /\n") == []


def test_triggers_of_a_base_image_are_checked_where_the_from_is() -> None:
    image = BaseImage(triggers=("ENV a b", "COPY $x /", "NONSENSE"))
    assert _lint("ARG V\nFROM debian AS a\nFROM a\n", images={0: image}) == [
        ("LegacyKeyValueFormat", 2),
        ("UndefinedVar", 2),
    ]


def test_build_arguments_count_where_they_are_declared() -> None:
    text = "ARG BASE\nFROM scratch${BASE}\nARG DIR=$nowhere\nWORKDIR $DIR\n"
    assert _lint(text, build_args={"DIR": "/abs"}) == []
    assert _lint(text) == [("UndefinedVar", 3), ("WorkdirRelativePath", 4)]


def test_a_global_argument_has_its_value_in_a_stage_that_declares_it() -> None:
    assert _lint("ARG DIR=/abs\nFROM scratch\nARG DIR\nWORKDIR $DIR\n") == []


def test_the_predefined_arguments_are_those_of_the_build() -> None:
    predefined = platform_args(Platform("linux", "amd64"), Platform("linux", "arm64", "v8"), "web")
    assert predefined["TARGETPLATFORM"] == "linux/arm64/v8"
    assert (predefined["BUILDARCH"], predefined["TARGETVARIANT"], predefined["TARGETSTAGE"]) == ("amd64", "v8", "web")
    image = BaseImage(platform=Platform("linux", "amd64"))
    (warning,) = lint(parse("FROM debian:$TARGETARCH"), predefined=predefined, images={0: image})
    assert warning.detail == (
        'Base image debian:arm64 was pulled with platform "linux/amd64", expected "linux/arm64" for current build'
    )


def test_what_the_build_will_refuse_does_not_stop_lint() -> None:
    text = "ARG BAD=${x:?no}\nFROM ${BAD:?no}\nFROM scratch\nCOPY ${y:?no} /\nENV $z=${\nCMD x\nEXPOSE 1/no /tcp\n"
    rules = _lint(text)
    assert ("UndefinedVar", 4) in rules
    assert ("JSONArgsRecommended", 6) in rules


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", CheckOptions()),
        ("skip=A, B", CheckOptions(skip=frozenset("AB"))),
        ("skip=all;error=true", CheckOptions(skip=frozenset(["all"]), is_error=True)),
        (" error = 0 ; experimental = A", CheckOptions(experimental=frozenset("A"))),
    ],
)
def test_check_options(text: str, options: CheckOptions) -> None:
    assert CheckOptions.parse(text) == options


@pytest.mark.parametrize(
    ("text", "named"), [("skip", "skip"), ("slip=A", "slip"), ("error=maybe", "error=maybe"), ("skip=A;", "")]
)
def test_check_options_that_are_wrong_are_named(text: str, named: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        lint(parse(f"# check={text}\nFROM scratch\n"))
    assert raised.value.detail == f'failed to parse check options: invalid check option "{named}"'


def test_a_build_argument_stands_in_for_the_directive() -> None:
    file = parse("# check=error=true\nFROM scratch as a\nMAINTAINER me\n")
    args = {"BUILDKIT_DOCKERFILE_CHECK": "skip=FromAsCasing"}
    assert CheckOptions.of(file, {}).is_error
    assert not CheckOptions.of(file, args).is_error
    assert [warning.rule for warning in lint(file, build_args=args)] == ["MaintainerDeprecated"]


def test_two_slips_are_a_slip_and_three_are_another_name() -> None:
    assert did_you_mean("PAHT", ["HOME", "PATH"], "$") == " (did you mean $PATH?)"
    assert did_you_mean("DIR", ["DIRS", "DIRX"]) == " (did you mean DIRS?)"
    assert did_you_mean("abc", ["xyz", "abcdef", ""]) == ""
    assert did_you_mean("abc", []) == ""
    assert did_you_mean("a" * 101, ["a" * 100]) == ""


_words = (
    "FROM from scratch AS a $x ${x:-y} ${ A=1 b 80/TCP 1:2 -- --from=a --platform=$y --mount=x=$z /d \" ' <<E E".split()
)
_keywords = "FROM RUN COPY ADD ENV ARG LABEL CMD ENTRYPOINT ONBUILD HEALTHCHECK EXPOSE WORKDIR user Shell # \\".split()
_line = st.tuples(st.sampled_from(_keywords), st.lists(st.sampled_from(_words), max_size=4).map(" ".join)).map(" ".join)


@given(st.lists(_line | st.just(""), max_size=8).map(lambda lines: "\n".join(["FROM scratch AS a", *lines])))
def test_whatever_can_be_read_can_be_checked(text: str) -> None:
    try:
        file = parse(text)
    except DockerfileError:
        return
    for warning in lint(file):
        assert 1 <= warning.first <= warning.last <= len(file.lines)
        assert "{" not in warning.detail.replace("${", "")
