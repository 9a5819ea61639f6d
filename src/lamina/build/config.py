"""Instructions that change only the JSON: a run configuration goes in, a new one comes out. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.parser import parse_line
from lamina.linux.signals import signal_number

RunDocument = Mapping[str, Any]
DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# a host's part, address and port, is docker's to allow and nobody's to heed: an image cannot publish
_PORT = re.compile(r"(?:(?:[\d.]*:)?[\d-]*:)?(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_CHANGES = (ins.Cmd, ins.Entrypoint, ins.Env, ins.Expose, ins.Healthcheck, ins.Label, ins.Onbuild, ins.Stopsignal, ins.User,
            ins.Volume, ins.Workdir)  # fmt: skip


def apply_changes(run: RunDocument, changes: Sequence[str]) -> dict[str, Any]:
    """What ``import --change`` and ``commit --change`` do to an image's configuration. Raises DockerfileError."""
    document = dict(run)
    has_command = False
    for line in (part for text in changes for part in text.splitlines() if part.strip()):
        instruction = parse_line(line)
        if not isinstance(instruction, _CHANGES):
            raise DockerfileError(f"{line.split()[0].lower()} is not a valid change command")
        document = change(document, instruction.expanded(environment(document)), keep_command=has_command)
        has_command |= isinstance(instruction, ins.Cmd)
    return document


def environment(run: RunDocument) -> dict[str, str]:
    """The variables that a configuration sets."""
    return dict(entry.partition("=")[::2] for entry in run.get("Env") or [])


def change(run: RunDocument, instruction: ins.Instruction, *, keep_command: bool = False) -> dict[str, Any]:
    """The configuration after an instruction whose variables are expanded; unchanged by one that is not about the JSON.

    An entry point makes the command that came from the base meaningless and takes it away, but with *keep_command*.
    Raises DockerfileError.
    """
    changer = _CHANGERS.get(type(instruction))
    if changer is None:
        return dict(run)
    changed = dict(run) | changer(run, instruction)
    if isinstance(instruction, ins.Entrypoint) and not keep_command:
        changed["Cmd"] = None
    return changed


def described(run: RunDocument, instruction: ins.Instruction) -> str:
    """An instruction whose variables are expanded, in one form however it was typed: for ``history`` and for its cache key."""
    describe = _DESCRIPTIONS.get(type(instruction))
    return describe(run, instruction) if describe is not None else instruction.source


def with_default_path(run: RunDocument) -> dict[str, Any]:
    """The configuration that a stage starts from: every image has a PATH."""
    if "PATH" in environment(run):
        return dict(run)
    return {**run, "Env": [f"PATH={DEFAULT_PATH}", *(run.get("Env") or [])]}


def command_words(run: RunDocument, command: ins.Command) -> list[str]:
    """A command as the words that are executed: the shell form behind the shell."""
    if not command.is_shell:
        return list(command.words)
    return [*(run.get("Shell") or DEFAULT_SHELL), *command.words]


def working_directory(run: RunDocument, path: str) -> str:
    """A path as seen from the working directory."""
    return posixpath.normpath(posixpath.join(run.get("WorkingDir") or "/", path))


def _set_env(run: RunDocument, instruction: ins.Env) -> dict[str, Any]:
    variables = environment(run) | dict(instruction.pairs)
    return {"Env": [f"{name}={value}" for name, value in variables.items()]}


def _set_label(run: RunDocument, instruction: ins.Label) -> dict[str, Any]:
    return {"Labels": {**(run.get("Labels") or {}), **dict(instruction.pairs)}}


def _set_cmd(run: RunDocument, instruction: ins.Cmd) -> dict[str, Any]:
    return {"Cmd": command_words(run, instruction) if instruction.words else None}


def _set_entrypoint(run: RunDocument, instruction: ins.Entrypoint) -> dict[str, Any]:
    return {"Entrypoint": command_words(run, instruction) if instruction.words else None}


def _set_expose(run: RunDocument, instruction: ins.Expose) -> dict[str, Any]:
    return {"ExposedPorts": {**(run.get("ExposedPorts") or {}), **{port: {} for port in _exposed(instruction)}}}


def _exposed(instruction: ins.Expose) -> list[str]:
    return [port for word in instruction.words for port in parse_ports(word)]


