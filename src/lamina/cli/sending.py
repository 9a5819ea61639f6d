"""``image send`` and ``image receive``: images go from one host to another over ssh, without the layers that are there.

The two talk over ``receive``'s standard input and output: a line with all layers, a line with those that are lacking, then the archive.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import IO, Any

from lamina.api.sizes import human_size
from lamina.cli.archives import with_progress
from lamina.cli.grammar import CommandFailed, Parser
from lamina.cli.output import progress_lines, stderr
from lamina.client.client import Client, quoted

_READ_BYTES = 1 << 20


def send(client: Client, argv: list[str]) -> int:
    """``lamina image send``."""
    parser = Parser("image send", "[OPTIONS] [USER@]HOST IMAGE [IMAGE...]", flags_first=True)
    parser.value("--remote", default="lamina", metavar="command", help="How lamina is called on the other host")
    parser.value("--ssh", default="ssh", metavar="command", help="The command that reaches the other host")
    parser.add_argument("host")
    parser.add_argument("images", nargs="+")
    options = parser.parse(argv)
    if options.host.startswith("-"):
        raise CommandFailed(f"{options.host}: it is no host")
    layers = {
        layer["digest"]: layer
        for name in options.images
        for layer in client.request("GET", f"/lamina/images/{quoted(name)}/layers").json()
    }
    command = [*shlex.split(options.ssh), options.host, f"{options.remote} image receive"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as remote:
        assert remote.stdin is not None
        assert remote.stdout is not None
        try:
            _tell(remote.stdin, {"layers": list(layers.values())})
            lacking = _heard(remote.stdout)["lacking"]
            without = [digest for digest in layers if digest not in lacking]
            size = sum(layers[digest]["size"] for digest in lacking)
            stderr(f"sending {len(lacking)} of {len(layers)} layers, {human_size(size)}")
            response = client.request("GET", "/images/get", {"names": options.images, "without": without})
            for chunk in with_progress(iter(response), "sending", size):
                remote.stdin.write(chunk)
            remote.stdin.close()
            for line in remote.stdout:
                sys.stdout.write(line.decode(errors="replace"))
        except (BrokenPipeError, ValueError, KeyError):
            remote.kill()
            raise CommandFailed(
                f"{options.host}: the other side does not answer as lamina image receive does"
            ) from None
        return remote.wait()


def receive(client: Client, argv: list[str]) -> int:
    """``lamina image receive``."""
    Parser("image receive", "").parse(argv)
    source = sys.stdin.buffer
    layers = _heard(source)["layers"]
    lacking = client.request("POST", "/lamina/images/lacking", body={"layers": layers}).json()
    _tell(sys.stdout.buffer, {"lacking": lacking})
    chunks = iter(lambda: source.read(_READ_BYTES), b"")
    response = client.request("POST", "/lamina/images/load", chunks=chunks)
    progress_lines(response.lines(), lambda fields: print(fields.get("stream", ""), end="", flush=True))
    return 0


def _tell(stream: IO[bytes], value: dict[str, Any]) -> None:
    stream.write(json.dumps(value).encode() + b"\n")
    stream.flush()


def _heard(stream: IO[bytes]) -> dict[str, Any]:
    """What the other side says. Raises ValueError, also for nothing."""
    value = json.loads(stream.readline())
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return value


COMMANDS = {"image send": send, "image receive": receive}
