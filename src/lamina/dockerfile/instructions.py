"""Instructions: the form of each (Dockerfile reference, one section an instruction).

An instruction keeps the text that it came from, as build output shows it, and its place. Values are as written: variables are expanded
by whoever executes it, with ``expanded``, at the places where docker expands them.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.lines import Heredoc, LogicalLine, split_words, unquoted, word_end
from lamina.dockerfile.words import expand_text, expand_word, expand_words

_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(.*))?", re.DOTALL)
_DURATION = re.compile(r"([0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})(ns|us|µs|μs|ms|s|m|h)")
_SECURITY = ("sandbox", "insecure")
_FORBIDDEN_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")
_DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}

T = TypeVar("T", bound="Instruction")

MountOptions = tuple[tuple[str, str | None], ...]
"""The options of one ``--mount``, in order: key in lower case and value, None for an option that is a word alone."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What all have: the text, the lines where it stood, and what lint looks at besides (``LogicalLine``)."""

    source: str = ""
    first: int = 0
    last: int = 0
    comments: tuple[str, ...] = ()
    gap: int = 0

    @property
    def keyword(self) -> str:
        """The instruction's name as it was written."""
        return self.source.split(None, 1)[0]

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last line."""
        return self.first, self.last

    def expanded(self: T, env: Mapping[str, str], escape: str = "\\") -> T:
        """This instruction with its variables replaced. Raises DockerfileError."""
        return self


@dataclass(frozen=True, kw_only=True)
class From(Instruction):
    """``FROM [--platform=P] IMAGE [AS NAME]``."""

    image: str
    platform: str = ""
    name: str = ""

    @property
    def written_as(self) -> tuple[str, str]:
        """``AS`` and the name as they were written; the name itself is in lower case. Empty without a name."""
        keyword, name = self.source.split()[-2:] if self.name else ("", "")
        return keyword, name

    def expanded(self, env: Mapping[str, str], escape: str = "\\") -> From:
        return dataclasses.replace(
            self, image=expand_word(self.image, env, escape), platform=expand_word(self.platform, env, escape)
        )


@dataclass(frozen=True, kw_only=True)
class Command(Instruction):
    """A command line: a list in exec form, one text in shell form."""

    words: tuple[str, ...]
    is_shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run(Command):
    """``RUN [--mount=…] [--network=…] [--security=…] COMMAND``."""

    mounts: tuple[MountOptions, ...] = ()
    network: str = "default"
    security: str = "sandbox"

    def expanded(self, env: Mapping[str, str], escape: str = "\\") -> Run:
        def expand(key: str, value: str | None) -> str | None:
            return value if value is None or key == "from" else expand_word(value, env, escape)

        mounts = tuple(tuple((key, expand(key, value)) for key, value in mount) for mount in self.mounts)
        return dataclasses.replace(self, mounts=mounts)


@dataclass(frozen=True, kw_only=True)
class Cmd(Command):
    """``CMD``."""


@dataclass(frozen=True, kw_only=True)
class Entrypoint(Command):
    """``ENTRYPOINT``."""


@dataclass(frozen=True, kw_only=True)
class Shell(Instruction):
    """``SHELL ["…"]``."""

    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Pairs(Instruction):
    pairs: tuple[tuple[str, str], ...]
    is_legacy: bool = False  # NAME VALUE, without an equals sign

    def expanded(self: T, env: Mapping[str, str], escape: str = "\\") -> T:
        pairs = tuple((expand_word(k, env, escape), expand_word(v, env, escape)) for k, v in self.pairs)  # type: ignore[attr-defined]
        return dataclasses.replace(self, pairs=pairs)  # type: ignore[call-arg]


@dataclass(frozen=True, kw_only=True)
class Env(_Pairs):
    """``ENV NAME=VALUE …``."""


@dataclass(frozen=True, kw_only=True)
class Label(_Pairs):
    """``LABEL NAME=VALUE …``."""


@dataclass(frozen=True, kw_only=True)
class Arg(Instruction):
    """``ARG NAME[=DEFAULT] …``; a value of None is none given."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class _Words(Instruction):
    words: tuple[str, ...]

    def expanded(self: T, env: Mapping[str, str], escape: str = "\\") -> T:
        words = tuple(w for word in self.words for w in expand_words(word, env, escape))  # type: ignore[attr-defined]
        return dataclasses.replace(self, words=words)  # type: ignore[call-arg]


