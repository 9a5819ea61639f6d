"""``lamina``: finds the command, runs it, turns errors into messages and exit codes. Imports only what the command needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lamina.errors import LaminaError

_COMMANDS = {
    "build": "build",
    "run": "run",
    "create": "run",
    "start": "containers",
    "stop": "containers",
    "restart": "containers",
    "kill": "containers",
    "wait": "containers",
    "logs": "containers",
    "ps": "ps",
    "rm": "containers",
    "attach": "containers",
    "inspect": "inspect",
    "images": "images",
    "history": "images",
    "tag": "images",
    "rmi": "images",
    "save": "images",
    "load": "images",
    "import": "images",
    "export": "containers",
    "verify": "images",
    "bootstrap": "bootstrap",
    "version": "system",
    "info": "system",
    "events": "system",
    "doctor": "system",
}
_GROUPS = {
    "container": {"ls": "ps", "list": "ps", "run": "run", "create": "create", "start": "start", "stop": "stop", "rm": "rm",
                  "restart": "restart", "kill": "kill", "wait": "wait", "logs": "logs", "attach": "attach",
                  "inspect": "inspect", "prune": "container-prune"},
    "image": {"ls": "images", "list": "images", "build": "build", "history": "history", "tag": "tag", "rm": "rmi",
              "save": "save", "load": "load", "import": "import", "inspect": "inspect", "prune": "image-prune"},
    "system": {"info": "info", "events": "events"},
}  # fmt: skip
_READER_GONE = 141
_EXTRA = {"container-prune": "containers", "image-prune": "images"}
_USAGE = """
Usage:  lamina [OPTIONS] COMMAND

A container engine whose layers are never unpacked; docker's grammar.

Commands:
  {commands}

Lamina's own:
  daemon      Run the daemon in the foreground
  doctor      Tell what this host lacks
  bootstrap   Make a base image from a distribution's packages
  verify      Hash an image's layers again

Options:
  -H, --host string   Daemon to talk to (default: $LAMINA_HOST, $DOCKER_HOST, unix:///run/lamina/lamina.sock)
  -v, --version       Print the version and quit
"""


def entry() -> NoReturn:
    """The process: run the command that was typed, and end.

    Ended by hand: the interpreter's own end, which takes its modules apart one by one, costs a short command 5 ms of 40.
    """
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or _READER_GONE
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone: nothing more to say
        return _READER_GONE
    except KeyboardInterrupt:
        return 130


def _dispatch(words: list[str]) -> int:
    host, words = _global_options(words)
    if not words or words[0] in ("help", "--help", "-h"):
        print(_USAGE.format(commands=_wrapped(sorted(_COMMANDS))))
        return 0
    if words[0] in ("-v", "--version"):
        from importlib.metadata import version

        print(f"lamina version {version('lamina')}")
        return 0
    if words[0] == "daemon":
        # the daemon is no part of the command line: this process becomes it
        os.execv(sys.executable, [sys.executable, "-m", "lamina.daemon.main", *words[1:]])  # noqa: S606
    name, arguments = words[0], words[1:]
    if name in _GROUPS and arguments and arguments[0] in _GROUPS[name]:
        name, arguments = _GROUPS[name][arguments[0]], arguments[1:]
    module = _COMMANDS.get(name) or _EXTRA.get(name)
    if module is None:
        print(f"lamina: '{' '.join(words[:1])}' is not a lamina command.\nSee 'lamina --help'", file=sys.stderr)
        return 1
    return _run(module, name, arguments, host)


def _run(module: str, name: str, arguments: list[str], host: str | None) -> int:
    import importlib

    from lamina.cli.grammar import UsageError
    from lamina.client.address import choose_host
    from lamina.client.client import Client

    command = importlib.import_module(f"lamina.cli.{module}").COMMANDS[name]
    starts_container = name in ("run", "create")
    try:
        code: int = command(Client(choose_host(host)), arguments)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 125 if starts_container else 1
    except LaminaError as error:
        prefix = "lamina: " if starts_container else ""
        print(f"{prefix}{_told(error)}", file=sys.stderr)
        return start_exit_code(error.message) if starts_container else 1
    return code


def start_exit_code(message: str) -> int:
    """The exit code of ``run`` for an error at the start: it follows the message's words, as docker's does."""
    lowered = message.lower()
    if "executable file not found" in lowered or ("exec:" in lowered and "no such file or directory" in lowered):
        return 127
    if "exec:" in lowered and ("permission denied" in lowered or "is a directory" in lowered):
        return 126
    return 125


def _told(error: LaminaError) -> str:
    unreachable = type(error).__name__ in ("DaemonUnreachable", "ConnectionCut")
    return error.message if unreachable else f"Error response from daemon: {error.message}"


def _global_options(words: list[str]) -> tuple[str | None, list[str]]:
    host = None
    while words:
        if words[0] in ("-H", "--host") and len(words) > 1:
            host, words = words[1], words[2:]
        elif words[0].startswith("--host="):
            host, words = words[0].partition("=")[2], words[1:]
        elif words[0] in ("-D", "--debug"):
            words = words[1:]
        else:
            break
    return host, words


def _wrapped(names: list[str]) -> str:
    rows = [names[start : start + 6] for start in range(0, len(names), 6)]
    return "\n  ".join("".join(name.ljust(12) for name in row).rstrip() for row in rows)


if __name__ == "__main__":
    entry()
