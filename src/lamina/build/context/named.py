"""``--build-context NAME=…``: what a NAME in FROM and --from means, before any stage or image of that name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from lamina.build.context.archives import open_archive
from lamina.build.context.directory import ContextDigests, DirectoryContext, scan_directory
from lamina.build.context.source import FileSource
from lamina.build.errors import ContextNotHere
from lamina.build.remote.fetching import Fetcher
from lamina.build.remote.sources import GitRepository, InvalidRemote, LocalPath, parse_source
from lamina.build.request import LocalContext
from lamina.layer.scan import Limits

_IMAGES = ("image://", "docker-image://")


class NamedContexts:
    """The named contexts of one build; each is looked at once, when somebody asks for it."""

    def __init__(
        self,
        given: Mapping[str, LocalContext | str],
        fetcher: Fetcher,
        digests: ContextDigests,
        directory: Path,
        limits: Limits,
    ) -> None:
        self._given = given
        self._fetcher = fetcher
        self._digests = digests
        self._directory = directory
        self._limits = limits
        self._opened: dict[str, asyncio.Task[FileSource]] = {}

    def has(self, name: str) -> bool:
        """Whether a context has this name; upper and lower case are one, as in stages' names."""
        return name.lower() in self._given

    def image(self, name: str) -> str | None:
        """The reference of the image that a context is; None if it is something else."""
        given = self._given[name.lower()]
        prefix = next((p for p in _IMAGES if isinstance(given, str) and given.startswith(p)), None)
        return given.removeprefix(prefix) if isinstance(given, str) and prefix else None

    async def files(self, name: str) -> FileSource:
        """The files of a context that is no image. Raises BuildFailed, InvalidRemote, and what fetching raises."""
        name = name.lower()
        if name not in self._opened:
            self._opened[name] = asyncio.create_task(self._open(name))
        # shielded: a stage that is cancelled must not cancel what another waits for
        return await asyncio.shield(self._opened[name])

    async def close(self) -> None:
        """End what is under way, and keep for the next build what the files hash to."""
        for task in self._opened.values():
            task.cancel()
        results = await asyncio.gather(*self._opened.values(), return_exceptions=True)
        for source in results:
            if isinstance(source, DirectoryContext):
                await asyncio.to_thread(source.save_digests)

    async def _open(self, name: str) -> FileSource:
        given = self._given[name]
        place = f"context {name}"
        if isinstance(given, LocalContext):
            digests = self._digests.path_for(given.directory)
            source: FileSource = await asyncio.to_thread(scan_directory, given.directory, digests)
        else:
            source = await self._fetched(given)
        source.place = place
        return source

    async def _fetched(self, text: str) -> FileSource:
        remote = parse_source(text, context=True)
        if isinstance(remote, LocalPath):
            raise InvalidRemote(text, "it is neither a directory nor a URL, a repository or image://REFERENCE")
        if isinstance(remote, GitRepository):
            return await self._fetcher.repository(remote)
        file = await self._fetcher.file(remote)
        return await open_archive(file, file.name, file.node, self._directory, self._limits) or file


def check_identity(local: LocalContext) -> None:
    """Raises ContextNotHere if the client means another directory than the daemon sees."""
    try:
        status = os.stat(local.directory)
    except OSError:
        raise ContextNotHere(local.directory) from None
    if (status.st_dev, status.st_ino) != local.identity:
        raise ContextNotHere(local.directory)
