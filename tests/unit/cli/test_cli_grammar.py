"""The command line's grammar: what pflag takes, and how it words what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from lamina.cli.grammar import REMAINDER, HelpWanted, Parser, UsageError, name_and_value, whole


def _run() -> Parser:
    parser = Parser("run", "[OPTIONS] IMAGE [COMMAND] [ARG...]")
    parser.flag("-i", "--interactive", help="Keep STDIN open")
    parser.flag("-t", "--tty")
    parser.flag("--sig-proxy", default=True)
    parser.values("-e", "--env")
    parser.value("-n", "--last", convert=whole, default=-1)
    parser.value("-h", "--hostname")
    parser.add_argument("image")
    parser.add_argument("command", nargs=REMAINDER)
    return parser


def _ps() -> Parser:
    parser = Parser("ps", "[OPTIONS]")
    parser.flag("-q", "--quiet")
    parser.values("-f", "--filter", convert=name_and_value)
    return parser


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-it", "i"], {"interactive": True, "tty": True, "image": "i", "command": []}),
        (["-ti=false", "i"], {"tty": True, "interactive": False}),
        (["-t=false", "i"], {"tty": False}),
        (["--tty=0", "i"], {"tty": False}),
        (["--sig-proxy=F", "i"], {"sig_proxy": False}),
        (["i"], {"sig_proxy": True, "env": [], "last": -1, "hostname": None}),
        (["-e", "A=b", "-eC=d", "--env=E=f", "--env", "G", "-e=H=i", "i"], {"env": ["A=b", "C=d", "E=f", "G", "H=i"]}),
        (["-ite", "A", "i"], {"interactive": True, "env": ["A"]}),
        (["-n", "-1", "i"], {"last": -1}),
        (["-n5", "--last", "0x10", "i"], {"last": 16}),
        (["-h", "name", "i"], {"hostname": "name"}),
        (["--hostname=", "i"], {"hostname": ""}),
        # the first positional argument ends the flags, and "--" before it
        (["i", "-t", "--bogus"], {"image": "i", "command": ["-t", "--bogus"], "tty": False}),
        (["i", "--", "true"], {"command": ["--", "true"]}),
        (["--", "i", "-t"], {"image": "i", "command": ["-t"]}),
    ],
)
def test_flags_are_read_as_pflag_reads_them(argv: list[str], expected: dict[str, Any]) -> None:
    options = _run().parse(argv)
    assert {name: getattr(options, name) for name in expected} == expected


def test_flags_may_follow_arguments_where_no_command_follows() -> None:
    parser = Parser("rm", "[OPTIONS] CONTAINER [CONTAINER...]")
    parser.flag("-f", "--force")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(["a", "-f", "b", "--", "-c"])
    assert (options.containers, options.force) == (["a", "b", "-c"], True)


@pytest.mark.parametrize(
    ("parser", "argv", "message", "code"),
    [
        (_ps(), ["--bogus"], "unknown flag: --bogus", 125),
        (_ps(), ["--bogus=1"], "unknown flag: --bogus", 125),
        (_ps(), ["-Z"], "unknown shorthand flag: 'Z' in -Z", 125),
        (_ps(), ["-qZ"], "unknown shorthand flag: 'Z' in -qZ", 125),
        (_run(), ["-e"], "flag needs an argument: 'e' in -e", 125),
        (_run(), ["--env"], "flag needs an argument: --env", 125),
        (
            _run(),
            ["-n", "x", "i"],
            'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax',
            125,
        ),
        (
            _run(),
            ["--sig-proxy=x"],
            'invalid argument "x" for "--sig-proxy" flag: strconv.ParseBool: parsing "x": invalid syntax',
            125,
        ),
        (
            _ps(),
            ["-f", "x"],
            'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)',
            125,
        ),
        (_run(), [], "lamina: 'lamina run' requires at least 1 argument", 1),
        (_ps(), ["x"], "lamina: 'lamina ps' accepts no arguments", 1),
    ],
)
def test_a_wrong_command_line_is_answered_as_docker_answers(
    parser: Parser, argv: list[str], message: str, code: int
) -> None:
    with pytest.raises(UsageError) as caught:
        parser.parse(argv)
    assert caught.value.code == code
    usage = f"\n\nUsage:  {parser.usage}\n\nRun '{parser.prog} --help' for more information"
    assert str(caught.value) == message + usage


@pytest.mark.parametrize(
    ("nargs", "words", "message"),
    [
        ([None, None], ["a"], "requires 2 arguments"),
        ([None], ["a", "b"], "requires 1 argument"),
        (["?"], ["a", "b"], "requires at most 1 argument"),
        ([None, "?"], [], "requires at least 1 and at most 2 arguments"),
        ([None, "*"], [], "requires at least 1 argument"),
        (["+"], [], "requires at least 1 argument"),
    ],
)
def test_arguments_are_counted(nargs: list[str | None], words: list[str], message: str) -> None:
    parser = Parser("tag", "A B")
    for number, each in enumerate(nargs):
        parser.add_argument(f"a{number}", nargs=each)
    with pytest.raises(UsageError, match=message):
        parser.parse(words)


def test_help_tells_of_every_flag_with_its_description() -> None:
    with pytest.raises(HelpWanted) as caught:
        _run().parse(["-t", "--help"])
    assert "Create and run a new container from an image" in str(caught.value)
    assert "  -i, --interactive       Keep STDIN open" in str(caught.value)
    with pytest.raises(HelpWanted):
        _ps().parse(["-h"])


def test_flags_may_have_to_come_first() -> None:
    parser = Parser("commit", "", flags_first=True)
    parser.flag("--pause")
    parser.add_argument("words", nargs="*")
    options = parser.parse(["--pause", "a", "--pause"])
    assert (options.pause, options.words) == (True, ["a", "--pause"])
