"""The form of each instruction (Dockerfile reference), its flags, and where variables are expanded."""

from __future__ import annotations

import pytest

from lamina.dockerfile import DockerfileError
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.instructions import duration_ns
from lamina.dockerfile.parser import parse, parse_line

ENV = {"x": "value", "two": "a b"}


def _detail(line: str) -> str:
    with pytest.raises(DockerfileError) as caught:
        parse_line(line)
    return caught.value.detail


def _fields(instruction: ins.Instruction, *names: str) -> tuple[object, ...]:
    return tuple(getattr(instruction, name) for name in names)


@pytest.mark.parametrize(
    ("line", "image", "platform", "name"),
    [
        ("FROM a:1", "a:1", "", ""),
        ("FROM a AS Web", "a", "", "web"),
        ("FROM --platform=linux/arm64 a as b-1.x_y", "a", "linux/arm64", "b-1.x_y"),
        ("FROM\ta\tAS\tb", "a", "", "b"),
    ],
)
def test_from_names_a_base_a_platform_and_a_stage(line: str, image: str, platform: str, name: str) -> None:
    assert _fields(parse_line(line), "image", "platform", "name") == (image, platform, name)


@pytest.mark.parametrize("line", ["FROM a b", "FROM a AS", "FROM a WITH b", "FROM a AS b c"])
def test_from_has_one_or_three_arguments(line: str) -> None:
    assert _detail(line) == "FROM requires either one or three arguments"


@pytest.mark.parametrize("name", ["1a", "a/b", "$x", "-a"])
def test_a_stage_name_begins_with_a_letter(name: str) -> None:
    assert _detail(f"FROM a AS {name}").startswith("invalid name for build stage")


@pytest.mark.parametrize(
    ("rest", "words", "is_shell"),
    [
        ("echo  $x | cat", ("echo  $x | cat",), True),
        ('["a", "b c"]', ("a", "b c"), False),
        ('  [ "a" ]  ', ("a",), False),
        ("['a']", ("['a']",), True),
        ('["a"] b', ('["a"] b',), True),
        ('["a\\u00e9\\ud83d\\ude80"]', ("aé🚀",), False),
    ],
)
@pytest.mark.parametrize("keyword", ["RUN", "CMD", "ENTRYPOINT"])
def test_a_command_is_a_json_list_or_text_for_the_shell(
    keyword: str, rest: str, words: tuple[str, ...], is_shell: bool
) -> None:
    assert _fields(parse_line(f"{keyword} {rest}"), "words", "is_shell") == (words, is_shell)


@pytest.mark.parametrize("keyword", ["CMD", "ENTRYPOINT"])
@pytest.mark.parametrize("rest", ["", "[]"])
def test_a_command_may_be_reset_to_nothing(keyword: str, rest: str) -> None:
    assert _fields(parse_line(f"{keyword} {rest}"), "words") == ((),)


@pytest.mark.parametrize(
    "line", ['CMD ["a", 1]', "RUN [null]", 'COPY ["a", 2]', "VOLUME [1]", 'HEALTHCHECK CMD ["a", 1]']
)
def test_a_json_list_holds_strings_only(line: str) -> None:
    assert _detail(line) == "when using JSON array syntax, arrays must be comprised of strings only"


def test_half_a_surrogate_pair_in_json_becomes_a_replacement_character() -> None:
    assert _fields(parse_line('CMD ["\\ud800"]'), "words") == (("\ufffd",),)


def test_shell_takes_a_json_list() -> None:
    assert _fields(parse_line('SHELL ["/bin/bash", "-c"]'), "words") == (("/bin/bash", "-c"),)
    assert "JSON form" in _detail("SHELL /bin/bash -c")


def test_run_has_mounts_a_network_and_security() -> None:
    run = parse_line('RUN --mount=type=cache,TARGET=/c --mount=source="a b",rw --network=none\techo hi')
    assert _fields(run, "mounts", "network", "security", "words") == (
        ((("type", "cache"), ("target", "/c")), (("source", "a b"), ("rw", None))),
        "none",
        "sandbox",
        ("echo hi",),
    )
    assert _detail("RUN --network=other x") == 'invalid network mode: "other"'
    assert _detail("RUN --security=bogus x") == 'security "bogus" is not valid'


