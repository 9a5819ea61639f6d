"""The processes of a container as the host's ps shows them (``docker top``)."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from lamina.errors import InvalidArgument, LaminaError
from lamina.linux import processes

_RENAMED = re.compile(r"\s+(\w+)=\s*(PID\b)")


class ProcessesNotShown(LaminaError):
    """ps failed, or what it says is no list of processes."""


@dataclass(frozen=True)
class ProcessTable:
    """ps's columns, and a row a process."""

    titles: list[str]
    rows: list[list[str]]


async def process_table(pids: Collection[int], arguments: str) -> ProcessTable:
    """What ``ps`` says of some processes. Raises InvalidArgument for columns that would hide whose they are, or ProcessesNotShown."""
    for match in _RENAMED.finditer(f" {arguments}"):
        if match[1].lower() != "pid":
            raise InvalidArgument(f'specifying "{match[1]}={match[2]}" is not allowed')
    words = arguments.split()
    try:
        done = await processes.run(["ps", *words, f"-q{','.join(map(str, sorted(pids)))}"])
        if done.returncode != 0:
            # some options cannot be used together with a choice of processes
            done = await processes.run(["ps", *words])
    except FileNotFoundError:
        raise ProcessesNotShown("ps is not installed on this host (procps)") from None
    if done.returncode != 0:
        raise ProcessesNotShown(f"error running ps: {done.stderr.decode(errors='replace').strip()}")
    return _parse(done.stdout.decode(errors="replace"), set(pids))


def _parse(text: str, pids: set[int]) -> ProcessTable:
    first, *lines = text.splitlines() or [""]
    titles = first.split()
    if "PID" not in titles:
        raise ProcessesNotShown("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows: list[list[str]] = []
    is_shown = False
    for line in lines:
        fields = line.split()
        if len(fields) <= column:
            continue
        if fields[column] != "-":  # a thread's row, which goes with the one before it
            is_shown = fields[column].isdigit() and int(fields[column]) in pids
        if is_shown:
            last = len(titles) - 1
            rows.append([*fields[:last], " ".join(fields[last:])])
    return ProcessTable(titles, rows)
