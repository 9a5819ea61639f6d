"""The Dockerfile language, sentence by sentence; and nothing but its own error for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.dockerfile import DockerfileError, IgnoreRules, parse
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.ignore import InvalidPattern, match_wildcard
from lamina.dockerfile.words import expand_word, expand_words

ENV = {"x": "abc.tar.gz", "empty": "", "n": "1"}


def only(text: str) -> ins.Instruction:
    return parse(f"FROM a\n{text}").stages[0].instructions[0]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("$x", "abc.tar.gz"),
        ("${x}y", "abc.tar.gzy"),
        ("$none", ""),
        ("${none:-d}", "d"),
        ("${empty-d}", ""),
        ("${empty:-d}", "d"),
        ("${none-$n}", "1"),
        ("${n:+set}", "set"),
        ("${none+set}", ""),
        ("${x#*.}", "tar.gz"),
        ("${x##*.}", "gz"),
        ("${x%.*}", "abc.tar"),
        ("${x%%.*}", "abc"),
        ("${x/a/A}", "Abc.tar.gz"),
        ("${x//a/A}", "Abc.tAr.gz"),
        ("'$x'", "$x"),
        ('"$n $n"', "1 1"),
        ("\\$x", "$x"),
        ('"\\""', '"'),
    ],
)
def test_variables_are_expanded_as_buildkit_does(word: str, value: str) -> None:
    assert expand_word(word, ENV) == value


def test_a_required_variable_that_is_missing_is_an_error() -> None:
    with pytest.raises(DockerfileError, match="must be set"):
        expand_word("${none:?must be set}", ENV)


def test_words_are_split_outside_quotes_only() -> None:
    assert expand_words("a 'b c' \"$n d\"  e", ENV) == ["a", "b c", "1 d", "e"]


def test_continued_lines_may_hold_comments_and_blank_lines() -> None:
    run = only("RUN one \\\n  # comment\n\n  two")
    assert isinstance(run, ins.Run)
    assert run.words[0].split() == ["one", "two"]
    assert (run.first, run.last) == (2, 5)


def test_the_escape_directive_changes_continuation() -> None:
    run = parse("# escape=`\nFROM a\nRUN dir `\n c:\\\\").stages[0].instructions[0]
    assert isinstance(run, ins.Run)
    assert run.words == ("dir  c:\\\\",)


def test_heredocs_are_read_whole() -> None:
    run = only("RUN <<EOF\necho $x\nEOF")
    assert isinstance(run, ins.Run)
    assert [(h.name, h.text, h.expand) for h in run.heredocs] == [("EOF", "echo $x\n", True)]
    copy = only("COPY <<-'one' <<two /d/\n\tliteral\n\tone\ntext\ntwo")
    assert isinstance(copy, ins.Copy)
    assert [(h.text, h.expand) for h in copy.heredocs] == [("literal\n", False), ("text\n", True)]


def test_json_and_shell_forms() -> None:
    for text, words, shell in (
        ('CMD ["a","b"]', ("a", "b"), False),
        ("CMD a b", ("a b",), True),
        ("CMD [a, b]", ("[a, b]",), True),
    ):
        command = only(text)
        assert isinstance(command, ins.Cmd)
        assert (command.words, command.is_shell) == (words, shell)


def test_bom_and_crlf_are_no_part_of_the_text() -> None:
    assert parse("\ufeffFROM a\r\nRUN b\r\n".encode()).stages[0].instructions[0].source == "RUN b"


@pytest.mark.parametrize(
    ("text", "line", "detail"),
    [
        ("FORM a", 1, "did you mean FROM?"),
        ("FROM a\nCOPY --chwon=1 a b", 2, "did you mean --chown?"),
        ("FROM a\nCOPY x", 2, "at least two arguments"),
        ("FROM a b", 1, "one or three"),
        ("RUN x", 1, "no build stage"),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc"),
        ("FROM a\nONBUILD FROM b", 2, "isn't allowed"),
        ("FROM a\nENV", 2, "at least one argument"),
        ("FROM a\nSHELL sh", 2, "JSON form"),
    ],
)
def test_errors_name_the_line_and_show_it(text: str, line: int, detail: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        parse(text)
    assert raised.value.line == line
    assert detail in raised.value.detail
    assert f"{line} | >>> {text.splitlines()[line - 1]}" in str(raised.value)


@given(st.text(alphabet=st.sampled_from("FROM RUNCOPYENV \n\\\"'$%#{}[]<>EOF=-:/?*ab1`"), max_size=200))
def test_any_text_parses_or_is_a_dockerfile_error(text: str) -> None:
    try:
        parse(text)
    except DockerfileError as error:
        assert str(error)


@given(st.text(alphabet=st.sampled_from("$\\\"'{}:-+?#%/*ab[]^ "), max_size=60))
def test_any_word_expands_or_is_a_dockerfile_error(text: str) -> None:
    for call in (expand_word, expand_words):
        try:
            call(text, ENV)
        except DockerfileError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("rules", "path", "excluded"),
    [
        ("*.log", "a.log", True),
        ("*.log", "d/a.log", False),
        ("**/*.log", "d/e/a.log", True),
        ("d", "d/a", True),
        ("d\n!d/a", "d/a", False),
        ("d\n!d/a", "d/b", True),
        ("*\n!keep", "keep", False),
        ("!keep\n*", "keep", True),
        ("/a", "a", True),
        ("a?c", "abc", True),
        ("**", "x/y", True),
        ("a/**/b", "a/b", True),
        ("# c\n\na", "a", True),
    ],
)
def test_ignore_rules_are_docker_s(rules: str, path: str, excluded: bool) -> None:
    assert IgnoreRules.parse(rules).excludes(path) is excluded


@given(
    st.text(alphabet=st.sampled_from("ab*?[]!/.\\\n^-"), max_size=40),
    st.text(alphabet=st.sampled_from("ab/."), min_size=1, max_size=12),
)
def test_any_ignore_file_decides_or_is_refused(rules: str, path: str) -> None:
    try:
        assert IgnoreRules.parse(rules).excludes(path) in (True, False)
        match_wildcard(rules.replace("\n", ""), path)
    except InvalidPattern as error:
        assert str(error)
