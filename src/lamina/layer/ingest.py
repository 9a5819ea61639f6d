"""Ingest: a layer's bytes, in whatever form they come, become a tar on disk, its tree and its digests, in one pass.

Reading and decompressing, hashing, writing and scanning are stages of a pipeline, each a thread that hands blocks to the next.
Their work is done in C with the interpreter's lock released, so that two cores are kept busy; queues are short, so that memory stays
bounded however large the layer is.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamina.layer.compression import READ_BYTES, Format, Peeked, Read, decompressor
from lamina.layer.pipeline import Stage
from lamina.layer.scan import Limits, Scanner
from lamina.layer.tree import save
from lamina.linux.files import start_writeback
from lamina.oci.digest import Digest

__all__ = ["IngestedLayer", "Limits", "from_fd", "hash_file", "ingest"]

_WORTH_A_THREAD = 1 << 20
_WRITEBACK_BYTES = 32 << 20


@dataclass(frozen=True)
class IngestedLayer:
    """A layer that came in. For a plain tar the blob is the tar: same digest, same size, and no blob file is written."""

    diff_id: Digest
    tar_size: int
    entry_count: int
    blob_digest: Digest
    blob_size: int
    compression: Format


def ingest(
    read: Read,
    *,
    tar_path: Path,
    tree_path: Path,
    blob_path: Path | None = None,
    blob_algorithm: str = "sha256",
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> IngestedLayer:
    """Read a layer to its end; write its tar, its tree and, with *blob_path*, the compressed bytes as they came.

    *read* gives as many bytes as it is asked for, fewer only at the end; *blob_algorithm* is that of the blob's digest.
    The tar and the blob are synced to disk. Blocking. Raises
    InvalidLayer, OSError or what *read* does; no file is left behind then.
    """
    try:
        return _ingest(read, tar_path, tree_path, blob_path, blob_algorithm, limits)
    except BaseException:
        for path in (tar_path, tree_path, blob_path):
            if path is not None:
                with suppress(FileNotFoundError):
                    path.unlink()
        raise


def from_fd(fd: int) -> Read:
    """What ``ingest`` reads by, of a pipe, socket or file: a pipe gives little at a time, and each hand-over to a stage has its price."""

    def read(size: int) -> bytes:
        pieces = []
        while size and (data := os.read(fd, size)):
            pieces.append(data)
            size -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return read


def hash_file(path: Path) -> Digest:
    """The sha256 digest of a file."""
    with open(path, "rb", buffering=0) as file:
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())


def _ingest(
    source_read: Read, tar_path: Path, tree_path: Path, blob_path: Path | None, blob_algorithm: str, limits: Limits
) -> IngestedLayer:
    source = Peeked(source_read)
    compressed = source.format != "none" or blob_algorithm != "sha256"
    blob = Sink(blob_path if compressed else None, blob_algorithm)
    tar = Sink(tar_path)
    scanner = Scanner(limits)
    with Stage(blob.take) as blob_stage, Stage(tar.hash) as hash_stage, Stage(tar.write) as write_stage:

        def read(size: int) -> bytes:
            data = source.read(size)
            if compressed:
                blob_stage.put(data)
            return data

        plain = decompressor(source.format, read)
        while data := plain(READ_BYTES):
            hash_stage.put(data)
            write_stage.put(data)
            scanner.feed(data)
        while compressed and read(READ_BYTES):
            pass  # what follows the compressed stream is part of the blob
    tree = scanner.finish()
    save(tree, tree_path)
    tar.finish()
    blob.finish()
    diff_id = tar.digest
    blob_digest, blob_size = (blob.digest, blob.size) if compressed else (diff_id, tar.size)
    return IngestedLayer(diff_id, tar.size, scanner.entries, blob_digest, blob_size, source.format)


class Sink:
    """A file being written and the hash of what goes into it; without a path only the hash."""

    def __init__(self, path: Path | None, algorithm: str = "sha256") -> None:
        self._hash = hashlib.new(algorithm)
        self.size = 0
        self._handed_over = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd: int | None = os.open(path, flags, 0o600) if path is not None else None

    def hash(self, data: bytes) -> None:
        """Count bytes into the digest."""
        self._hash.update(data)

    def write(self, data: bytes) -> None:
        """Append bytes to the file."""
        self.size += len(data)
        if self._fd is None:
            return
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        if self.size - self._handed_over >= _WRITEBACK_BYTES:
            start_writeback(self._fd, self._handed_over, self.size - self._handed_over)
            self._handed_over = self.size

    def take(self, data: bytes) -> None:
        """Both."""
        self.hash(data)
        self.write(data)

    def finish(self) -> None:
        """Sync and close the file."""
        if self._fd is not None:
            os.fsync(self._fd)
        self.discard()

    def discard(self) -> None:
        """Close the file as it is; closing it again is no error."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def digest(self) -> Digest:
        """Of all bytes so far."""
        return Digest(f"{self._hash.name}:{self._hash.hexdigest()}")


class PipelinedSink:
    """As ``Sink``, hashing and writing side by side in threads of their own once there is enough to be worth it."""

    def __init__(self, path: Path) -> None:
        self._sink = Sink(path)
        self._stages: list[Stage] = []

    def take(self, data: bytes) -> None:
        """Count bytes into the digest and append them to the file; raises what befell earlier ones."""
        if not self._stages and len(data) >= _WORTH_A_THREAD:
            self._stages = [Stage(self._sink.hash), Stage(self._sink.write)]
            for stage in self._stages:
                stage.start()
        if not self._stages:
            self._sink.take(data)
        for stage in self._stages:
            stage.put(data)

    def finish(self) -> None:
        """Sync and close the file."""
        for stage in self._stages:
            stage.join()
        self._sink.finish()

    def discard(self) -> None:
        """Close the file as it is; closing it again is no error."""
        for stage in self._stages:
            stage.abandon()
        self._sink.discard()

    @property
    def digest(self) -> Digest:
        """Of all bytes, once finished."""
        return self._sink.digest

    @property
    def size(self) -> int:
        """Of all bytes, once finished."""
        return self._sink.size