@dataclass(frozen=True, kw_only=True)
class Expose(_Words):
    """``EXPOSE PORT[/PROTOCOL] …``."""


@dataclass(frozen=True, kw_only=True)
class Volume(_Words):
    """``VOLUME PATH …``."""

    def expanded(self, env: Mapping[str, str], escape: str = "\\") -> Volume:
        return dataclasses.replace(self, words=tuple(expand_word(word, env, escape) for word in self.words))


@dataclass(frozen=True, kw_only=True)
class _Word(Instruction):
    word: str

    def expanded(self: T, env: Mapping[str, str], escape: str = "\\") -> T:
        return dataclasses.replace(self, word=expand_word(self.word, env, escape))  # type: ignore[attr-defined, call-arg]


@dataclass(frozen=True, kw_only=True)
class User(_Word):
    """``USER NAME[:GROUP]``."""


@dataclass(frozen=True, kw_only=True)
class Workdir(_Word):
    """``WORKDIR PATH``."""


@dataclass(frozen=True, kw_only=True)
class Stopsignal(_Word):
    """``STOPSIGNAL SIGNAL``."""


@dataclass(frozen=True, kw_only=True)
class Maintainer(Instruction):
    """``MAINTAINER TEXT``."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Copy(Instruction):
    """``COPY [flags] SOURCE … DESTINATION``. A source that begins with ``<<`` names a here-document."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()

    def expanded(self: T, env: Mapping[str, str], escape: str = "\\") -> T:
        def expand(text: str) -> str:
            return expand_word(text, env, escape)

        changes: dict[str, Any] = {
            "sources": tuple(s if s.startswith("<<") else expand(s) for s in self.sources),  # type: ignore[attr-defined]
            "exclude": tuple(expand(e) for e in self.exclude),  # type: ignore[attr-defined]
            "heredocs": tuple(
                dataclasses.replace(h, text=expand_text(h.text, env, escape), expand=False) if h.expand else h
                for h in self.heredocs  # type: ignore[attr-defined]
            ),
        }
        for name in ("destination", "chown", "chmod"):
            changes[name] = expand(getattr(self, name))
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Add(Copy):
    """``ADD [flags] SOURCE … DESTINATION``."""

    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None

    def expanded(self, env: Mapping[str, str], escape: str = "\\") -> Add:
        return dataclasses.replace(super().expanded(env, escape), checksum=expand_word(self.checksum, env, escape))


@dataclass(frozen=True, kw_only=True)
class Healthcheck(Instruction):
    """``HEALTHCHECK [flags] CMD …`` or ``NONE``; times in nanoseconds, 0 where none was given."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class Onbuild(Instruction):
    """``ONBUILD INSTRUCTION``."""

    trigger: str


@dataclass
class _Statement:
    """A logical line cut into keyword, flags and rest."""

    line: LogicalLine
    keyword: str
    flags: dict[str, list[str | None]]
    rest: str
    used: set[str] = field(default_factory=set)

    def flag(self, name: str, default: str = "") -> str:
        values = self.flags_of(name)
        if len(values) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        return values[0] if values else default

    def flags_of(self, name: str) -> tuple[str, ...]:
        self.used.add(name)
        values = self.flags.get(name, [])
        if None in values:
            raise DockerfileError(f"missing a value on flag: {name}")
        return tuple(value for value in values if value is not None)

    def boolean(self, name: str) -> bool | None:
        self.used.add(name)
        if self.flags.get(name) in (None, [None]):
            return True if name in self.flags else None
        value = self.flag(name)
        if not value:
            raise DockerfileError(f"missing a value on flag: {name}")
        if value.lower() not in ("true", "false"):
            raise DockerfileError(f"expecting boolean value for flag {name}, not: {value}")
        return value.lower() == "true"

    @property
    def common(self) -> dict[str, Any]:
        line = self.line
        return {
            "source": line.text,
            "first": line.first,
            "last": line.last,
            "comments": line.comments,
            "gap": line.gap,
        }


def parse_instruction(line: LogicalLine, escape: str = "\\") -> Instruction:
    """Read one instruction. Raises DockerfileError without a place; the caller knows it."""
    keyword, rest = [*line.text.split(None, 1), "", ""][:2]
    statement = _Statement(line, keyword.upper(), {}, rest)
    reader = _READERS.get(statement.keyword)
    if reader is None:
        raise DockerfileError(f"unknown instruction: {keyword}{did_you_mean(statement.keyword, list(_READERS))}")
    _take_flags(statement)
    if not statement.rest and statement.keyword not in ("CMD", "ENTRYPOINT"):
        raise DockerfileError(f"{statement.keyword} requires at least one argument")
    instruction = reader(statement, escape)
    unknown = set(statement.flags) - statement.used
    if unknown:
        name = min(unknown)
        raise DockerfileError(f"unknown flag: --{name}{did_you_mean(name, sorted(statement.used), '--')}")
    return instruction


def did_you_mean(name: str, known: Sequence[str], prefix: str = "") -> str:
    """`` (did you mean X?)`` with the nearest of the *known* names; empty if none is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def _take_flags(statement: _Statement) -> None:
    while statement.rest.startswith("--"):
        end = word_end(statement.rest, 0)
        word, statement.rest = unquoted(statement.rest[:end]), statement.rest[end:].lstrip()
        if word == "--":
            return
        match = _FLAG.fullmatch(word)
        if not match:
            raise DockerfileError(f"unknown flag: {word}")
        statement.flags.setdefault(match.group(1), []).append(match.group(2))


