"""Rules for what a stage's instructions do, in their order: variables, commands, ports, copies."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.ignore import IgnoreRules
from lamina.dockerfile.lint import rules
from lamina.dockerfile.lint.report import Findings
from lamina.dockerfile.lint.variables import Lookups, did_you_mean
from lamina.dockerfile.words import expand_word

_REMOTE = ("http://", "https://", "git@", "git://", "ssh://")
_PROTOCOLS = ("", "tcp", "udp", "sctp")
_SECRET = re.compile("(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE)
_NO_SECRET = re.compile("(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


@dataclass
class Scope:
    """What a stage has gathered so far and hands on to those that are FROM it.

    *env* is in the order in which the variables were last set; *declared* are arguments, with a value or without. *knows_env* is false
    where the base image is unknown, so that any variable may be set. *triggers* are carried out in the next stage, and in no later one.
    """

    env: dict[str, str]
    declared: set[str] = field(default_factory=set)
    knows_env: bool = True
    has_shell: bool = False
    has_workdir: bool = False
    triggers: tuple[str, ...] = ()

    def inherited(self) -> Scope:
        """The scope in which a stage begins that is FROM this one."""
        return replace(self, env=dict(self.env), declared=set(self.declared))

    def set(self, name: str, value: str) -> None:
        """Give a variable a value."""
        self.env.pop(name, None)
        self.env[name] = value


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all stages."""

    build_args: Mapping[str, str]
    global_values: Mapping[str, str]
    ignore: IgnoreRules | None
    escape: str


class StageLinter:
    """Checks the instructions of one stage, which change its *scope*."""

    def __init__(self, findings: Findings, scope: Scope, surroundings: Surroundings) -> None:
        self._findings = findings
        self._scope = scope
        self._around = surroundings
        self._last: dict[type[ins.Instruction], ins.Instruction] = {}

    def take(self, instruction: ins.Instruction) -> None:
        """Report what is wrong with the stage's next instruction."""
        expanded = instruction if isinstance(instruction, ins.Arg) else self._expanded(instruction)
        match expanded:
            case ins.Env():
                self._take_env(expanded)
            case ins.Label():
                self._check_format(expanded)
            case ins.Arg():
                self._take_arg(expanded)
            case ins.Copy():
                self._check_sources(expanded)
            case ins.Workdir():
                self._take_workdir(expanded)
            case ins.Expose():
                self._check_ports(expanded)
            case ins.Cmd() | ins.Entrypoint() | ins.Healthcheck():
                self._take_command(expanded)
            case ins.Shell():
                self._scope.has_shell = True
            case ins.Onbuild():
                self._scope.triggers += (expanded.trigger,)

    def _expanded(self, instruction: ins.Instruction) -> ins.Instruction | None:
        """The instruction with its variables replaced; None if that cannot be, which the build itself will say."""
        lookups = Lookups(self._scope.env)
        expanded: ins.Instruction | None = None
        with suppress(DockerfileError):
            expanded = instruction.expanded(lookups, self._around.escape)
        if not isinstance(instruction, ins.Expose):  # BuildKit says nothing there
            self._report_undefined(instruction, lookups)
        return expanded

    def _report_undefined(self, instruction: ins.Instruction, lookups: Lookups) -> None:
        for name in lookups.missing:
            if self._scope.knows_env and name not in self._scope.declared:
                hint = did_you_mean(name, reversed(self._scope.env), "$")
                self._findings.add(rules.UNDEFINED_VAR, instruction.lines, name, hint)

    def _take_env(self, env: ins.Env) -> None:
        self._check_format(env)
        for name, value in env.pairs:
            self._check_secret(env, "ENV", name)
            self._scope.set(name, value)

    def _take_arg(self, arg: ins.Arg) -> None:
        for name, default in arg.pairs:
            self._check_secret(arg, "ARG", name)
            value = self._around.build_args.get(name)
            if value is None and default is not None:
                value = self._default(arg, default)
            elif value is None:
                value = self._around.global_values.get(name)
            if value is not None:
                self._scope.set(name, value)
            self._scope.declared.add(name)

    def _default(self, arg: ins.Arg, default: str) -> str | None:
        lookups = Lookups(self._scope.env)
        try:
            return expand_word(default, lookups, self._around.escape)
        except DockerfileError:
            return None
        finally:
            self._report_undefined(arg, lookups)

    def _check_format(self, instruction: ins.Env | ins.Label) -> None:
        if instruction.is_legacy:
            self._findings.add(rules.LEGACY_KEY_VALUE_FORMAT, instruction.lines, instruction.keyword)

    def _check_secret(self, instruction: ins.Instruction, kind: str, name: str) -> None:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            self._findings.add(rules.SECRETS_USED_IN_ARG_OR_ENV, instruction.lines, kind, name)

    def _take_workdir(self, workdir: ins.Workdir) -> None:
        """One relative path is enough to say: with it put right, all that follow are."""
        if not self._scope.has_workdir and not workdir.word.startswith("/"):
            self._findings.add(rules.WORKDIR_RELATIVE_PATH, workdir.lines, workdir.word)
        self._scope.has_workdir = True

    def _take_command(self, instruction: ins.Cmd | ins.Entrypoint | ins.Healthcheck) -> None:
        keyword = instruction.keyword
        if earlier := self._last.get(type(instruction)):
            # the earlier one is the one that has no effect
            self._findings.add(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, earlier.lines, keyword)
        self._last[type(instruction)] = instruction
        if isinstance(instruction, ins.Command) and instruction.is_shell and not self._scope.has_shell:
            self._findings.add(rules.JSON_ARGS_RECOMMENDED, instruction.lines, keyword)

    def _check_ports(self, expose: ins.Expose) -> None:
        for word in expose.words:
            host, colon, port = word.rpartition(":")
            number, _, protocol = port.partition("/")
            if not number or protocol.lower() not in _PROTOCOLS:
                return  # the build will refuse it
            if protocol != protocol.lower():
                self._findings.add(rules.EXPOSE_PROTO_CASING, expose.lines, word)
            if colon and host.strip(":"):
                self._findings.add(rules.EXPOSE_INVALID_FORMAT, expose.lines, word)

    def _check_sources(self, copy: ins.Copy) -> None:
        ignore = self._around.ignore
        # with exceptions there may be something to copy in an ignored directory
        if copy.from_ or ignore is None or ignore.has_exceptions:
            return
        kind = "Add" if isinstance(copy, ins.Add) else "Copy"
        for source in copy.sources:
            path = posixpath.normpath(source)
            if not source.startswith((*_REMOTE, "<<")) and ignore.excludes(path):
                self._findings.add(rules.COPY_IGNORED_FILE, copy.lines, kind, path)