def test_the_values_of_mounts_are_expanded_but_for_the_stage_that_they_are_of() -> None:
    run = parse_line("RUN --mount=from=a$,id=$two,target=/$x/c,ro $x").expanded(ENV)
    mount = (("from", "a$"), ("id", "a b"), ("target", "/value/c"), ("ro", None))
    assert _fields(run, "mounts", "words") == ((mount,), ("$x",))
    assert _detail("RUN --mount=from=$x,target=/c x").startswith("'from' doesn't support variable expansion")


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("COPY --form=a b c", "unknown flag: --form (did you mean --from?)"),
        ("COPY --X=a b c", "unknown flag: --X=a"),
        ("ADD --from=a b c", "unknown flag: --from"),
        ("CMD --help", "unknown flag: --help"),
        ("COPY --from=a --from=b c d", "duplicate flag specified: from"),
        ("COPY --chown a b", "missing a value on flag: chown"),
        ("RUN --mount a", "missing a value on flag: mount"),
        ("COPY --link=maybe a b", "expecting boolean value for flag link, not: maybe"),
        ("COPY --link= a b", "missing a value on flag: link"),
    ],
)
def test_a_flag_that_is_unknown_double_or_without_value_is_refused(line: str, detail: str) -> None:
    assert _detail(line).startswith(detail)


def test_two_dashes_end_the_flags() -> None:
    assert _fields(parse_line("RUN -- --version"), "words") == (("--version",),)


@pytest.mark.parametrize(
    ("rest", "pairs"),
    [
        ("a=b", (("a", "b"),)),
        ("a=b c='d e' f=\"$x\"", (("a", "b"), ("c", "'d e'"), ("f", '"$x"'))),
        ("a=b\\ c d=", (("a", "b\\ c"), ("d", ""))),
        ("a b c", (("a", "b c"),)),
        ("a\tb", (("a", "b"),)),
        ("a b=c", (("a", "b=c"),)),
        ("a==b", (("a", "=b"),)),
    ],
)
@pytest.mark.parametrize("keyword", ["ENV", "LABEL"])
def test_names_and_values_in_the_new_and_the_old_form(
    keyword: str, rest: str, pairs: tuple[tuple[str, str], ...]
) -> None:
    assert _fields(parse_line(f"{keyword} {rest}"), "pairs") == (pairs,)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a=b c", "Syntax error - can't find = in 'c'. Must be of the form: name=value"),
        ("ENV =b", "ENV names can not be blank"),
        ("ARG =b", "ARG names can not be blank"),
        ("ENV", "ENV requires at least one argument"),
        ("RUN", "RUN requires at least one argument"),
        ("WORKDIR", "WORKDIR requires at least one argument"),
        ('VOLUME [" "]', "VOLUME specified can not be an empty string"),
        ("USER a b", "USER requires exactly one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RUNN a", "unknown instruction: RUNN (did you mean RUN?)"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("PONY", "unknown instruction: PONY"),
    ],
)
def test_docker_wording_tells_what_is_wrong(line: str, detail: str) -> None:
    assert _detail(line) == detail


@pytest.mark.parametrize("line", ["COPY a", "ADD a", 'COPY ["a"]'])
def test_copying_needs_a_source_and_a_destination(line: str) -> None:
    keyword = line.split()[0]
    assert _detail(line) == (
        f"{keyword} requires at least two arguments, but only one was provided. Destination could not be determined."
    )


def test_arg_declares_names_with_and_without_default() -> None:
    assert _fields(parse_line("ARG a b= c='d e'"), "pairs") == ((("a", None), ("b", ""), ("c", "'d e'")),)


def test_copy_has_its_flags() -> None:
    copy = parse_line(
        "COPY --from=base --chown=a:b --chmod=755 --link --parents=false --exclude=*.md --exclude=x a b /c/"
    )
    names = ("from_", "chown", "chmod", "link", "parents", "exclude", "sources", "destination")
    assert _fields(copy, *names) == ("base", "a:b", "755", True, False, ("*.md", "x"), ("a", "b"), "/c/")


def test_copy_takes_names_with_blanks_as_json() -> None:
    assert _fields(parse_line('COPY ["a b", "/c d/"]'), "sources", "destination") == (("a b",), "/c d/")


def test_add_has_its_flags() -> None:
    add = parse_line("ADD --checksum=sha256:$x --keep-git-dir --unpack=false https://e.x/a.tar /")
    assert _fields(add, "checksum", "keep_git_dir", "unpack") == ("sha256:$x", True, False)
    assert _fields(parse_line("ADD a /"), "checksum", "keep_git_dir", "unpack") == ("", False, None)
    assert _fields(add.expanded(ENV), "checksum") == ("sha256:value",)


def test_a_variable_cannot_choose_where_copy_copies_from() -> None:
    assert _detail("COPY --from=$x a b").startswith("variable expansion is not supported for --from")


