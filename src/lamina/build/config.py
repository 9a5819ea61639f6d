"""Instructions that change only the JSON: a run configuration goes in, a new one comes out. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.parser import parse_line

RunDocument = Mapping[str, Any]
DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_CHANGES = (ins.Cmd, ins.Entrypoint, ins.Env, ins.Expose, ins.Healthcheck, ins.Label, ins.Onbuild, ins.Stopsignal, ins.User,
            ins.Volume, ins.Workdir)  # fmt: skip


def apply_changes(run: RunDocument, changes: Sequence[str]) -> dict[str, Any]:
    """What ``import --change`` and ``commit --change`` do to an image's configuration. Raises DockerfileError."""
    document = dict(run)
    for line in (part for text in changes for part in text.splitlines() if part.strip()):
        instruction = parse_line(line)
        if not isinstance(instruction, _CHANGES):
            raise DockerfileError(f"{line.split()[0].upper()} is not a valid change command")
        document = change(document, instruction.expanded(environment(document)))
    return document


def environment(run: RunDocument) -> dict[str, str]:
    """The variables that a configuration sets."""
    return dict(entry.partition("=")[::2] for entry in run.get("Env") or [])


def change(run: RunDocument, instruction: ins.Instruction) -> dict[str, Any]:
    """The configuration after an instruction whose variables are expanded; unchanged by one that is not about the JSON."""
    changer = _CHANGERS.get(type(instruction))
    return dict(run) | changer(run, instruction) if changer is not None else dict(run)


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
    # a new entry point makes the base's command meaningless
    return {"Entrypoint": command_words(run, instruction) if instruction.words else None, "Cmd": None}


def _set_expose(run: RunDocument, instruction: ins.Expose) -> dict[str, Any]:
    ports = dict(run.get("ExposedPorts") or {})
    for word in instruction.words:
        ports.update({port: {} for port in parse_ports(word)})
    return {"ExposedPorts": ports}


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
    return {"WorkingDir": working_directory(run, instruction.word)}


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
    ins.Stopsignal: lambda run, i: {"StopSignal": i.word},
    ins.Shell: lambda run, i: {"Shell": list(i.words)},
    ins.Onbuild: lambda run, i: {"OnBuild": [*(run.get("OnBuild") or []), i.trigger]},
}
