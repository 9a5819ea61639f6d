"""docker's grammar, which is pflag's: what flags may look like, where they end, and how a wrong command line is answered.

On its own rather than on argparse, which takes abbreviations, has no flags that take a value only after ``=``, words its errors
otherwise, and costs a short command a tenth of its time.

Flags may stand among positional arguments, unless the last of these is REMAINDER, or the parser is told otherwise: then the first
positional ends them. ``--`` ends them, too. ``-it``, ``-ti=false``, ``-eA=b``, ``-e A=b``, ``--env=A=b`` and ``--env A=b`` are flags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from lamina.cli.commands import command_named

REMAINDER = "..."
_MANY = ("+", "*", REMAINDER)
_TRUTH = {"1": True, "t": True, "T": True, "true": True, "TRUE": True, "True": True}
_TRUTH |= {"0": False, "f": False, "F": False, "false": False, "FALSE": False, "False": False}

Convert = Callable[[str], Any]
Options = SimpleNamespace


class CommandFailed(Exception):
    """Ends the command with a message and an exit code; the message is complete."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CommandFailed):
    """The command line is wrong."""


class HelpWanted(Exception):
    """``--help`` was among the flags; the text is the help."""


class _Flag:
    """A flag: how often it may be given (*kind* is flag, value or values), how its text is read, what help says of it.

    No named tuple: making such classes would take a short command two milliseconds.
    """

    __slots__ = ("convert", "help", "kind", "metavar", "names")

    def __init__(self, names: tuple[str, ...], kind: str, help: str, convert: Convert, metavar: str) -> None:  # noqa: A002
        self.names = names
        self.kind = kind
        self.help = help
        self.convert = convert
        self.metavar = metavar

    @property
    def attribute(self) -> str:
        """Its name among the options: that of the first long name."""
        return next(n for n in self.names if n.startswith("--"))[2:].replace("-", "_")

    @property
    def shown(self) -> str:
        """Its names in an error: ``-m, --memory``."""
        return ", ".join(self.names[:2] if len(self.names[0]) == 2 else self.names[:1])


