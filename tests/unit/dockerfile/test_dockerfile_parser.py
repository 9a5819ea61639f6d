"""A Dockerfile's text: directives, comments, continuations, here-documents, stages, and errors with their place."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamina.dockerfile import Dockerfile, DockerfileError, parse
from lamina.dockerfile.instructions import Copy, Env, Instruction, Onbuild, Run
from lamina.dockerfile.parser import parse_line
from lamina.errors import InvalidArgument


def _body(text: str) -> tuple[Instruction, ...]:
    return parse("FROM scratch\n" + text).stages[0].instructions


def _run(text: str) -> Run:
    (instruction,) = _body(text)
    assert isinstance(instruction, Run)
    return instruction


def _refusal(text: str | bytes, filename: str = "Dockerfile") -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(text, filename=filename)
    return caught.value


def test_stages_begin_at_from_and_arguments_before_the_first_are_global() -> None:
    file = parse("ARG V=1\nFROM a:$V AS one\nRUN x\nfrom b\nCOPY --from=one /x /\nRUN y\n")
    assert [arg.pairs for arg in file.global_args] == [(("V", "1"),)]
    assert [(s.index, s.name, s.base.image, len(s.instructions)) for s in file.stages] == [
        (0, "one", "a:$V", 1),
        (1, "", "b", 2),
    ]


def test_an_instruction_knows_its_lines_and_its_text() -> None:
    file = parse("# comment\nFROM a\n\nRUN one && \\\n  # within\n\n  two\nADD run.sh   /\n")
    run, add = file.stages[0].instructions
    assert (run.first, run.last, run.source) == (4, 7, "RUN one &&   two")
    assert (add.first, add.last, add.source) == (8, 8, "ADD run.sh   /")


def test_the_keyword_is_shown_as_it_was_written() -> None:
    file = parse("from a\nrun\techo hi\n")
    assert file.stages[0].base.source == "from a"
    assert file.stages[0].instructions[0].source == "run\techo hi"


@pytest.mark.parametrize("separator", [" ", "\t", "  \t "])
def test_any_blank_ends_a_keyword(separator: str) -> None:
    assert _run(f"RUN{separator}echo a").words == ("echo a",)


def test_directives_stand_at_the_top_only() -> None:
    file = parse("# syntax = docker/dockerfile:1\n#escape=`\n# check=skip=all\nFROM a\n# escape=\\\nRUN x `\n y\n")
    assert file.directives == {"syntax": "docker/dockerfile:1", "escape": "`", "check": "skip=all"}
    assert file.escape == "`"
    assert [i.source for i in file.stages[0].instructions] == ["RUN x  y"]
    assert parse("# comment\n# escape=`\nFROM a\n").escape == "\\"


@pytest.mark.parametrize(
    ("text", "line", "detail"),
    [
        ("# syntax=a\n# syntax=b\nFROM a", 2, "only one syntax parser directive can be used"),
        ("# syntax=a\n# escape=x\nFROM a", 2, "invalid escape token 'x' does not match ` or \\"),
    ],
)
def test_a_wrong_directive_is_refused_at_its_line(text: str, line: int, detail: str) -> None:
    error = _refusal(text, "sub/Dockerfile")
    assert (error.line, error.detail, error.filename) == (line, detail, "sub/Dockerfile")


@pytest.mark.parametrize("text", ["\ufeffFROM a\r\nRUN x \\\r\n  y\r\n", b"\xef\xbb\xbfFROM a\nRUN x \\\n  y"])
def test_byte_order_marks_and_windows_line_ends_are_no_part_of_the_text(text: str | bytes) -> None:
    (run,) = parse(text).stages[0].instructions
    assert run.source == "RUN x   y"


def test_blanks_may_follow_a_continuation_mark() -> None:
    assert _run("RUN a \\ \t\nb").words == ("a b",)


def test_two_escape_characters_at_the_end_of_a_line_do_not_continue_it() -> None:
    first, second = _body("RUN echo a\\\\\nRUN b")
    assert (first.source, second.source) == ("RUN echo a\\\\", "RUN b")


def test_a_continuation_at_the_end_of_the_file_ends_there() -> None:
    assert _run("RUN a \\\n\n# end\n").words == ("a",)


def test_a_number_sign_within_a_line_is_no_comment() -> None:
    assert _run("RUN echo a # b").words == ("echo a # b",)


def test_a_here_document_is_kept_with_its_text() -> None:
    run = _run("RUN <<EOF\necho $x\n# no comment\n\nlast \\\nEOF\n")
    (heredoc,) = run.heredocs
    assert (heredoc.name, heredoc.expand, heredoc.chomp) == ("EOF", True, False)
    assert heredoc.text == "echo $x\n# no comment\n\nlast \\\n"
    assert (run.first, run.last) == (2, 7)


@pytest.mark.parametrize("word", ["<<'EOF'", '<<"EOF"', "<<E'O'F"])
def test_a_quoted_name_keeps_a_here_document_from_being_expanded(word: str) -> None:
    (heredoc,) = _run(f"RUN cat {word}\n$x\nEOF").heredocs
    assert (heredoc.name, heredoc.expand) == ("EOF", False)


def test_a_dash_takes_leading_tabs_off_a_here_document() -> None:
    (heredoc,) = _run("RUN <<-EOF\n\t\techo a\n\t  b\n\tEOF").heredocs
    assert heredoc.text == "echo a\n  b\n"


def test_one_instruction_may_have_several_here_documents() -> None:
    copy = _body("COPY <<one <<my-two.txt /dir/\n1\none\n2\nmy-two.txt\nRUN x")[0]
    assert isinstance(copy, Copy)
    assert [(h.name, h.text) for h in copy.heredocs] == [("one", "1\n"), ("my-two.txt", "2\n")]
    assert (copy.sources, copy.destination) == (("<<one", "<<my-two.txt"), "/dir/")


@pytest.mark.parametrize(
    "command",
    [
        "echo $((1<<X))",
        "cat<<EOF",
        "echo '<<EOF'",
        'echo "a <<EOF"',
        "cat <<<EOF",
        "a << b",
        "echo it's <<EOF",
        "echo \\<<EOF",
    ],
)
def test_what_only_looks_like_a_here_document_is_left_to_the_shell(command: str) -> None:
    run = _run(f"RUN {command}")
    assert (run.words, run.heredocs) == ((command,), ())


def test_other_instructions_take_no_here_documents() -> None:
    assert len(_body("ENV A=<<EOF\nRUN x")) == 2


def test_a_here_document_that_does_not_end_is_refused_where_it_began() -> None:
    error = _refusal("FROM a\nRUN <<EOF\necho\n", "my.Dockerfile")
    assert error.detail.startswith("unterminated heredoc")
    assert (error.line, error.filename) == (2, "my.Dockerfile")


def test_a_trigger_keeps_its_here_document_and_can_be_read_again() -> None:
    onbuild, run = _body("ONBUILD COPY <<'EOF' /file\nit's $x\nEOF\nRUN x")
    assert isinstance(onbuild, Onbuild)
    assert isinstance(run, Run)
    assert onbuild.trigger == "COPY <<'EOF' /file\nit's $x\nEOF"
    copy = parse_line(onbuild.trigger)
    assert isinstance(copy, Copy)
    assert [(h.text, h.expand) for h in copy.heredocs] == [("it's $x\n", False)]


@pytest.mark.parametrize("text", ["", "   ", "# only a comment", "RUN a\nRUN b"])
def test_a_line_by_itself_is_exactly_one_instruction(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse_line(text)


@pytest.mark.parametrize("text", ["", "\n\n", "# comment\n", "\\\n", b""])
def test_a_file_without_instructions_is_empty(text: str | bytes) -> None:
    assert "the Dockerfile cannot be empty" in str(_refusal(text))


@pytest.mark.parametrize(("text", "line"), [("RUN x\nFROM a", 1), ("ARG a\nCOPY a b\n", 2), ("ARG a\n", 0)])
def test_instructions_need_a_stage(text: str, line: int) -> None:
    error = _refusal(text)
    assert (error.detail, error.line) == ("no build stage in current context", line)


def test_an_error_names_file_and_line_and_shows_the_lines() -> None:
    error = _refusal("FROM a\n\nFORM b \\\n c\nRUN x\n", "web/Dockerfile")
    assert isinstance(error, InvalidArgument)
    assert (error.filename, error.line, error.end_line) == ("web/Dockerfile", 3, 4)
    assert error.detail == "unknown instruction: FORM (did you mean FROM?)"
    assert str(error).splitlines() == [
        "dockerfile parse error line 3: unknown instruction: FORM (did you mean FROM?)",
        "web/Dockerfile:3",
        "-" * 20,
        "   2 |",
        "   3 | >>> FORM b \\",
        "   4 | >>>  c",
        "   5 |     RUN x",
        "-" * 20,
    ]


def test_an_instruction_knows_how_it_was_written() -> None:
    (stage,) = parse("from --platform=a scratch As Base\ncOpY a b\nENV a b\nENV a=b\n").stages
    assert (stage.base.keyword, stage.base.written_as, stage.name) == ("from", ("As", "Base"), "base")
    assert [i.keyword for i in stage.instructions] == ["cOpY", "ENV", "ENV"]
    assert [i.is_legacy for i in stage.instructions if isinstance(i, Env)] == [True, False]
    assert parse("FROM a").stages[0].base.written_as == ("", "")


def test_an_instruction_knows_the_comments_right_above_it() -> None:
    file = parse("# syntax=x\n# one\n  #  two \nFROM a\n# far\n\n# ended\n#\n# near\nRUN \\\n# inside\nx\nRUN y\n")
    first, second = file.stages[0].instructions
    assert (file.stages[0].base.comments, first.comments, second.comments) == (("one", "two"), ("near",), ())


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("RUN a \\\n b", 0),
        ("RUN a \\\n\n b", 4),
        ("RUN a \\\n  \n# c\n b <<E\n\nE", 5),
        ("RUN a \\\n# c\n b", 0),
        ("RUN <<E\n a \\\n\nE", 0),
        ("RUN a \\\n", 0),
    ],
)
def test_an_instruction_knows_where_a_text_ends_that_has_an_empty_line_inside(text: str, gap: int) -> None:
    assert _run(text).gap == gap


def test_an_error_found_while_building_gets_the_place_of_its_instruction() -> None:
    file = parse("FROM a\nRUN x\n", filename="f")
    error = file.error(DockerfileError("no"), file.stages[0].instructions[0])
    assert (error.line, error.filename) == (2, "f")
    assert ">>> RUN x" in str(error)


_word = st.sampled_from(
    "FROM RUN COPY ADD ENV ARG LABEL CMD ENTRYPOINT SHELL ONBUILD HEALTHCHECK EXPOSE VOLUME USER WORKDIR STOPSIGNAL MAINTAINER "
    "AS NONE scratch a b /x a=b a= =b --from=a --chown --interval=1s --retries=2 --mount=type=cache --link <<EOF <<-'EOF' EOF "
    '["a"] ["a",1] [ [[ ] \' " \\ ` # $x ${x # -- --x 9999999999s ²'.split()
)
_line = st.lists(_word, max_size=6).map(" ".join)
_file = st.lists(_line | st.text(max_size=10), max_size=8).map("\n".join)


@given(_file)
@example("FROM a\nCMD " + "[" * 100_000)
@example("FROM a\nHEALTHCHECK --retries=² CMD x")
@example("FROM a\nHEALTHCHECK --retries=" + "9" * 5000 + " CMD x")
@example("FROM a\nHEALTHCHECK --interval=" + "9" * 400 + "h CMD x")
def test_any_text_is_parsed_or_refused_with_a_place(text: str) -> None:
    for content in (text, "FROM a\n" + text):
        try:
            file = parse(content)
        except DockerfileError as error:
            assert error.line or "cannot be empty" in error.detail or "no build stage" in error.detail
        else:
            _expand_all(file)


def _expand_all(file: Dockerfile) -> None:
    for stage in file.stages:
        for instruction in (stage.base, *stage.instructions):
            assert 1 <= instruction.first <= instruction.last <= len(file.lines)
            try:
                instruction.expanded({"x": "1"}, file.escape)
            except DockerfileError as error:
                assert file.error(error, instruction).line == instruction.first


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except DockerfileError as error:
        assert error.detail
