"""Commands about containers that exist."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from lamina.api.frames import Decoder
from lamina.cli import streams
from lamina.cli.grammar import Parser
from lamina.cli.output import human_size
from lamina.client.client import Client, filters_json, quoted
from lamina.errors import LaminaError


def start(client: Client, argv: list[str]) -> int:
    """``lamina start``."""
    parser = Parser("start", "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers")
    parser.flag("-a", "--attach")
    parser.flag("-i", "--interactive")
    parser.value("--detach-keys")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    if options.attach or options.interactive:
        return _join(client, options.containers[0], stdin=options.interactive, keys=options.detach_keys, begin=True)
    return _each(options.containers, lambda name: client.request("POST", f"/containers/{quoted(name)}/start").read())


def attach(client: Client, argv: list[str]) -> int:
    """``lamina attach``."""
    parser = Parser("attach", "[OPTIONS] CONTAINER", "Attach to a running container")
    parser.flag("--no-stdin")
    parser.value("--detach-keys")
    parser.value("--sig-proxy", default="true")
    parser.add_argument("container")
    options = parser.parse(argv)
    return _join(client, options.container, stdin=not options.no_stdin, keys=options.detach_keys, begin=False)


def _join(client: Client, name: str, *, stdin: bool, keys: str | None, begin: bool) -> int:
    record = client.request("GET", f"/containers/{quoted(name)}/json").json()
    container_id, terminal = record["Id"], record["Config"]["Tty"]
    stdin = stdin and record["Config"]["OpenStdin"]
    query = {"stream": True, "stdout": True, "stderr": True, "stdin": stdin, "detachKeys": keys}
    connection, rest = client.hijack(f"/containers/{container_id}/attach", query)
    waiting = client.request("POST", f"/containers/{container_id}/wait", {"condition": "next-exit"})
    with contextlib.ExitStack() as stack:
        if begin:
            client.request("POST", f"/containers/{container_id}/start").read()
        if terminal:
            stack.enter_context(streams.following_size(client, container_id))()
            if stdin and sys.stdin.isatty():
                stack.enter_context(streams.raw_terminal())
        else:
            stack.enter_context(streams.proxied_signals(client, container_id))
        streams.carry(connection, rest, terminal=terminal, stdin=stdin)
        return int(waiting.json()["StatusCode"])


def stop(client: Client, argv: list[str]) -> int:
    """``lamina stop``."""
    options = _timed("stop", "Stop one or more running containers", argv)
    query = {"t": options.time, "signal": options.signal}
    return _each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/stop", query).read())


def restart(client: Client, argv: list[str]) -> int:
    """``lamina restart``."""
    options = _timed("restart", "Restart one or more containers", argv)
    query = {"t": options.time, "signal": options.signal}
    return _each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/restart", query).read())


def _timed(command: str, description: str, argv: list[str]) -> Any:
    parser = Parser(command, "[OPTIONS] CONTAINER [CONTAINER...]", description)
    parser.value("-t", "--timeout", "--time")
    parser.value("-s", "--signal")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    options.time = options.timeout
    return options


def kill(client: Client, argv: list[str]) -> int:
    """``lamina kill``."""
    parser = Parser("kill", "[OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers")
    parser.value("-s", "--signal")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    query = {"signal": options.signal}
    return _each(options.containers, lambda n: client.request("POST", f"/containers/{quoted(n)}/kill", query).read())


def wait(client: Client, argv: list[str]) -> int:
    """``lamina wait``."""
    parser = Parser(
        "wait", "CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes"
    )
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)

    def one(name: str) -> str:
        return str(client.request("POST", f"/containers/{quoted(name)}/wait").json()["StatusCode"])

    return _each(options.containers, one, show=lambda name, result: result)


def rm(client: Client, argv: list[str]) -> int:
    """``lamina rm``."""
    parser = Parser("rm", "[OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers")
    parser.flag("-f", "--force")
    parser.flag("-v", "--volumes")
    parser.flag("-l", "--link")
    parser.add_argument("containers", nargs="+")
    options = parser.parse(argv)
    query = {"force": options.force, "v": options.volumes, "link": options.link}
    return _each(options.containers, lambda n: client.request("DELETE", f"/containers/{quoted(n)}", query).read())


def logs(client: Client, argv: list[str]) -> int:
    """``lamina logs``."""
    parser = Parser("logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container")
    parser.flag("-f", "--follow")
    parser.flag("-t", "--timestamps")
    parser.flag("--details")
    parser.value("--since")
    parser.value("--until")
    parser.value("-n", "--tail", default="all")
    parser.add_argument("container")
    options = parser.parse(argv)
    record = client.request("GET", f"/containers/{quoted(options.container)}/json").json()
    query = {
        "stdout": True,
        "stderr": True,
        "follow": options.follow,
        "timestamps": options.timestamps,
        "since": options.since,
        "until": options.until,
        "tail": options.tail,
    }
    decoder = None if record["Config"]["Tty"] else Decoder()
    for chunk in client.request("GET", f"/containers/{record['Id']}/logs", query):
        streams.show_frames(chunk, decoder)
    return 0


def container_prune(client: Client, argv: list[str]) -> int:
    """``lamina container prune``."""
    parser = Parser("container prune", "[OPTIONS]", "Remove all stopped containers")
    parser.flag("-f", "--force")
    parser.values("--filter")
    options = parser.parse(argv)
    if not options.force and not confirmed("WARNING! This will remove all stopped containers."):
        return 0
    result = client.request("POST", "/containers/prune", {"filters": filters_json(options.filter)}).json()
    if result["ContainersDeleted"]:
        print("Deleted Containers:", *result["ContainersDeleted"], "", sep="\n")
    print(f"Total reclaimed space: {human_size(result['SpaceReclaimed'])}")
    return 0


def confirmed(warning: str) -> bool:
    """Ask before something that cannot be undone."""
    return input(f"{warning}\nAre you sure you want to continue? [y/N] ").strip().lower() in ("y", "yes")


def export(client: Client, argv: list[str]) -> int:
    """``lamina export``."""
    parser = Parser("export", "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive")
    parser.value("-o", "--output")
    parser.add_argument("container")
    options = parser.parse(argv)
    from lamina.cli.images import write_archive

    return write_archive(client.request("GET", f"/containers/{quoted(options.container)}/export"), options.output)


def _each(
    names: list[str], act: Callable[[str], object], show: Callable[[str, Any], str] = lambda name, result: name
) -> int:
    """Do something to each container; a failure of one does not keep the others from it."""
    code = 0
    for name in names:
        try:
            print(show(name, act(name)), flush=True)
        except LaminaError as error:
            if type(error).__name__ == "NotModified":
                print(name, flush=True)
                continue
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            code = 1
    return code


COMMANDS = {
    "start": start,
    "attach": attach,
    "stop": stop,
    "restart": restart,
    "kill": kill,
    "wait": wait,
    "rm": rm,
    "logs": logs,
    "export": export,
    "container-prune": container_prune,
}