def _json_words(text: str) -> list[str] | None:
    """The words of a JSON list; None for what is no JSON list, which then is shell form."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in words):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    # JSON may name half a surrogate pair, which no UTF-8 can hold
    return [word.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for word in words]


def _from(s: _Statement, escape: str) -> From:
    words = s.rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM requires either one or three arguments")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not re.fullmatch(r"[a-z][a-z0-9-_.]*", name):
        raise DockerfileError(
            f"invalid name for build stage: {words[2]!r}, name can't start with a number or contain symbols"
        )
    return From(image=words[0], name=name, platform=s.flag("platform"), **s.common)


def _command(s: _Statement) -> dict[str, Any]:
    words = _json_words(s.rest)
    if words is not None:
        return {"words": tuple(words), "is_shell": False, "heredocs": s.line.heredocs} | s.common
    return {"words": (s.rest,) if s.rest else (), "is_shell": True, "heredocs": s.line.heredocs} | s.common


def _run(s: _Statement, escape: str) -> Run:
    network = s.flag("network", "default")
    if network not in ("default", "none", "host"):
        raise DockerfileError(f'invalid network mode: "{network}"')
    security = s.flag("security", "sandbox")
    if security not in _SECURITY:
        raise DockerfileError(f'security "{security}" is not valid')
    mounts = tuple(map(_mount_options, s.flags_of("mount")))
    return Run(mounts=mounts, network=network, security=security, **_command(s))


def _mount_options(text: str) -> MountOptions:
    """What the options mean is for ``build.run.mounts`` to say, once their variables are known."""
    try:
        (row,) = csv.reader([text])
    except (csv.Error, ValueError) as error:
        raise DockerfileError(f"invalid mount {text!r}: {error}") from None
    options: list[tuple[str, str | None]] = []
    for field_ in row:
        key, equals, value = field_.partition("=")
        options.append((key.lower(), value if equals else None))
        # which stages are needed must be known before any of them is built
        if key.lower() == "from" and "$" in value[:-1]:
            raise DockerfileError("'from' doesn't support variable expansion, define alias stage instead")
    return tuple(options)


def _shell(s: _Statement, escape: str) -> Shell:
    words = _json_words(s.rest)
    if not words:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return Shell(words=tuple(words), **s.common)


def _pairs(s: _Statement, escape: str) -> dict[str, Any]:
    words = split_words(s.rest, escape)
    if "=" not in words[0]:
        # the old form: one name, and everything behind it is the value
        name, value = [*s.rest.split(None, 1), ""][:2]
        if not value:
            raise DockerfileError(f"{s.keyword} must have two arguments")
        return {"pairs": ((name, value),), "is_legacy": True} | s.common
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not name:
            raise DockerfileError(f"{s.keyword} names can not be blank")
        pairs.append((name, value))
    return {"pairs": tuple(pairs)} | s.common


def _arg(s: _Statement, escape: str) -> Arg:
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(s.rest, escape):
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(pairs=tuple(pairs), **s.common)


def _list_words(s: _Statement, escape: str) -> tuple[str, ...]:
    words = _json_words(s.rest)
    return tuple(words if words is not None else split_words(s.rest, escape))


def _volume(s: _Statement, escape: str) -> Volume:
    words = _list_words(s, escape)
    if not all(w.strip() for w in words):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(words=words, **s.common)


def _one_word(kind: Callable[..., T]) -> Callable[[_Statement, str], T]:
    def read(s: _Statement, escape: str) -> T:
        words = split_words(s.rest, escape)
        if len(words) != 1 and s.keyword != "WORKDIR":
            raise DockerfileError(f"{s.keyword} requires exactly one argument")
        return kind(word=s.rest, **s.common)

    return read


def _copy_fields(s: _Statement, escape: str) -> dict[str, Any]:
    words = _list_words(s, escape)
    if len(words) < 2:
        raise DockerfileError(
            f"{s.keyword} requires at least two arguments, but only one was provided. Destination could not be determined."
        )
    from_ = s.flag("from") if s.keyword == "COPY" else ""
    if "$" in from_:
        raise DockerfileError(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround"
        )
    chown, chmod = s.flag("chown"), s.flag("chmod")
    return {
        "sources": words[:-1],
        "destination": words[-1],
        "heredocs": s.line.heredocs,
        "from_": from_,
        "chown": chown,
        "chmod": chmod,
        "link": bool(s.boolean("link")),
        "parents": bool(s.boolean("parents")) if s.keyword == "COPY" else False,
        "exclude": s.flags_of("exclude"),
    } | s.common


def _add(s: _Statement, escape: str) -> Add:
    fields = _copy_fields(s, escape)
    keep = bool(s.boolean("keep-git-dir"))
    return Add(checksum=s.flag("checksum"), keep_git_dir=keep, unpack=s.boolean("unpack"), **fields)


def _healthcheck(s: _Statement, escape: str) -> Healthcheck:
    kind, rest = [*s.rest.split(None, 1), ""][:2]
    if kind.upper() == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(test=("NONE",), **s.common)
    if kind.upper() != "CMD":
        raise DockerfileError(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    words = _json_words(rest)
    test = ("CMD", *words) if words is not None else ("CMD-SHELL", rest)
    if len(test) < 2 or not test[1]:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    retries = s.flag("retries", "0")
    if not re.fullmatch("[0-9]{1,9}", retries):
        raise DockerfileError(f"invalid number of retries: {retries}")
    times: dict[str, Any] = {
        name.replace("-", "_"): _interval(s, name) for name in ("interval", "timeout", "start-period", "start-interval")
    }
    return Healthcheck(test=test, retries=int(retries), **times, **s.common)


def _interval(s: _Statement, name: str) -> int:
    value = duration_ns(s.flag(name))
    if 0 < value < _DURATION_UNITS["ms"]:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms')
    return value


def duration_ns(text: str) -> int:
    """Go's duration, such as ``1m30s``, in nanoseconds; empty is 0. Raises DockerfileError."""
    if text in ("", "0"):
        return 0
    parts = _DURATION.findall(text)
    total = int(sum(Decimal(number) * _DURATION_UNITS[unit] for number, unit in parts))
    if "".join(number + unit for number, unit in parts) != text or total >= 1 << 63:
        raise DockerfileError(f'time: invalid duration "{text}"')
    return total


