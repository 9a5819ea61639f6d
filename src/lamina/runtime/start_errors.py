"""Why a container did not start, told as docker tells it.

The exit code of ``docker run`` follows the words of the message: "executable file not found" makes 127, "permission denied" makes 126
and anything else 125. crun has words of its own, so both runtimes' are read and said again in docker's.
"""

from __future__ import annotations

import json
import re

from lamina.errors import CommandNotExecutable, CommandNotFound, ContainerStartError

_PREFIX = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
_EXEC_PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "
_EXEC_WORDS = ("exec failed: ", "unable to start container process: ", "starting container process caused: ")
_NOT_FOUND = ("executable file not found", "not found in $PATH", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")
_CRUN_NOT_FOUND = re.compile(
    r"executable file [`'\"](?P<command>[^`'\"]*)['`\"] not found(?: in \$PATH)?", re.IGNORECASE
)
_CRUN_OPEN = re.compile(r"(?:open|exec) executable: (?P<reason>.*)", re.IGNORECASE)


class RuntimeStartFailed(ContainerStartError):
    """The runtime refused, for a reason that is not the command's."""


def start_error(raw: str, command: str) -> ContainerStartError:
    """The error for a runtime's message about starting *command*."""
    reason = _in_docker_words(raw.strip(), command)
    return _classified(f"{_PREFIX}{reason}: unknown", reason)


def exec_error(raw: str, command: str) -> ContainerStartError:
    """The error for a runtime's message about starting *command* in a running container."""
    reason = _in_docker_words(raw.strip(), command).removeprefix("runc create failed: ")
    for words in _EXEC_WORDS:
        reason = reason.removeprefix(words)
    return _classified(f"{_EXEC_PREFIX}{reason}: unknown", reason)


def _classified(message: str, reason: str) -> ContainerStartError:
    lowered = reason.lower()
    about_command = "exec:" in lowered or "exec " in lowered
    if about_command and any(words in lowered for words in _NOT_FOUND):
        return CommandNotFound(message)
    if about_command and any(words in lowered for words in _NOT_EXECUTABLE):
        return CommandNotExecutable(message)
    return RuntimeStartFailed(message)


def last_message(log: str) -> str | None:
    """The last error in a runtime's JSON log, None if there is none."""
    message = None
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            message = str(entry.get("msg", ""))
    return message


def _in_docker_words(raw: str, command: str) -> str:
    failed = "runc create failed: unable to start container process: "
    match = _CRUN_NOT_FOUND.search(raw)
    if match:
        name = match.group("command") or command
        where = "executable file not found in $PATH" if "/" not in name else f"stat {name}: no such file or directory"
        return f'{failed}exec: "{name}": {where}'
    match = _CRUN_OPEN.search(raw)
    if match:
        return f'{failed}exec: "{command}": {match.group("reason").lower()}'
    return raw
