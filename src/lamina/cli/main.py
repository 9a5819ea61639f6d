"""``lamina``: finds the command, runs it, turns errors into messages and exit codes. Imports only what the command needs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from lamina.cli.commands import ALIASES, COMMANDS, GROUPS, OWN, command_named
from lamina.cli.grammar import REMAINDER, CommandFailed, HelpWanted, Options, Parser, UsageError
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.client.client import Client

_READER_GONE = 141
_INTERRUPTED = 130
_LOG_LEVELS = (None, "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace")


def entry() -> NoReturn:
    """The process: run the command that was typed, and end.

    Ended by hand: the interpreter's own end, which takes its modules apart one by one, costs a short command 5 ms of 40.
    """
    _open_missing_streams()
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or _READER_GONE
    except OSError:
        code = code or 1
    os._exit(code)


def _open_missing_streams() -> None:
    """Open /dev/null for a standard stream that was closed (``<&-``); else the next socket would be taken for it."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except HelpWanted as text:
        return _say(str(text))
    except CommandFailed as error:
        return _fail(str(error), error.code)
    except LaminaError as error:
        from lamina.client.client import told

        return _fail(told(error), 1)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone: nothing more to say
        return _READER_GONE
    except OSError as error:
        from lamina.cli.output import described

        return _fail(described(error), 1)


def _say(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _READER_GONE
    return 0


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # what was printed before the failure is to be read before it
    print(message, file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    parser = _global_parser()
    options = parser.parse(words)
    if options.version:
        from importlib.metadata import version

        print(f"lamina version {version('lamina')}")
        return 0
    if options.config:
        os.environ["DOCKER_CONFIG"] = options.config
    words = options.words
    if not words or words == ["help"]:
        print(_overview(parser))
        return 0
    if words[0] == "help":
        words = [*words[1:], "--help"]
        if words[0] not in COMMANDS and words[0] not in GROUPS:
            raise UsageError(f"unknown help topic: {words[0]}")
    if words[0] == "daemon":
        # the daemon is no part of the command line: this process becomes it
        os.execv(sys.executable, [sys.executable, "-m", "lamina.daemon.main", *words[1:]])  # noqa: S606
    if words[:2] == ["registry", "serve"]:
        os.execv(sys.executable, [sys.executable, "-m", "lamina.registry_server.main", *words[2:]])  # noqa: S606
    return _run(*_found(words), options)


def _found(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, and its arguments. Raises UsageError or HelpWanted."""
    name, arguments = words[0], words[1:]
    group = GROUPS.get(name)
    if group is None:
        if name not in COMMANDS:
            raise UsageError(f"lamina: unknown command: lamina {name}\n\nRun 'lamina --help' for more information")
        return name, arguments
    if not arguments:
        raise CommandFailed(_group_help(name), 0)
    if arguments[0] in ("--help", "-h"):
        raise HelpWanted(_group_help(name))
    if arguments[0] not in group.commands:
        raise UsageError(
            f"lamina: unknown command: lamina {name} {arguments[0]}\n\n"
            f"Usage:  lamina {name}\n\nRun 'lamina {name} --help' for more information"
        )
    return group.commands[arguments[0]], arguments[1:]


def _run(name: str, arguments: list[str], options: Options) -> int:
    import importlib

    command = command_named(name)
    assert command is not None
    function = importlib.import_module(f"lamina.cli.{command.module}").COMMANDS[name]
    code: int = function(_client(options), arguments)
    return code


def _global_parser() -> Parser:
    parser = Parser(
        "", "[OPTIONS] COMMAND [ARG...]", "A container engine whose layers are never unpacked; docker's grammar."
    )
    parser.value("--config", help="Location of client config files (default: $DOCKER_CONFIG, ~/.docker)")
    parser.value("-c", "--context", help="Name of docker's context to use (overrides $DOCKER_HOST)")
    parser.flag("-D", "--debug", help="Enable debug mode")
    parser.value("-H", "--host", help="Daemon to talk to (default: $LAMINA_HOST, $DOCKER_HOST, the local one)")
    parser.value("-l", "--log-level", help='Set the logging level ("debug", "info", "warn", "error", "fatal")')
    parser.flag("--tls", help="Use TLS; implied by --tlsverify")
    parser.value("--tlscacert", help="Trust certs signed only by this CA (default: $DOCKER_CERT_PATH, ~/.docker)")
    parser.value("--tlscert", help="Path to TLS certificate file (default: $DOCKER_CERT_PATH, ~/.docker)")
    parser.value("--tlskey", help="Path to TLS key file (default: $DOCKER_CERT_PATH, ~/.docker)")
    parser.flag("--tlsverify", help="Use TLS and verify the remote")
    parser.flag("-v", "--version", help="Print version information and quit")
    parser.add_argument("words", nargs=REMAINDER)
    return parser


def _client(options: Options) -> Client:
    """The client for the daemon that the global options, or the environment, name. Raises CommandFailed."""
    from lamina.client.address import choose_host
    from lamina.client.client import Client

    if options.log_level not in _LOG_LEVELS:
        raise CommandFailed(f"Unable to parse logging level: {options.log_level}")
    asks_for_tls = options.tls or options.tlsverify or options.tlscacert or options.tlscert or options.tlskey
    name = options.context or (None if options.host else os.environ.get("DOCKER_CONTEXT"))
    if name not in (None, "", "default"):
        if options.host:
            raise CommandFailed("conflicting options: cannot specify both --host and --context")
        from lamina.client.contexts import ContextNotFound, read_context

        try:
            context = read_context(name)
        except ContextNotFound as error:
            raise CommandFailed(f"unable to resolve docker endpoint: {error}") from None
        return Client(context.host, context.tls)
    host = choose_host(options.host)
    if not asks_for_tls and not (host or "").startswith("tcp://"):
        return Client(host)
    from lamina.client.tls import settings_of

    tls = settings_of(
        tls=bool(asks_for_tls),
        tlsverify=options.tlsverify,
        ca=options.tlscacert,
        certificate=options.tlscert,
        key=options.tlskey,
    )
    return Client(host, tls)


def _overview(parser: Parser) -> str:
    flags = parser.help().partition("\n\nOptions:\n")[2]
    docker_s = {name: command.description for name, command in COMMANDS.items() if name not in OWN}
    groups = {name: group.description for name, group in sorted(GROUPS.items())}
    own = {"daemon": "Run the daemon in the foreground"} | {n: COMMANDS[n].description for n in OWN if n in COMMANDS}
    parts = [f"Usage:  {parser.usage}\n\n{parser.description}"]
    for title, entries in (("Commands", docker_s), ("Management Commands", groups), ("Lamina's own", own)):
        parts.append(f"{title}:\n{_listed(entries)}")
    return "\n\n".join([*parts, f"Options:\n{flags}", "Run 'lamina COMMAND --help' for more information on a command."])


def _group_help(name: str) -> str:
    group = GROUPS[name]
    entries = {}
    for word, command_name in sorted(group.commands.items()):
        command = command_named(command_name)
        if command is not None and word not in ALIASES:
            entries[word] = command.description
    return (
        f"Usage:  lamina {name} COMMAND\n\n{group.description}\n\nCommands:\n{_listed(entries)}\n\n"
        f"Run 'lamina {name} COMMAND --help' for more information on a command."
    )


def _listed(entries: dict[str, str]) -> str:
    return "\n".join(f"  {name:<11} {description}" for name, description in sorted(entries.items()))


if __name__ == "__main__":
    entry()
