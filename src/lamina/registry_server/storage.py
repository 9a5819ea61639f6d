"""Blobs and uploads as files.

::

    ROOT/blobs/sha256/ab/<hex>    a blob; nothing else ever has such a name
    ROOT/uploads/<id>             an upload on its way
    ROOT/trash/<algorithm>-<hex>  a blob that a collection takes away; see ``recover``
    ROOT/damaged/…                a blob whose bytes are no longer what they were

Everything here blocks. Which blobs exist is the catalog's to say: names change under its write lock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lamina.linux.files import sync_directory
from lamina.oci.digest import Digest

_READ_BYTES = 1 << 20


class Storage:
    """The files below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        self._trash = root / "trash"
        self._damaged = root / "damaged"

    def open(self) -> None:
        """Make the directories where they are missing."""
        for directory in (self._blobs, self._uploads, self._trash, self._damaged):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob lies, or would."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def open_blob(self, digest: Digest) -> BinaryIO:
        """A blob's file. Raises FileNotFoundError."""
        return open(self.blob_path(digest), "rb", buffering=0)

    def upload_path(self, upload_id: str) -> Path:
        """Where an upload's bytes lie."""
        return self._uploads / upload_id

    def adopt(self, upload_id: str, digest: Digest) -> None:
        """An upload, whose bytes have this digest and are synced, becomes the blob, too; its old name goes when that is committed.

        Under the write lock. Doing it again is no error: a transaction may be tried again.
        """
        target = self.blob_path(digest)
        for directory in (target.parent.parent, target.parent):
            if not directory.exists():
                directory.mkdir(mode=0o700, exist_ok=True)
                sync_directory(directory.parent)
        temporary = target.with_name(f".{upload_id}")
        temporary.unlink(missing_ok=True)
        os.link(self.upload_path(upload_id), temporary)
        temporary.rename(target)
        sync_directory(target.parent)

    def throw_away(self, digest: Digest) -> None:
        """A blob goes to the trash; it comes back unless its row's end is committed. Under the write lock."""
        with suppress(FileNotFoundError):
            self.blob_path(digest).rename(self._trash_path(digest))

    def empty_trash(self, digest: Digest) -> None:
        """The row is gone: so are the bytes."""
        self._trash_path(digest).unlink(missing_ok=True)

    def trash(self) -> Iterator[Digest]:
        """What a collection that was killed left in the trash."""
        for path in self._trash.iterdir():
            algorithm, _, text = path.name.partition("-")
            yield Digest(f"{algorithm}:{text}")

    def set_aside(self, digest: Digest, inode: int) -> None:
        """A blob is damaged: it is kept where nobody is served it, unless it is another file by now. Under the write lock."""
        with suppress(FileNotFoundError):
            if self.blob_path(digest).stat().st_ino == inode:
                self.blob_path(digest).rename(self._damaged / f"{digest.algorithm}-{digest.hex}")

    def take_back(self, digest: Digest) -> None:
        """A blob whose row is still there comes back from the trash. Under the write lock."""
        target = self.blob_path(digest)
        if target.exists():
            self.empty_trash(digest)
        else:
            self._trash_path(digest).rename(target)

    def upload_ids(self) -> Iterator[tuple[str, float]]:
        """The uploads that have files, and when each last grew (Unix time in seconds)."""
        for path in self._uploads.iterdir():
            with suppress(FileNotFoundError):
                yield path.name, path.stat().st_mtime

    def blobs(self) -> Iterator[tuple[Digest, Path]]:
        """Every blob's file."""
        for path in self._blobs.glob("*/*/*"):
            if not path.name.startswith("."):
                yield Digest(f"{path.parent.parent.name}:{path.name}"), path

    def _trash_path(self, digest: Digest) -> Path:
        return self._trash / f"{digest.algorithm}-{digest.hex}"


def hash_of(path: Path, algorithm: str) -> Digest:
    """The digest of a file's bytes. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return Digest(f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}")