def _onbuild(s: _Statement, escape: str) -> Onbuild:
    keyword = s.rest.split(None, 1)[0].upper()
    if keyword == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if keyword in _FORBIDDEN_TRIGGERS:
        raise DockerfileError(f"{keyword} isn't allowed as an ONBUILD trigger")
    parse_instruction(LogicalLine(s.rest, s.line.first, s.line.last, s.line.heredocs), escape)
    documents = "".join(f"\n{h.text}{h.name}" for h in s.line.heredocs)
    return Onbuild(trigger=s.rest + documents, **s.common)


_READERS: dict[str, Callable[[_Statement, str], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "CMD": lambda s, e: Cmd(**_command(s)),
    "ENTRYPOINT": lambda s, e: Entrypoint(**_command(s)),
    "SHELL": _shell,
    "ENV": lambda s, e: Env(**_pairs(s, e)),
    "LABEL": lambda s, e: Label(**_pairs(s, e)),
    "ARG": _arg,
    "EXPOSE": lambda s, e: Expose(words=_list_words(s, e), **s.common),
    "VOLUME": _volume,
    "USER": _one_word(User),
    "WORKDIR": _one_word(Workdir),
    "STOPSIGNAL": _one_word(Stopsignal),
    "MAINTAINER": lambda s, e: Maintainer(text=s.rest, **s.common),
    "COPY": lambda s, e: Copy(**_copy_fields(s, e)),
    "ADD": _add,
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
}
