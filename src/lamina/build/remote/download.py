"""Downloads: files behind URLs, kept below a directory so that what did not change is not sent again.

A file is kept by its bytes' digest; beside it stands, by URL, what the server said of it: its tag and its time. Asked for again, the
server is asked with these whether anything changed (RFC 9110, 13.1), and its "no" costs no bytes; under a checksum that the kept file
has, nobody is asked. The bytes' digest is a download's identity for the build's cache.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from lamina.build.cache.kept import CacheItem
from lamina.build.remote.transfer import Transfer, Transferred, transfer
from lamina.linux.files import TEMPORARY_PREFIX, sync_directory, temporary_name, write_atomically
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import Digest, InvalidDigest


@dataclass(frozen=True)
class Downloaded:
    """A file that came from a URL. *name* is the one it has in a directory, *mtime_ns* the server's, 0 where it told none.

    The file, of mode 0600, is to be read only: others may be given the same.
    """

    path: Path
    name: str
    digest: Digest
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class DownloadLimits:
    """How much a download may send, and how long its server may be silent."""

    maximum_bytes: int = 64 << 30
    timeout_s: float = 60


class DownloadStore:
    """What was downloaded, below *root*: files by digest, entries by URL. An entry whose file is gone counts as none."""

    def __init__(self, root: Path, limits: DownloadLimits | None = None) -> None:
        self._files = root / "files"
        self._entries = root / "urls"
        self._limits = limits or DownloadLimits()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def open(self) -> None:
        """Make the directories and remove what unfinished downloads left."""
        for directory in (self._files, self._entries):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
                leftover.unlink()

    async def fetch(
        self,
        url: str,
        *,
        checksum: Digest | None = None,
        environment: Mapping[str, str] | None = None,
        authorization: str = "",
    ) -> Downloaded:
        """The file behind an http or https URL, from the server if it is new or has changed.

        *environment* names proxies (the daemon's own where None), *authorization* is a header's value. Cancelling ends the
        transfer; a failure leaves nothing behind. Raises InvalidUrl, DownloadFailed, DownloadRefused, DownloadTooLarge,
        ChecksumMismatch.
        """
        lock = self._locks.setdefault(url, asyncio.Lock())
        async with lock:
            entry = self._find(url)
            if entry is not None:
                os.utime(self._entry_path(url))  # before anything is waited for: it is in use from here on
            if entry is None or entry.digest != checksum:
                # under a checksum it does not help to hear that the wrong bytes are still the same
                asked_for = entry if checksum is None else None
                request = Transfer(
                    url=url,
                    etag=asked_for.etag if asked_for else "",
                    last_modified=asked_for.last_modified if asked_for else "",
                    checksum=checksum,
                    authorization=authorization,
                    proxies=_proxies(os.environ if environment is None else environment),
                    maximum_bytes=self._limits.maximum_bytes,
                    timeout_s=self._limits.timeout_s,
                )
                entry = await self._transfer(request) or entry
            assert entry is not None, "without an entry no condition is sent, so that there is always an answer"
            os.utime(self._entry_path(url))
        path = self._file_path(entry.digest)
        return Downloaded(path, entry.name, entry.digest, entry.size_bytes, entry.mtime_ns)

    async def items(self) -> list[CacheItem]:
        """See Keeper: an item a file, whatever URLs it came from."""
        return await asyncio.to_thread(self._items)

    async def remove(self, ids: Collection[str], unused_since_ns: int) -> int:
        """See Keeper. Nothing is waited for, so that no fetch comes between the look at a file and its end."""
        freed = 0
        used = self._uses()
        for name in ids:
            path = self._files / name
            entries = used.get(name, [])
            with suppress(FileNotFoundError):
                status = path.stat()
                if max([used_ns for _, _, used_ns in entries] or [status.st_ctime_ns]) < unused_since_ns:
                    for entry_path, _, _ in entries:
                        entry_path.unlink(missing_ok=True)
                    path.unlink()
                    freed += status.st_size
        return freed

    async def _transfer(self, request: Transfer) -> Transferred | None:
        """Have a file sent and keep it; None if it is the one that is known."""
        temporary = temporary_name(self._files / "download")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            transferred = await run_in_worker(transfer, (fd,), request, fd)
            if transferred is not None:
                await asyncio.to_thread(self._keep, request.url, transferred, temporary)
            return transferred
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)

    def _keep(self, url: str, entry: Transferred, temporary: Path) -> None:
        temporary.replace(self._file_path(entry.digest))
        sync_directory(self._files)
        write_atomically(self._entry_path(url), msgspec.json.encode(entry, enc_hook=str))

    def _find(self, url: str) -> Transferred | None:
        """What is known of a URL, if its file is there with all its bytes."""
        entry = _read(self._entry_path(url))
        with suppress(FileNotFoundError):
            if entry is not None and self._file_path(entry.digest).stat().st_size == entry.size_bytes:
                return entry
        return None

    def _file_path(self, digest: Digest) -> Path:
        return self._files / digest.hex

    def _entry_path(self, url: str) -> Path:
        return self._entries / Digest.of(url.encode("utf-8", "surrogateescape")).hex

    def _items(self) -> list[CacheItem]:
        used = self._uses()
        items = []
        for path in sorted(self._files.iterdir()):
            if path.name.startswith(TEMPORARY_PREFIX):
                continue
            # ctime and not mtime, which is the server's
            status = path.stat()
            entries = used.get(path.name, [])
            names = sorted({entry.name for _, entry, _ in entries})
            items.append(
                CacheItem(
                    id=path.name,
                    kind="regular",
                    description=f"download {' '.join(names)}".strip(),
                    size_bytes=status.st_size,
                    created_ns=status.st_ctime_ns,
                    used_ns=max([used_ns for _, _, used_ns in entries] or [status.st_ctime_ns]),
                )
            )
        return items

    def _uses(self) -> dict[str, list[tuple[Path, Transferred, int]]]:
        """The entries of each file, and when each was asked for last; an entry that makes no sense is removed."""
        result: dict[str, list[tuple[Path, Transferred, int]]] = {}
        for path in self._entries.iterdir():
            entry = _read(path)
            if entry is not None:
                result.setdefault(entry.digest.hex, []).append((path, entry, path.stat().st_mtime_ns))
            elif not path.name.startswith(TEMPORARY_PREFIX):
                path.unlink(missing_ok=True)
        return result


def _read(path: Path) -> Transferred | None:
    """An entry; None for none, and for one that makes no sense."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Transferred, dec_hook=lambda kind, text: kind(text))
    except (FileNotFoundError, msgspec.DecodeError, InvalidDigest):
        return None


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """What an environment says of proxies, and nothing else of it."""
    return {name: value for name, value in environment.items() if name.lower().endswith("_proxy")}
