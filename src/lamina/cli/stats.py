"""``stats``: what containers use, once or as a table that is drawn again and again.

Each container has a thread that reads its samples, as the daemon takes a second for each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from typing import Any

from lamina.cli.grammar import CommandFailed, Options, Parser
from lamina.cli.output import Listing, Row, print_rows
from lamina.cli.stats_rows import UNKNOWN, Sample, named, used
from lamina.client.client import Client, ConnectionCut, Response, filters_json, quoted, told
from lamina.errors import LaminaError

_INTERRUPTED = 130
_REDRAW_S = 0.5
_STALE_S = 2.0
_TOP_LEFT, _REST_OF_LINE, _REST_OF_SCREEN = "\033[H", "\033[K", "\033[J"
_COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_LISTING = Listing(
    {
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    kind="*container.statsContext",
)


def stats(client: Client, argv: list[str]) -> int:
    """``lamina stats``."""
    options = _options(argv)
    board = _Board(client, streams=not options.no_stream)
    if options.containers:
        for name in options.containers:
            board.add(name)
        board.wait_for_first()
        failures = board.failures()
        if failures:
            raise CommandFailed("\n".join(failures))
    else:
        _follow_events(client, board, everything=options.all)
        for found in client.request("GET", "/containers/json", {"all": options.all}).json():
            board.add(found["Id"][:12])
        board.wait_for_first()
    if options.no_stream:
        _print(board, options)
        return 0
    # whatever this thread is in the middle of, and however often it is told
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    while not board.is_over.wait(_REDRAW_S):
        _draw(board, options)
    if board.failure is not None:
        raise board.failure
    return 0


def _options(argv: list[str]) -> Options:
    parser = Parser("stats", "[OPTIONS] [CONTAINER...]")
    parser.flag("-a", "--all", help="Show all containers (default shows just running)")
    parser.value("--format", help="table, table TEMPLATE, json, or a Go template")
    parser.flag("--no-stream", help="Disable streaming stats and only pull the first result")
    parser.flag("--no-trunc", help="Do not truncate output")
    parser.add_argument("containers", nargs="*")
    return parser.parse(argv)


def _print(board: _Board, options: Options) -> None:
    print_rows(board.rows(full=options.no_trunc), _LISTING, _COLUMNS, form=options.format)


def _draw(board: _Board, options: Options) -> None:
    """Write the table over the one before, whatever is left of that at the ends of lines and below; at once, so that nothing flickers."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        _print(board, options)
    lines = [f"{line} {_REST_OF_LINE}\n" for line in text.getvalue().splitlines()]
    sys.stdout.write("".join([_TOP_LEFT, *lines, _REST_OF_SCREEN]))
    sys.stdout.flush()


class _Watched:
    """One container: its last sample and when that came, or why there is none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: LaminaError | None = None
        self.has_first = threading.Event()
        self._sample: Sample = {}
        self._sampled_s: float | None = None
        self._response: Response | None = None
        self._is_over = False

    def read(self, client: Client, *, streams: bool) -> None:
        """Take samples until there are no more of them; one only if not *streams*."""
        try:
            query = {"stream": "1" if streams else "0"}
            self._response = client.request("GET", f"/containers/{quoted(self.name)}/stats", query)
            for line in self._response.lines():
                if self._is_over:
                    break
                self._sample, self._sampled_s = json.loads(line), time.monotonic()
                self.has_first.set()
            if streams:
                self._sampled_s = None
        except LaminaError as error:
            self.failure, self._sampled_s = error, None
        finally:
            if self._response is not None:
                self._response.close()
            self.has_first.set()

    def end(self) -> None:
        """Let the thread end with the next sample."""
        self._is_over = True

    def row(self, *, full: bool, goes_stale: bool) -> Row:
        """What is shown of it; of one that has not been heard of lately only which it is."""
        sampled_s = self._sampled_s
        is_stale = sampled_s is None or (goes_stale and time.monotonic() - sampled_s > _STALE_S)
        return {**named(self.name, self._sample, full=full), **(UNKNOWN if is_stale else used(self._sample))}


class _Board:
    """The containers that are watched, in the order in which they came. Threads of this command add to it and take from it."""

    def __init__(self, client: Client, *, streams: bool) -> None:
        self._client = client
        self._streams = streams
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self.is_over = threading.Event()
        self.failure: LaminaError | None = None

    def add(self, name: str) -> None:
        """Watch a container, if it is not watched yet."""
        with self._lock:
            if name in self._watched:
                return
            watched = self._watched[name] = _Watched(name)
        threading.Thread(
            target=watched.read, args=(self._client,), kwargs={"streams": self._streams}, daemon=True
        ).start()

    def remove(self, name: str) -> None:
        """Watch a container no longer."""
        with self._lock:
            watched = self._watched.pop(name, None)
        if watched is not None:
            watched.end()

    def wait_for_first(self) -> None:
        """Return when of each there is a sample, or none to be had."""
        for watched in self._all():
            watched.has_first.wait()

    def failures(self) -> list[str]:
        """Why there are no samples, of those that there are none of."""
        return [told(watched.failure) for watched in self._all() if watched.failure is not None]

    def rows(self, *, full: bool) -> list[Row]:
        """What is shown."""
        return [watched.row(full=full, goes_stale=self._streams) for watched in self._all()]

    def _all(self) -> list[_Watched]:
        with self._lock:
            return list(self._watched.values())


def _follow_events(client: Client, board: _Board, *, everything: bool) -> None:
    """Put on the board what starts from now on, and take from it what ends; with *everything*, put on it what is created."""
    response = client.request("GET", "/events", {"filters": filters_json(["type=container"])})

    def follow() -> None:
        try:
            for line in response.lines():
                event: dict[str, Any] = json.loads(line)
                name = event["Actor"]["ID"][:12]
                if event["Action"] == "start" or (everything and event["Action"] == "create"):
                    board.add(name)
                elif event["Action"] == "die" and not everything:
                    board.remove(name)
        except ConnectionCut:
            pass  # the daemon ended
        except LaminaError as error:
            board.failure = error
        board.is_over.set()

    threading.Thread(target=follow, daemon=True).start()


COMMANDS = {"stats": stats}
