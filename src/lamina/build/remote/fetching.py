"""Files from elsewhere: what ADD and a build's context name by a URL, as sources that COPY's machinery reads."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.build.context.directory import scan_directory
from lamina.build.context.source import FileSource, StoredFile
from lamina.build.remote.credentials import git_authorization, http_authorization
from lamina.build.remote.download import Downloaded, DownloadStore
from lamina.build.remote.git import check_out, resolve
from lamina.build.remote.git_command import GitAccess
from lamina.build.remote.sources import GitRepository, HttpUrl
from lamina.dockerfile import IgnoreRules
from lamina.layer.tree import FileTree, Node
from lamina.oci.digest import Digest


class DownloadedFile(FileSource):
    """One file under the name that it has in a directory."""

    def __init__(self, downloaded: Downloaded) -> None:
        tree = FileTree()
        node = Node(stat.S_IFREG | 0o600, mtime_ns=downloaded.mtime_ns)
        node.size = downloaded.size_bytes
        assert tree.root.children is not None
        tree.root.children[os.fsencode(downloaded.name)] = node
        super().__init__(tree, StoredFile(downloaded.path), place=downloaded.name)
        self.name = os.fsencode(downloaded.name)
        self.node = node
        self._digest = bytes.fromhex(downloaded.digest.hex)

    def known_digest(self, path: bytes, node: Node) -> bytes | None:
        """See FileSource."""
        return self._digest


@dataclass(frozen=True)
class Fetcher:
    """Fetches for one build: into *directory*, with the proxies and the secrets that the build was given."""

    downloads: DownloadStore
    directory: Path
    environment: Mapping[str, str] | None
    secret_values: Mapping[str, bytes]
    agents: Mapping[str, Path]

    async def file(self, source: HttpUrl, checksum: Digest | None = None) -> DownloadedFile:
        """The file behind a URL. Raises as ``DownloadStore.fetch`` does."""
        authorization = http_authorization(source.url, self._secrets())
        downloaded = await self.downloads.fetch(
            source.url, checksum=checksum, environment=self.environment, authorization=authorization
        )
        return DownloadedFile(downloaded)

    async def repository(self, source: GitRepository) -> FileSource:
        """The files of a repository's ref. Raises as ``git.resolve`` and ``git.check_out`` do."""
        directory = await self.checked_out(source)
        cache = self.directory / f"{directory.name}.digests"
        return await asyncio.to_thread(scan_directory, directory, cache, rules=IgnoreRules(()))

    async def checked_out(self, source: GitRepository) -> Path:
        """A directory with the files of a repository's ref."""
        access = GitAccess(
            authorization=git_authorization(source.remote, self._secrets()),
            ssh_agent=self.agents.get("default"),
            environment=self.environment,
        )
        directory = self.directory / f"git-{secrets.token_hex(6)}"
        await check_out(source, directory, access, await resolve(source, access))
        return directory

    def _secrets(self) -> dict[str, str]:
        return {name: value.decode("utf-8", "replace") for name, value in self.secret_values.items()}
