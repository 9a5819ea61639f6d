"""Ignore patterns: .dockerignore as docker reads it, and the wildcards of COPY and ADD."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamina.dockerfile import IgnoreRules
from lamina.dockerfile.ignore import InvalidPattern, has_wildcard, match_wildcard


def _excluded(rules: str, path: str) -> bool:
    return IgnoreRules.parse(rules).excludes(path)


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("file", "file", True),
        ("file", "dir/file", False),
        ("dir", "dir/below/file", True),
        ("/dir", "dir/file", True),
        ("./dir/", "dir/file", True),
        ("dir/../other", "other", True),
        ("  file  ", "file", True),
        ("*", "dir/file", True),
        ("*.py", "a.py", True),
        ("*.py", "dir/a.py", False),
        ("*/*.py", "dir/a.py", True),
        ("fil?", "file", True),
        ("dir?file", "dir/file", False),
        ("dir*file", "dir/file", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "x/y/a.py", True),
        ("**", "x/y", True),
        ("dir/**", "dir", False),
        ("dir/**", "dir/a/b", True),
        ("dir/**/file", "dir/file", True),
        ("dir/**/file", "dir/a/b/file", True),
        ("dir/**/file", "dirfile", False),
        ("**file", "x/myfile", True),
        ("**file*", "x/myfile", False),
        ("**file*", "x/file1", True),
        ("a**b", "ab", True),
        ("a**b", "axb", False),
        ("a**b", "ax/b", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[!a]x", "bx", False),
        ("[!a]x", "!x", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"\**", "*a", True),
        ("a.b", "axb", False),
        ("a+(b)|$", "a+(b)|$", True),
        (".", "file", False),
        ("/", "file", False),
    ],
)
def test_a_pattern_excludes_what_docker_excludes(pattern: str, path: str, excluded: bool) -> None:
    assert _excluded(pattern, path) is excluded


def test_the_last_rule_that_matches_decides() -> None:
    assert not _excluded("*.md\n!README.md", "README.md")
    assert _excluded("!README.md\n*.md", "README.md")
    assert _excluded("*.md\n!README*.md\nREADME-secret.md", "README-secret.md")


def test_an_exception_takes_in_what_lies_below_it() -> None:
    rules = IgnoreRules.parse("dir\n!dir/kept")
    assert rules.excludes("dir/other")
    assert not rules.excludes("dir/kept/deep/file")


def test_comments_begin_in_the_first_column_and_blank_lines_say_nothing() -> None:
    rules = IgnoreRules.parse("\ufeff# a comment\n\n   \n #odd\r\nfile\r\n")
    assert not rules.excludes("# a comment")
    assert rules.excludes("#odd")
    assert rules.excludes("file")
    assert not IgnoreRules.parse("# only a comment\n")


@pytest.mark.parametrize("context", ["", ".", "/"])
def test_the_context_itself_is_never_excluded(context: str) -> None:
    assert not _excluded("**", context)


@pytest.mark.parametrize("pattern", ["[", "[]", "[]a]", "[a", "[a-]", "[-a]", "[^]", "a\\", "[a\\", "[\\]", "!", "! "])
def test_a_malformed_pattern_is_refused_and_named(pattern: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        IgnoreRules.parse(f"fine\n{pattern}\n")
    assert caught.value.pattern == pattern.strip()
    assert "syntax error in pattern" in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "directory", "entered"),
    [
        ("dir\n!dir/kept", "dir", True),
        ("dir\n!dir/kept", "dir/kept", True),
        ("dir\n!dir/kept", "dir/other", False),
        ("dir\n!other/kept", "dir", False),
        ("*\n!*/kept", "dir", True),
        ("*\n!**/kept", "dir/deep", True),
        ("*\n!**kept", "dir/deep", True),
        ("*\n!d**/kept", "dir/deep", True),
        ("dir", "dir", False),
    ],
)
def test_a_walker_enters_an_excluded_directory_only_for_an_exception(rules: str, directory: str, entered: bool) -> None:
    assert IgnoreRules.parse(rules).may_contain_included(directory) is entered


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^b-d]", "abc", False),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True),
        ("[a-ζ]*", "α", True),
        ("*[a-ζ]", "A", False),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "-", True),
        ("[z-a]", "b", False),
        ("[^z-a]", "b", True),
        ("[a&&b~~c||d]", "&", True),
        ("[[]", "[", True),
        ("**", "a/b", False),
    ],
)
def test_wildcards_match_as_filepath_match_does(pattern: str, name: str, matches: bool) -> None:
    assert match_wildcard(pattern, name) is matches


@pytest.mark.parametrize("text", ["a*", "a?", "a[b]"])
def test_a_source_with_a_star_a_question_mark_or_a_bracket_is_a_pattern(text: str) -> None:
    assert has_wildcard(text)
    assert not has_wildcard("plain/name.txt")


def test_many_stars_do_not_multiply_the_work() -> None:
    assert not match_wildcard("*a" * 30 + "b", "a" * 200)
    assert match_wildcard("*a" * 30 + "*b", "a" * 200 + "b")
    assert not _excluded("x/" + "*a" * 30 + "b", "x/" + "a" * 200)
    assert not match_wildcard("*[ab]" * 30 + "c", "ab" * 100)


@pytest.mark.parametrize(("pattern", "name"), [("*[^x]*b", "a/b"), ("*[.-0]*b", "a/b"), ("*[^z-a]*b", "a/b")])
def test_a_class_may_match_a_slash(pattern: str, name: str) -> None:
    assert match_wildcard(pattern, name)


def _matches(pattern: str, path: str) -> bool:
    """A pattern without classes or escapes, tried letter by letter."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        starts = [0, *(i + 1 for i, char in enumerate(path) if char == "/")]
        return not rest or any(_matches(rest, path[i:]) for i in starts)
    if pattern[0] == "*":
        return _matches(pattern[1:], path) or (path[:1] not in ("", "/") and _matches(pattern, path[1:]))
    fits = path[:1] not in ("", "/") if pattern[0] == "?" else path[:1] == pattern[0]
    return fits and _matches(pattern[1:], path[1:])


