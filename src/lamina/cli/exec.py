"""``exec``: one more command in a running container."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from lamina.cli.grammar import REMAINDER, CommandFailed, Options, Parser
from lamina.cli.streams import carry
from lamina.cli.values import environment, file_lines
from lamina.client.client import Client, quoted
from lamina.container.detach import DetachKeys


def execute(client: Client, argv: list[str]) -> int:
    """``lamina exec``."""
    options = _parser().parse(argv)
    if not options.command:
        raise CommandFailed("lamina: 'lamina exec' requires at least 2 arguments")
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        raise CommandFailed("the input device is not a TTY")
    created = client.request("POST", f"/containers/{quoted(options.container)}/exec", body=_body(options)).json()
    path = f"/exec/{created['Id']}"
    if options.detach:
        client.request("POST", f"{path}/start", body={"Detach": True, "Tty": options.tty}).read()
        return 0
    _carry(client, options, path)
    return int(client.request("GET", f"{path}/json").json()["ExitCode"] or 0)


def _carry(client: Client, options: Options, path: str) -> None:
    """Join this command's streams to the process's until it ends, or the user detaches."""
    connection, rest = client.hijack(f"{path}/start", body={"Detach": False, "Tty": options.tty})
    keys = DetachKeys(options.detach_keys) if options.tty and options.interactive else None
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        if options.tty:
            from lamina.cli.terminal import following_size, raw_terminal

            stack.enter_context(following_size(client, path))()
            if options.interactive and os.isatty(0):
                stack.enter_context(raw_terminal())
        if carry(connection, rest, terminal=options.tty, stdin=options.interactive, keys=keys):
            raise CommandFailed("read escape sequence")


def _body(options: Options) -> dict[str, Any]:
    try:
        lines = [line for path in options.env_file for line in file_lines(path, takes_own_values=True)]
    except (OSError, ValueError) as error:
        raise CommandFailed(str(error)) from None
    body: dict[str, Any] = {
        "AttachStdin": options.interactive and not options.detach,
        "AttachStdout": not options.detach,
        "AttachStderr": not options.detach,
        "Tty": options.tty,
        "Env": [*lines, *options.env],
        "Cmd": options.command,
        "Privileged": options.privileged,
        "User": options.user or "",
        "WorkingDir": options.workdir or "",
        "DetachKeys": options.detach_keys or "",
    }
    if options.tty:
        from lamina.cli.terminal import terminal_size

        body["ConsoleSize"] = list(terminal_size())
    return body


def _parser() -> Parser:
    parser = Parser("exec", "[OPTIONS] CONTAINER COMMAND [ARG...]")
    parser.flag("-d", "--detach", help="Detached mode: run command in the background")
    parser.value("--detach-keys", help="Override the key sequence for detaching a container")
    parser.values("-e", "--env", convert=environment, help="Set environment variables")
    parser.values("--env-file", help="Read in a file of environment variables")
    parser.flag("-i", "--interactive", help="Keep STDIN open even if not attached")
    parser.flag("--privileged", help="Give extended privileges to the command")
    parser.flag("-t", "--tty", help="Allocate a pseudo-TTY")
    parser.value("-u", "--user", help='Username or UID (format: "<name|uid>[:<group|gid>]")')
    parser.value("-w", "--workdir", help="Working directory inside the container")
    parser.add_argument("container")
    parser.add_argument("command", nargs=REMAINDER)
    return parser


COMMANDS = {"exec": execute}
