"""Archives that go into files and come out of them, with progress where somebody looks."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

from lamina.cli.grammar import CommandFailed
from lamina.client.client import Response


def check_output(path: str | None, failure: str) -> None:
    """Refuse to write an archive to a terminal, or where no file can be. Raises CommandFailed, before anything was asked for."""
    if not path:
        if sys.stdout.isatty():
            raise CommandFailed("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        return
    directory = os.path.dirname(path)
    if directory and not os.path.isdir(directory):
        raise CommandFailed(f"{failure}: invalid output path: stat {directory}: no such file or directory")
    if os.path.isdir(path):
        raise CommandFailed(f"{failure}: cannot write to a directory")
    if os.path.exists(path) and not os.path.isfile(path):
        raise CommandFailed(f"{failure}: cannot write to a character device file")


def write_archive(response: Response, output: str | None) -> int:
    """Write a body to a file, which appears when it is whole, or to standard output."""
    if not output:
        for chunk in response:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return 0
    temporary = f"{output}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            for chunk in with_progress(iter(response), "writing", None):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, output)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return 0


def with_progress(chunks: Iterator[bytes], what: str, total: int | None) -> Iterator[bytes]:
    """The same chunks, with a bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))


def size_of(source: Any) -> int | None:
    """A file's size; None of what is no file."""
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
