"""Pulls and pushes shown while they go on: a bar for each layer on a terminal, else docker's lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from lamina.cli.grammar import CommandFailed
from lamina.cli.output import progress_lines
from lamina.client.client import Client
from lamina.client.credentials import auth_headers

Fields = dict[str, Any]


def pull_image(client: Client, name: str, *, platform: str | None = None, quiet: bool = False, to: TextIO) -> None:
    """Have the daemon pull an image, or all of a repository's if *name* has neither tag nor digest; shown on *to*.

    Raises CommandFailed, InvalidReference, and what the daemon tells.
    """
    from lamina.oci.reference import Reference

    reference = Reference.parse(name)
    query = {
        "fromImage": reference.familiar_repository,
        "tag": str(reference.digest or reference.tag or ""),
        "platform": platform,
    }
    headers = auth_headers(reference.domain)
    show_transfer(client.request("POST", "/images/create", query, headers=headers).lines(), to, quiet=quiet)


def show_transfer(lines: Iterable[bytes], to: TextIO, *, quiet: bool = False) -> None:
    """Show what a stream tells. Raises CommandFailed for an error in it."""
    if quiet:
        progress_lines(lines, lambda fields: None)
    elif to.isatty():
        with _Bars(to) as bars:
            progress_lines(lines, bars.show)
    else:
        progress_lines(lines, _printer(to))


def _printer(to: TextIO) -> Callable[[Fields], None]:
    def show(fields: Fields) -> None:
        if "status" in fields and not (fields.get("progressDetail") or {}).get("total"):
            print(": ".join(str(fields[key]) for key in ("id", "status") if key in fields), file=to, flush=True)

    return show


class _Bars:
    """A bar a layer, with its speed and the time that is left; what is told of no layer stands above."""

    def __init__(self, to: TextIO) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[status]}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=to),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, fields: Fields) -> None:
        """Take one line of the stream."""
        status, name = fields.get("status"), fields.get("id")
        if status is None:
            return
        if name is None or "progressDetail" not in fields:
            text = f"{name}: {status}" if name else str(status)
            self._progress.console.print(text, markup=False, highlight=False)
            return
        detail = fields["progressDetail"] or {}
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(str(name), total=None, status=status)
        changes: dict[str, Any] = {"status": status}
        if detail.get("total"):
            changes |= {"completed": detail["current"], "total": detail["total"]}
        elif status in ("Pull complete", "Pushed", "Already exists", "Layer already exists") or "Mounted" in status:
            total = self._progress.tasks[self._tasks[name]].total or 1
            changes |= {"completed": total, "total": total}
        self._progress.update(self._tasks[name], **changes)


def with_default_tag(name: str, to: TextIO = sys.stdout, *, quiet: bool = False) -> str:
    """A name with docker's default tag if it has neither tag nor digest, which is told. Raises CommandFailed."""
    from lamina.oci.reference import InvalidReference, Reference

    try:
        reference = Reference.parse(name)
    except InvalidReference as error:
        raise CommandFailed(str(error)) from None
    if reference.tag is None and reference.digest is None and not quiet:
        print("Using default tag: latest", file=to, flush=True)
    return reference.with_default_tag().familiar
