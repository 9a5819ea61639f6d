"""``run`` and ``create``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from lamina.cli.container_config import attached_streams, container_body
from lamina.cli.grammar import CommandFailed, Options
from lamina.cli.joining import Joining, join
from lamina.cli.options import parse_options
from lamina.cli.output import described, stderr
from lamina.cli.terminal import terminal_size
from lamina.client.client import Client, told
from lamina.errors import LaminaError, NotFound

_PULL = ("always", "missing", "never")
_FAILED = 125


def run(client: Client, argv: list[str]) -> int:
    """``lamina run``."""
    options = parse_options("run", argv)
    if options.detach and options.attach:
        raise CommandFailed("conflicting options: cannot specify both --attach and --detach")
    attached = attached_streams(options)
    body = _body(client, options, "run")
    if options.tty and "stdin" in attached and not os.isatty(0):
        raise CommandFailed("the input device is not a TTY")
    with _told_as_run():
        container_id = _create(client, options, body)
        start = f"/containers/{container_id}/start"
        if options.detach:
            client.request("POST", start).read()
            print(container_id)
            return 0
        joining = Joining(
            container_id,
            streams=attached,
            terminal=options.tty,
            detach_keys=options.detach_keys,
            passes_signals=options.sig_proxy,
            condition="removed" if options.rm else "next-exit",
        )
        return join(client, joining, lambda: client.request("POST", start).read()) or 0


def create(client: Client, argv: list[str]) -> int:
    """``lamina create``."""
    options = parse_options("create", argv)
    print(_create(client, options, _body(client, options, "create")))
    return 0


def start_exit_code(message: str) -> int:
    """The exit code of ``run`` for an error at the start: it follows the message's words, as docker's does."""
    lowered = message.lower()
    if "executable file not found" in lowered or "no such file or directory" in lowered:
        return 127
    if "permission denied" in lowered or "is a directory" in lowered:
        return 126
    return _FAILED


def _body(client: Client, options: Options, command: str) -> dict[str, Any]:
    """The container that the options ask for. Raises CommandFailed for options that are wrong together, or whose files are."""
    try:
        if options.pull not in _PULL:
            raise ValueError(f'invalid pull option: \'{options.pull}\': must be one of "always", "missing" or "never"')
        body = container_body(options, client.host)
    except OSError as error:
        raise _with_help(described(error), _FAILED, command) from None
    except ValueError as error:
        raise _with_help(str(error), _FAILED, command) from None
    body["HostConfig"]["ConsoleSize"] = list(terminal_size())
    return body


def _with_help(message: str, code: int, command: str) -> CommandFailed:
    return CommandFailed(f"lamina: {message}\n\nRun 'lamina {command} --help' for more information", code)


@contextlib.contextmanager
def _told_as_run() -> Iterator[None]:
    """Turn what fails into what ``run`` says and the code that its words mean."""
    try:
        yield
    except LaminaError as error:
        raise _with_help(told(error), start_exit_code(error.message), "run") from None
    except _CannotWrite as error:
        raise _with_help(str(error), start_exit_code(str(error)), "run") from None


class _CannotWrite(CommandFailed):
    """The file for the container's ID cannot be made."""


def _create(client: Client, options: Options, body: dict[str, Any]) -> str:
    with _id_file(options.cidfile) as written:
        if options.pull == "always":
            _pull(client, options)
        answer = _created(client, options, body)
        for warning in answer.get("Warnings") or []:
            stderr(f"WARNING: {warning}")
        container_id = str(answer["Id"])
        written.append(container_id)
        return container_id


def _created(client: Client, options: Options, body: dict[str, Any]) -> Any:
    """Ask for the container; if its image is missing, and may be, once more after a pull."""
    query = {"name": options.name, "platform": options.platform}
    try:
        return client.request("POST", "/containers/create", query, body=body).json()
    except NotFound as error:
        if options.pull != "missing" or "No such image" not in error.message:
            raise
    stderr(f"Unable to find image '{_with_tag(options.image)}' locally")
    _pull(client, options)
    return client.request("POST", "/containers/create", query, body=body).json()


def _pull(client: Client, options: Options) -> None:
    from lamina.cli.transfers import pull_image, with_default_tag

    name = with_default_tag(options.image, quiet=True)
    pull_image(client, name, platform=options.platform, quiet=options.quiet, to=sys.stderr)


def _with_tag(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


@contextlib.contextmanager
def _id_file(path: str | None) -> Iterator[list[str]]:
    """A file that takes the ID which is put into the list; it is made first, and goes again if there is none."""
    written: list[str] = []
    if not path:
        yield written
        return
    failure = "failed to create the container ID file"
    if os.path.exists(path):
        raise _CannotWrite(f"container ID file found, make sure the other container isn't running or delete {path}", 1)
    try:
        file = open(path, "x", encoding="ascii")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _CannotWrite(f"{failure}: {described(error)}") from None
    try:
        with file:
            yield written
            file.writelines(written)
    finally:
        if not written:
            os.unlink(path)


COMMANDS = {"run": run, "create": create}