class Parser:
    """The flags and positional arguments of one command."""

    def __init__(self, command: str, usage: str, description: str | None = None, *, flags_first: bool = False) -> None:
        known = command_named(command)
        self.prog = f"lamina {command}".strip()
        self.usage = f"{self.prog} {usage}"
        self.description = description if known is None else known.description
        self._flags: list[_Flag] = []
        self._by_name: dict[str, _Flag] = {}
        self._defaults: dict[str, Any] = {}
        self._positionals: list[tuple[str, str | None]] = []  # name and how many
        self._flags_first = flags_first

    def flag(self, *names: str, help: str = "", default: bool = False) -> None:  # noqa: A002 - the word for it
        """A flag that is true or false."""
        self._add(_Flag(names, "flag", help, truth, ""), default)

    def value(
        self,
        *names: str,
        help: str = "",  # noqa: A002
        default: Any = None,
        convert: Convert = str,
        metavar: str = "string",
    ) -> None:
        """A flag with a value, the last one counts; *convert* raises ValueError for what it cannot be."""
        self._add(_Flag(names, "value", help, convert, metavar), default)

    def values(
        self,
        *names: str,
        help: str = "",  # noqa: A002
        convert: Convert = str,
        metavar: str = "list",
    ) -> None:
        """A flag that may be given several times; a list."""
        self._add(_Flag(names, "values", help, convert, metavar), None)

    def add_argument(self, name: str, *, nargs: str | None = None) -> None:
        """A positional argument: one; ``?`` one or none (empty text); ``+`` some; ``*`` any; REMAINDER all that follows."""
        self._positionals.append((name, nargs))

    def parse(self, argv: Sequence[str]) -> Options:
        """Read a command's arguments. Raises UsageError or HelpWanted."""
        options = Options(**self._defaults)
        for flag in self._flags:
            if flag.kind == "values":
                setattr(options, flag.attribute, [])
        rest = list(argv)
        words: list[str] = []
        ends_at_first = self._flags_first or any(nargs == REMAINDER for _, nargs in self._positionals)
        while rest:
            word = rest.pop(0)
            if word == "--":
                words += rest
                break
            if len(word) > 1 and word.startswith("-"):
                self._read_flag(word, rest, options)
            elif ends_at_first:
                words += [word, *rest]
                break
            else:
                words.append(word)
        self._place(words, options)
        return options

    def with_usage(self, message: str, code: int) -> UsageError:
        """An error whose message ends with how the command is used."""
        return UsageError(f"{message}\n\nUsage:  {self.usage}\n\nRun '{self.prog} --help' for more information", code)

    def help(self) -> str:
        """What ``--help`` prints."""
        lines = [f"Usage:  {self.usage}", "", self.description or ""]
        flags = sorted((f for f in self._flags if f.help is not HIDDEN), key=lambda f: f.attribute)
        left = [_help_names(flag) for flag in flags]
        width = max(map(len, left), default=0) + 3
        told = [f"{names.ljust(width)}{flag.help}".rstrip() for names, flag in zip(left, flags, strict=True)]
        return "\n".join([*lines, *(["", "Options:"] if flags else []), *told])

    def _add(self, flag: _Flag, default: Any) -> None:
        self._flags.append(flag)
        self._by_name |= dict.fromkeys(flag.names, flag)
        self._defaults[flag.attribute] = default

    def _read_flag(self, word: str, rest: list[str], options: Options) -> None:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flag = self._by_name.get(name)
            if flag is None:
                if name == "--help":
                    raise HelpWanted(self.help())
                raise self.with_usage(f"unknown flag: {name}", 125)
            self._set(flag, value if equals else self._default_value(flag, rest, name), options)
            return
        letters = word[1:]
        while letters:
            flag = self._by_name.get(f"-{letters[0]}")
            if flag is None:
                if letters[0] == "h":
                    raise HelpWanted(self.help())
                raise self.with_usage(f"unknown shorthand flag: '{letters[0]}' in {word}", 125)
            letters = self._read_letter(flag, letters, word, rest, options)

    def _read_letter(self, flag: _Flag, letters: str, word: str, rest: list[str], options: Options) -> str:
        """Read one letter of ``-it``; returns those that are left."""
        after = letters[1:]
        if after.startswith("=") and len(after) > 1:
            self._set(flag, after[1:], options)
            return ""
        if flag.kind == "flag":
            self._set(flag, "true", options)
            return after
        self._set(flag, after or self._default_value(flag, rest, f"'{letters[0]}' in {word}"), options)
        return ""

    def _default_value(self, flag: _Flag, rest: list[str], told_as: str) -> str:
        if flag.kind == "flag":
            return "true"
        if not rest:
            raise self.with_usage(f"flag needs an argument: {told_as}", 125)
        return rest.pop(0)

    def _set(self, flag: _Flag, text: str, options: Options) -> None:
        try:
            value = flag.convert(text)
        except ValueError as error:
            raise self.with_usage(f'invalid argument "{text}" for "{flag.shown}" flag: {error}', 125) from None
        if flag.kind == "values":
            getattr(options, flag.attribute).append(value)
        else:
            setattr(options, flag.attribute, value)

    def _place(self, words: list[str], options: Options) -> None:
        """Give words to the positional arguments, in order."""
        least = sum(nargs in (None, "+") for _, nargs in self._positionals)
        most = None if any(nargs in _MANY for _, nargs in self._positionals) else len(self._positionals)
        if len(words) < least or (most is not None and len(words) > most):
            raise self.with_usage(f"lamina: '{self.prog}' {_wanted(least, most)}", 1)
        for name, nargs in self._positionals:
            if nargs in _MANY:
                taken: Any = words
                words = []
            else:
                taken, words = (words[0], words[1:]) if words else ("", [])
            setattr(options, name, taken)


HIDDEN = "hidden"  # as a flag's help: the flag is another name, or does nothing, and is not told of


def truth(text: str) -> bool:
    """What Go's strconv.ParseBool takes. Raises ValueError."""
    if text not in _TRUTH:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return _TRUTH[text]


def whole(text: str) -> int:
    """What Go's strconv.ParseInt takes. Raises ValueError."""
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def name_and_value(text: str) -> str:
    """A filter. Raises ValueError."""
    if "=" not in text:
        raise ValueError("bad format of filter (expected name=value)")
    return text


def _wanted(least: int, most: int | None) -> str:
    if most == 0:
        return "accepts no arguments"
    if least == most:
        return f"requires {least} argument{'s' if least > 1 else ''}"
    if most is None:
        return f"requires at least {least} argument{'s' if least > 1 else ''}"
    if least > 0:
        return f"requires at least {least} and at most {most} arguments"
    return f"requires at most {most} argument{'s' if most > 1 else ''}"


def _help_names(flag: _Flag) -> str:
    short = flag.names[0] if len(flag.names[0]) == 2 else ""
    long = next(n for n in flag.names if n.startswith("--"))
    return f"  {short + ',' if short else '   '} {long} {flag.metavar}".rstrip()
