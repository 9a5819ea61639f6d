"""Variables and quotes: BuildKit's shell lexer (Dockerfile reference, "Environment replacement")."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamina.dockerfile import DockerfileError
from lamina.dockerfile.words import expand_text, expand_word, expand_words

ENV = {
    "x": "value",
    "empty": "",
    "path": "/a/b.tar.gz",
    "star": "*a*",
    "two": "a b",
    "été": "summer",
    "brackets": "[a]b",
}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("plain", "plain"),
        ("$x", "value"),
        ("${x}y", "valuey"),
        ("$x$x", "valuevalue"),
        ("$x.y", "value.y"),
        ("$unset", ""),
        ("${unset}", ""),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$été", "summer"),
        ("$12x", "x"),
        ("$@", ""),
        ("${x:-w}", "value"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${unset-w}", "w"),
        ("${unset:-$x}", "value"),
        ("${unset:-${empty:-deep}}", "deep"),
        ("${unset:-a b}", "a b"),
        ("${unset:-'}'}", "}"),
        ("${x:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${unset+w}", ""),
        ("${x:?no}", "value"),
        ("${path:#*/}", "a/b.tar.gz"),
        ("${path:##*/}", "b.tar.gz"),
        ("${path:%.*}", "/a/b.tar"),
        ("${path:%%.*}", "/a/b"),
        ("${empty?no}", ""),
    ],
)
def test_variables_are_replaced(word: str, expanded: str) -> None:
    assert expand_word(word, ENV) == expanded


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("'$x'", "$x"),
        ("'a\\'", "a\\"),
        ('"$x"', "value"),
        ('"it\'s"', "it's"),
        ('"\\"\\$x\\\\"', '"$x\\'),
        ('"a\\b"', "a\\b"),
        ("\\$x", "$x"),
        ("a\\b", "ab"),
        ("a\\\\b", "a\\b"),
        ("end\\", "end"),
        ('a"b c"d', "ab cd"),
        ("\"\"''", ""),
    ],
)
def test_quotes_and_escapes_are_taken_off(word: str, expanded: str) -> None:
    assert expand_word(word, ENV) == expanded


def test_the_escape_directive_decides_what_escapes() -> None:
    assert expand_word("C:\\$x", ENV, "`") == "C:\\value"
    assert expand_word("`$x", ENV, "`") == "$x"


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("${path#*/}", "a/b.tar.gz"),
        ("${path##*/}", "b.tar.gz"),
        ("${path%.*}", "/a/b.tar"),
        ("${path%%.*}", "/a/b"),
        ("${path#none}", "/a/b.tar.gz"),
        ("${path#?a}", "/b.tar.gz"),
        ("${path#*}", "/a/b.tar.gz"),
        ("${path##*}", ""),
        ("${path#}", "/a/b.tar.gz"),
        ("${star#\\*}", "a*"),
        ("${star%\\*}", "*a"),
        ('${star#"\\*"}', "*a*"),
        ("${brackets#[a]}", "b"),
        ("${unset#a}", ""),
        ("${x/v/V}", "Value"),
        ("${path/a/$x}", "/value/b.tar.gz"),
        ("${path/./-}", "/a/b-tar.gz"),
        ("${path//./-}", "/a/b-tar-gz"),
        ("${path//./}", "/a/btargz"),
        ("${path/\\/a/X}", "X/b.tar.gz"),
        ("${path//\\//_}", "_a_b.tar.gz"),
        ("${star//\\*/s}", "sas"),
        ("${x//*/all}", "all"),
        ("${path//\\//\\/}", "\\/a\\/b.tar.gz"),
        ("${unset/a/b}", ""),
    ],
)
def test_patterns_cut_and_replace_in_a_value(word: str, expanded: str) -> None:
    assert expand_word(word, ENV) == expanded


def test_a_quoted_backslash_before_an_ordinary_character_is_part_of_a_pattern() -> None:
    assert expand_word('${v#"a\\b"}', {"v": "a\\bc"}) == "c"


@pytest.mark.parametrize(
    ("word", "detail"),
    [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
        ("${x", "syntax error: missing '}'"),
        ("${x:-w", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{x}", "syntax error: bad substitution"),
        ("${x=w}", "unsupported modifier (=}) in substitution"),
        ("${unset?}", "unset: is not allowed to be unset"),
        ("${unset:?}", "unset: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${unset?give $x}", "unset: give value"),
        ("${x/a}", "syntax error: missing '/' in ${}"),
        ("${x/a/b", "syntax error: missing '}'"),
        ("${x#\\a}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
    ],
)
def test_a_word_that_cannot_be_read_is_refused(word: str, detail: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand_word(word, ENV)
    if "unsupported modifier" in detail:
        assert caught.value.detail.startswith("unsupported modifier (=")
    else:
        assert caught.value.detail == detail


def test_substitutions_nested_beyond_reason_are_refused() -> None:
    with pytest.raises(DockerfileError, match="nested too deeply"):
        expand_word("${u:-" * 5000 + "}" * 5000, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b", ["a", "b"]),
        ("  a\t b  ", ["a", "b"]),
        ("$two", ["a", "b"]),
        ('"$two"', ["a b"]),
        ("'a b' c", ["a b", "c"]),
        ("a\\ b", ["a b"]),
        ("x$two", ["xa", "b"]),
        ("$unset", []),
        ("'' a", ["a"]),
        ("", []),
    ],
)
def test_words_end_at_blanks_outside_quotes_also_at_those_from_a_variable(text: str, words: list[str]) -> None:
    assert expand_words(text, ENV) == words


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ('say "$x"\n', 'say "value"\n'),
        ("it's $x\n", "it's value\n"),
        ("\\$x\n", "$x\n"),
        ("${unset:-'w'}", "'w'"),
    ],
)
def test_a_here_document_keeps_its_quotes(text: str, expanded: str) -> None:
    assert expand_text(text, ENV) == expanded


_alphabet = st.text(st.sampled_from("ax$${}{}:-+?#%/*[]\\`'\" \n0é"), max_size=40)


@given(_alphabet, st.sampled_from("\\`"))
@example("${x#[z-a]}", "\\")
@example('"${x', "\\")
def test_any_text_is_expanded_or_refused_with_a_dockerfile_error(text: str, escape: str) -> None:
    for expand in (expand_word, expand_words):
        try:
            expand(text, ENV, escape)
        except DockerfileError as error:
            assert error.detail


@given(st.text(st.characters(exclude_characters="$'\"\\"), max_size=40))
def test_a_text_without_special_characters_stands_for_itself(text: str) -> None:
    assert expand_word(text, ENV) == text
    assert expand_text(text, ENV) == text


@given(st.text(st.characters(exclude_characters="'"), max_size=40))
def test_single_quotes_keep_everything(text: str) -> None:
    assert expand_word(f"'{text}'", ENV) == text