def _matches_somewhere(pattern: str, path: str) -> bool:
    parts = path.split("/")
    candidates = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    if pattern.startswith("**") and not pattern.startswith("**/") and not any(c in pattern[2:] for c in "*?"):
        return any(candidate.endswith(pattern[2:]) for candidate in candidates)
    return any(_matches(pattern, candidate) for candidate in candidates)


def _reference(rules: list[tuple[bool, str]], path: str) -> bool:
    excluded = False
    for excludes, pattern in rules:
        if _matches_somewhere(pattern, path):
            excluded = excludes
    return excluded


_part = st.sampled_from(
    ["a", "b", "ab", "*", "?", "**", "a*", "*b", "a?", "**b", "a**", "a**b", "*a*b", "a*b*", "*a**b*b"]
)
_rules = st.lists(st.tuples(st.booleans(), st.lists(_part, min_size=1, max_size=3).map("/".join)), max_size=4)
_path = st.lists(st.sampled_from(["a", "b", "ab", "ba", "axb"]), min_size=1, max_size=4).map("/".join)


def _text(rules: list[tuple[bool, str]]) -> str:
    return "\n".join(("" if excludes else "!") + pattern for excludes, pattern in rules)


@given(_rules, _path)
def test_rules_decide_as_a_plain_reading_of_them_does(rules: list[tuple[bool, str]], path: str) -> None:
    assert IgnoreRules.parse(_text(rules)).excludes(path) is _reference(rules, path)


@given(_rules, _path, _path)
def test_a_directory_that_holds_something_taken_in_is_always_entered(
    rules: list[tuple[bool, str]], directory: str, below: str
) -> None:
    parsed = IgnoreRules.parse(_text(rules))
    if parsed.excludes(directory) and not parsed.excludes(f"{directory}/{below}"):
        assert parsed.may_contain_included(directory)


@given(st.text(st.sampled_from("ab*?[]^-!\\/&~|#. \n")), st.text(st.sampled_from("ab-]/")))
@example("[a--b]", "-")
def test_hostile_patterns_are_read_or_refused(text: str, path: str) -> None:
    try:
        rules = IgnoreRules.parse(text)
    except InvalidPattern:
        return
    rules.excludes(path)
    rules.may_contain_included(path)


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("a/*/c", "a/b/c/d", False),
        ("a/*/c", "a/b", True),
        ("**/c", "a/b/c", False),
        ("./a/", "a", False),
        ("#a", "#a", False),
        ("!a", "!a", False),
        ("!a", "a", True),
        (".", "a/b", False),
    ],
)
def test_rules_of_one_pattern_leave_out_all_else(pattern: str, path: str, excluded: bool) -> None:
    assert IgnoreRules.only(pattern).excludes(path) is excluded


def test_patterns_that_are_no_lines_of_a_file_have_no_comments() -> None:
    rules = IgnoreRules.of(["#a", " b ", "", "c*", "!c1"])
    assert [rules.excludes(path) for path in ("#a", "b", "c", "c1", "d")] == [True, True, True, False, False]
