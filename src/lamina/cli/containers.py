"""Commands about containers that exist."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from lamina.api.frames import Decoder
from lamina.cli.archives import check_output, write_archive
from lamina.cli.each import each
from lamina.cli.grammar import CommandFailed, Options, Parser, whole
from lamina.cli.joining import Joining, join
from lamina.cli.streams import show
from lamina.client.client import Client, quoted
from lamina.errors import NotFound, NotModified

_MANY = "[OPTIONS] CONTAINER [CONTAINER...]"


def start(client: Client, argv: list[str]) -> int:
    """``lamina start``."""
    parser = Parser("start", _MANY)
    parser.flag("-a", "--attach", help="Attach STDOUT/STDERR and forward signals")
    parser.value("--detach-keys", help="Override the key sequence for detaching a container")
    parser.flag("-i", "--interactive", help="Attach container's STDIN")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    if not options.attach and not options.interactive:
        failed: list[str] = []
        code = each(options.containers, lambda name: _start(client, name), failed=failed)
        if failed:
            print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
        return code
    if len(options.containers) > 1:
        raise CommandFailed("you cannot start and attach multiple containers at once")
    record = _record(client, options.containers[0])
    joining = _joining(record, stdin=options.interactive, keys=options.detach_keys, passes_signals=True)
    if record["HostConfig"].get("AutoRemove"):
        joining = joining._replace(condition="removed")

    def begin() -> None:
        with contextlib.suppress(NotModified):
            _start(client, record["Id"])

    return join(client, joining, begin) or 0


def _start(client: Client, name: str) -> None:
    client.request("POST", f"/containers/{quoted(name)}/start").read()


def _record(client: Client, name: str) -> dict[str, Any]:
    record: dict[str, Any] = client.request("GET", f"/containers/{quoted(name)}/json").json()
    return record


def attach(client: Client, argv: list[str]) -> int:
    """``lamina attach``."""
    parser = Parser("attach", "[OPTIONS] CONTAINER")
    parser.value("--detach-keys", help="Override the key sequence for detaching a container")
    parser.flag("--no-stdin", help="Do not attach STDIN")
    parser.flag("--sig-proxy", default=True, help="Proxy all received signals to the process (default true)")
    parser.add_argument("container")
    options = parser.parse(argv)
    record = _record(client, options.container)
    _check_attachable(record["State"])
    joining = _joining(record, stdin=not options.no_stdin, keys=options.detach_keys, passes_signals=options.sig_proxy)
    code = join(client, joining._replace(condition="not-running"))
    if code is None:
        raise CommandFailed("read escape sequence")
    return code


def _joining(record: dict[str, Any], *, stdin: bool, keys: str | None, passes_signals: bool) -> Joining:
    return Joining(
        record["Id"],
        streams=("stdin", "stdout", "stderr") if stdin and record["Config"]["OpenStdin"] else ("stdout", "stderr"),
        terminal=record["Config"]["Tty"],
        detach_keys=keys,
        passes_signals=passes_signals,
        condition="next-exit",
    )


def _check_attachable(state: dict[str, Any]) -> None:
    """Raise CommandFailed for a container whose streams would be waited for for ever."""
    if not state["Running"]:
        raise CommandFailed("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CommandFailed("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CommandFailed("You cannot attach to a restarting container, wait until it is running")


def stop(client: Client, argv: list[str]) -> int:
    """``lamina stop``."""
    options = _timed("stop", argv)
    query = {"t": options.timeout, "signal": options.signal}
    return each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/stop", query).read())


def restart(client: Client, argv: list[str]) -> int:
    """``lamina restart``."""
    options = _timed("restart", argv)
    query = {"t": options.timeout, "signal": options.signal}
    return each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/restart", query).read())


def _timed(command: str, argv: list[str]) -> Options:
    parser = Parser(command, _MANY)
    parser.value("-s", "--signal", help="Signal to send to the container")
    timeout = "Seconds to wait before killing the container"
    parser.value("-t", "--timeout", "--time", convert=whole, metavar="int", help=timeout)
    parser.add_argument("containers", nargs="+")
    return parser.parse(argv)


def kill(client: Client, argv: list[str]) -> int:
    """``lamina kill``."""
    parser = Parser("kill", _MANY)
    parser.value("-s", "--signal", help="Signal to send to the container")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    query = {"signal": options.signal}
    return each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/kill", query).read())


def _for_each(command: str) -> Callable[[Client, list[str]], int]:
    """A command that asks for one thing of each container, and has no options."""

    def run(client: Client, argv: list[str]) -> int:
        parser = Parser(command, "CONTAINER [CONTAINER...]")
        parser.add_argument("containers", nargs="+")
        options = parser.parse(argv)
        return each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/{command}").read())

    return run


def rename(client: Client, argv: list[str]) -> int:
    """``lamina rename``."""
    parser = Parser("rename", "CONTAINER NEW_NAME")
    parser.add_argument("container")
    parser.add_argument("name")
    options = parser.parse(argv)
    client.request("POST", f"/containers/{quoted(options.container)}/rename", {"name": options.name}).read()
    return 0


def wait(client: Client, argv: list[str]) -> int:
    """``lamina wait``."""
    parser = Parser("wait", "CONTAINER [CONTAINER...]")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)

    def one(name: str) -> str:
        return str(client.request("POST", f"/containers/{quoted(name)}/wait").json()["StatusCode"])

    return each(options.containers, one, show=lambda name, result: result)


def rm(client: Client, argv: list[str]) -> int:
    """``lamina rm``."""
    parser = Parser("rm", _MANY)
    parser.flag("-f", "--force", help="Force the removal of a running container (uses SIGKILL)")
    parser.flag("-l", "--link", help="Remove the specified link")
    parser.flag("-v", "--volumes", help="Remove anonymous volumes associated with the container")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    query = {"force": options.force, "v": options.volumes, "link": options.link}
    return each(
        options.containers,
        lambda name: client.request("DELETE", f"/containers/{quoted(name)}", query).read(),
        is_failure=lambda error: not (options.force and isinstance(error, NotFound)),
    )


def logs(client: Client, argv: list[str]) -> int:
    """``lamina logs``."""
    parser = Parser("logs", "[OPTIONS] CONTAINER")
    parser.flag("--clear", help="Remove what was logged so far")
    parser.flag("--details", help="Show extra details provided to logs")
    parser.flag("-f", "--follow", help="Follow log output")
    parser.value("--since", help='Show logs since a moment ("2013-01-02T13:23:37Z") or for a duration ("42m")')
    parser.value("-n", "--tail", default="all", help="Number of lines to show from the end of the logs")
    parser.flag("-t", "--timestamps", help="Show timestamps")
    parser.value("--until", help="Show logs before a moment, or a duration ago")
    parser.add_argument("container")
    options = parser.parse(argv)
    record = _record(client, options.container)
    if options.clear:
        client.request("DELETE", f"/lamina/containers/{record['Id']}/logs").read()
        return 0
    query = {
        "stdout": True,
        "stderr": True,
        "follow": options.follow,
        "timestamps": options.timestamps,
        "details": options.details,
        "since": options.since,
        "until": options.until,
        "tail": options.tail,
    }
    decoder = None if record["Config"]["Tty"] else Decoder()
    for chunk in client.request("GET", f"/containers/{record['Id']}/logs", query):
        show(chunk, decoder)
    return 0


def export(client: Client, argv: list[str]) -> int:
    """``lamina export``."""
    parser = Parser("export", "[OPTIONS] CONTAINER")
    parser.value("-o", "--output", help="Write to a file, instead of STDOUT")
    parser.add_argument("container")
    options = parser.parse(argv)
    check_output(options.output, "failed to export container")
    return write_archive(client.request("GET", f"/containers/{quoted(options.container)}/export"), options.output)


COMMANDS = {
    "start": start,
    "attach": attach,
    "stop": stop,
    "restart": restart,
    "kill": kill,
    "pause": _for_each("pause"),
    "unpause": _for_each("unpause"),
    "rename": rename,
    "wait": wait,
    "rm": rm,
    "logs": logs,
    "export": export,
}