def parse_ports(text: str) -> list[str]:
    """``80``, ``80/udp`` or ``8000-8010/tcp`` as docker's port names. Raises DockerfileError."""
    match = _PORT.fullmatch(text)
    first, last, protocol = (match.group(1), match.group(2), match.group(3)) if match else ("", "", "")
    numbers = range(int(first), int(last or first) + 1) if first else range(0)
    if not numbers or numbers[-1] > 65535:
        raise DockerfileError(f"invalid containerPort: {text}")
    return [f"{number}/{(protocol or 'tcp').lower()}" for number in numbers]


def _set_volume(run: RunDocument, instruction: ins.Volume) -> dict[str, Any]:
    return {"Volumes": {**(run.get("Volumes") or {}), **{word: {} for word in instruction.words}}}


def _set_workdir(run: RunDocument, instruction: ins.Workdir) -> dict[str, Any]:
    if not instruction.word:
        raise DockerfileError("cannot normalize nothing")
    return {"WorkingDir": working_directory(run, instruction.word)}


def _set_stop_signal(run: RunDocument, instruction: ins.Stopsignal) -> dict[str, Any]:
    signal_number(instruction.word)
    return {"StopSignal": instruction.word}


def _set_healthcheck(run: RunDocument, instruction: ins.Healthcheck) -> dict[str, Any]:
    fields = {
        "Test": list(instruction.test),
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return {"Healthcheck": {name: value for name, value in fields.items() if value}}


_CHANGERS: dict[type, Callable[[RunDocument, Any], dict[str, Any]]] = {
    ins.Env: _set_env,
    ins.Label: _set_label,
    ins.Cmd: _set_cmd,
    ins.Entrypoint: _set_entrypoint,
    ins.Expose: _set_expose,
    ins.Volume: _set_volume,
    ins.Workdir: _set_workdir,
    ins.Healthcheck: _set_healthcheck,
    ins.User: lambda run, i: {"User": i.word},
    ins.Stopsignal: _set_stop_signal,
    ins.Shell: lambda run, i: {"Shell": list(i.words)},
    ins.Onbuild: lambda run, i: {"OnBuild": [*(run.get("OnBuild") or []), i.trigger]},
}


def _pairs_text(keyword: str) -> Callable[[RunDocument, Any], str]:
    return lambda run, i: " ".join([keyword, *(f"{name}={value}" for name, value in i.pairs)])


def _command_text(keyword: str) -> Callable[[RunDocument, Any], str]:
    return lambda run, i: f"{keyword} [{' '.join(json.dumps(w, ensure_ascii=False) for w in command_words(run, i))}]"


def _copy_text(run: RunDocument, instruction: ins.Copy) -> str:
    flags = [f"--from={instruction.from_}"] if instruction.from_ else []
    flags += [f"--chown={instruction.chown}"] if instruction.chown else []
    flags += [f"--chmod={instruction.chmod}"] if instruction.chmod else []
    flags += ["--link"] if instruction.link else []
    flags += ["--parents"] if instruction.parents else []
    flags += [f"--exclude={pattern}" for pattern in instruction.exclude]
    keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
    return " ".join([keyword, *flags, *instruction.sources, instruction.destination])


# the words of docker's own builder, as ``docker history`` shows them
_DESCRIPTIONS: dict[type, Callable[[RunDocument, Any], str]] = {
    ins.Env: _pairs_text("ENV"),
    ins.Label: _pairs_text("LABEL"),
    ins.Cmd: _command_text("CMD"),
    ins.Entrypoint: _command_text("ENTRYPOINT"),
    ins.Arg: lambda run, i: " ".join(["ARG", *(n if v is None else f"{n}={v}" for n, v in i.pairs)]),
    ins.Expose: lambda run, i: f"EXPOSE [{' '.join(_exposed(i))}]",
    ins.Volume: lambda run, i: f"VOLUME [{' '.join(i.words)}]",
    ins.Workdir: lambda run, i: f"WORKDIR {working_directory(run, i.word)}",
    ins.User: lambda run, i: f"USER {i.word}",
    ins.Stopsignal: lambda run, i: f"STOPSIGNAL {i.word}",
    ins.Shell: lambda run, i: f"SHELL [{' '.join(i.words)}]",
    ins.Onbuild: lambda run, i: f"ONBUILD {i.trigger}",
    ins.Maintainer: lambda run, i: f"MAINTAINER {i.text}",
    ins.Copy: _copy_text,
    ins.Add: _copy_text,
}