def test_a_healthcheck_has_a_command_and_times() -> None:
    line = "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --start-interval=1s --retries=3 CMD\tcurl x || exit 1"
    check = parse_line(line)
    names = ("test", "interval", "timeout", "start_period", "start_interval", "retries")
    assert _fields(check, *names) == (("CMD-SHELL", "curl x || exit 1"), 90 * 10**9, 500 * 10**6, 2 * 10**9, 10**9, 3)
    assert _fields(parse_line('HEALTHCHECK CMD ["a", "b"]'), "test") == (("CMD", "a", "b"),)
    assert _fields(parse_line("HEALTHCHECK none"), "test") == (("NONE",),)


@pytest.mark.parametrize(
    ("rest", "detail"),
    [
        ("NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("RUN x", 'Unknown type "RUN" in HEALTHCHECK (try CMD)'),
        ("CMD", "Missing command after HEALTHCHECK CMD"),
        ("CMD []", "Missing command after HEALTHCHECK CMD"),
        ("--interval=5 CMD x", 'time: invalid duration "5"'),
        ("--interval=-1s CMD x", 'time: invalid duration "-1s"'),
        ("--interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("--retries=x CMD x", "invalid number of retries: x"),
        ("--retries=² CMD x", "invalid number of retries: ²"),
        ("--retries=-1 CMD x", "invalid number of retries: -1"),
        ("--retries=9999999999 CMD x", "invalid number of retries: 9999999999"),
    ],
)
def test_a_wrong_healthcheck_is_refused(rest: str, detail: str) -> None:
    assert _detail(f"HEALTHCHECK {rest}") == detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("0", 0),
        ("1s", 10**9),
        ("1.5h", 5400 * 10**9),
        (".5s", 5 * 10**8),
        ("1h1ns", 3600 * 10**9 + 1),
        ("3µs", 3000),
        ("3μs", 3000),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, expected: int) -> None:
    assert duration_ns(text) == expected


@pytest.mark.parametrize("text", ["1", "s", "1d", "1s ", "1.2.3s", "9" * 400 + "h", "9999999h", "١s"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="invalid duration"):
        duration_ns(text)


def test_a_trigger_is_kept_as_written() -> None:
    assert _fields(parse_line("ONBUILD  run echo  $x"), "trigger") == ("run echo  $x",)


def test_a_working_directory_may_hold_blanks() -> None:
    assert _fields(parse_line("WORKDIR /a b"), "word") == ("/a b",)


@pytest.mark.parametrize(
    ("line", "field", "expanded"),
    [
        ("FROM a:$x", "image", "a:value"),
        ("FROM --platform=$x a", "platform", "value"),
        ("ENV $x=$two b='$x'", "pairs", (("value", "a b"), ("b", "$x"))),
        ('LABEL a="$two"', "pairs", (("a", "a b"),)),
        ("EXPOSE $two 80", "words", ("a", "b", "80")),
        ("VOLUME $two /x", "words", ("a b", "/x")),
        ('VOLUME ["/a b"]', "words", ("/a b",)),
        ("USER $x", "word", "value"),
        ("WORKDIR /$x", "word", "/value"),
        ("STOPSIGNAL $x", "word", "value"),
        ("COPY $two /$x", "sources", ("a b",)),
        ("COPY $two /$x", "destination", "/value"),
        ("COPY --chown=$x --chmod=$x a b", "chown", "value"),
        ("COPY --exclude=$x a b", "exclude", ("value",)),
        ("RUN echo $x", "words", ("echo $x",)),
        ("CMD echo $x", "words", ("echo $x",)),
        ("ENTRYPOINT echo $x", "words", ("echo $x",)),
        ("HEALTHCHECK CMD echo $x", "test", ("CMD-SHELL", "echo $x")),
        ("ONBUILD RUN $x", "trigger", "RUN $x"),
        ("MAINTAINER $x", "text", "$x"),
    ],
)
def test_variables_are_expanded_where_docker_expands_them(line: str, field: str, expanded: object) -> None:
    assert getattr(parse_line(line).expanded(ENV), field) == expanded


def test_a_here_document_is_expanded_with_its_quotes_left_alone() -> None:
    copy = parse_line("COPY <<EOF <<'RAW' /\nit's \"$x\" \\$x\nEOF\n$x\nRAW").expanded(ENV)
    assert isinstance(copy, ins.Copy)
    assert [(h.name, h.text, h.expand) for h in copy.heredocs] == [
        ("EOF", 'it\'s "value" $x\n', False),
        ("RAW", "$x\n", False),
    ]


def test_the_escape_directive_reaches_names_with_backslashes() -> None:
    (copy,) = parse("# escape=`\nFROM a\nCOPY a C:\\dir\\\n").stages[0].instructions
    assert _fields(copy.expanded({}, "`"), "destination") == ("C:\\dir\\",)
