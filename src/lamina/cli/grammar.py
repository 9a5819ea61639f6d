"""docker's grammar on argparse: options end at the first positional of ``run``, ``--flag=false`` works, errors are worded as docker's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

_HELP_WIDTH = 100
_TRUTH = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class UsageError(Exception):
    """The command line is wrong."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def __init__(self, command: str, usage: str, description: str) -> None:
        super().__init__(
            prog=f"lamina {command}",
            usage=f"lamina {command} {usage}",
            description=description,
            allow_abbrev=False,
            add_help=False,  # -h is --hostname to run
            # a formatter that is given its width does not import shutil to find it
            formatter_class=lambda prog: argparse.HelpFormatter(prog, width=_HELP_WIDTH),
        )
        self.add_argument("--help", action="help", help="show this help and quit")
        self._booleans: set[str] = set()

    def flag(self, *names: str, help: str = "") -> None:  # noqa: A002 - argparse's word
        """An option that is true or false."""
        self._booleans.update(names)
        self.add_argument(*names, action="store_true", help=help)

    def value(self, *names: str, help: str = "", default: str | None = None) -> None:  # noqa: A002
        """An option with a value; the last one counts."""
        self.add_argument(*names, help=help, default=default)

    def values(self, *names: str, help: str = "") -> None:  # noqa: A002
        """An option that may be given several times."""
        self.add_argument(*names, action="append", default=[], help=help)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read a command's arguments. Raises UsageError."""
        return self.parse_args(self._without_truth(list(argv)))

    def _without_truth(self, argv: list[str]) -> list[str]:
        """``--rm=true`` as ``--rm``, ``--rm=false`` as nothing: argparse's flags take no value."""
        result: list[str] = []
        for index, word in enumerate(argv):
            if word == "--":
                return result + argv[index:]
            name, equals, value = word.partition("=")
            if equals and name in self._booleans:
                if value.lower() not in _TRUTH:
                    raise UsageError(f'invalid argument "{value}" for "{name}" flag: invalid syntax')
                if _TRUTH[value.lower()]:
                    result.append(name)
                continue
            result.append(word)
        return result

    def error(self, message: str) -> NoReturn:
        """argparse: the command line is wrong."""
        if message.startswith("unrecognized arguments: "):
            message = f"unknown flag: {message.split()[2]}"
        elif message.startswith("the following arguments are required"):
            message = f'"{self.prog}" requires more arguments'
        raise UsageError(
            f"{message}\n\nUsage:  {(self.usage or '').strip()}\n\nRun '{self.prog} --help' for more information"
        )
