"""Layers on their way to a place: what is there already is not sent, the rest is compressed on its way."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, cast

from lamina.layer.compression import compress, compress_file
from lamina.layer.ingest import hash_file
from lamina.layer.pipeline import Stage
from lamina.linux.shared_numbers import SharedNumbers, read_numbers
from lamina.oci.descriptor import OCI_LAYER, Compression, Descriptor, layer_compression
from lamina.oci.digest import DiffID, Digest
from lamina.registry.blob_files import GrowingFile
from lamina.registry.places import Place, RegistryPlace

_AT_ONCE = 5
"""How many layers are sent side by side, as with docker."""
_STEP, _DONE, _NUMBERS = 0, 1, 2


class Step(IntEnum):
    """What becomes of a layer that is to go."""

    WAITING = 0
    PREPARING = 1
    PUSHING = 2
    PUSHED = 3
    EXISTS = 4
    MOUNTED = 5


@dataclass(frozen=True)
class OutgoingLayer:
    """A layer's tar, and a blob of it that the place may have, or that lies at *known_path*.

    *sources* are further repositories of the same registry, by path, that are said to have the known blob.
    """

    diff_id: DiffID
    tar: Path
    known: Descriptor | None = None
    known_path: Path | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """How layers are compressed that are so for the first time; with *forced* those, too, that came otherwise."""

    compression: Compression = "gzip"
    level: int | None = None
    forced: bool = False


@dataclass(frozen=True)
class SentLayer:
    """What points at a layer at its place, how it got there, and from which repository if it was mounted."""

    blob: Descriptor
    step: Step
    source: str = ""


def progress_of(path: Path) -> list[tuple[Step, int]]:
    """What becomes of each layer of ``push_layers`` at the moment, and how many bytes of it went. Bytes are those of the tar where the
    layer is compressed on its way."""
    numbers = read_numbers(path)
    return [(Step(numbers[i + _STEP]), numbers[i + _DONE]) for i in range(0, len(numbers), _NUMBERS)]


def push_layers(
    place: RegistryPlace, layers: Sequence[OutgoingLayer], scratch: Path, form: Form, numbers: Path
) -> list[SentLayer]:
    """See that a repository has layers, several side by side. Blocking. Raises the registry's errors.

    Files below *scratch* are the caller's to remove; *numbers* is where ``progress_of`` looks.
    """
    progress = SharedNumbers(numbers, max(1, len(layers)) * _NUMBERS)
    sent: dict[int, SentLayer] = {}
    failures: queue.Queue[BaseException | None] = queue.Queue()
    waiting = sorted(range(len(layers)), key=lambda index: layers[index].tar.stat().st_size)
    lock = threading.Lock()

    def work() -> None:
        try:
            while True:
                with lock:
                    if not waiting:
                        break
                    index = waiting.pop()  # the largest first
                sent[index] = _Sending(place, layers[index], scratch, form, progress, index).run()
        except BaseException as error:
            failures.put(error)
        else:
            failures.put(None)

    # daemons, so that a failure ends the worker without waiting for what others still send
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(layers)))]
    for thread in threads:
        thread.start()
    for _ in threads:
        failure = failures.get()
        if failure is not None:
            raise failure
    return [sent[index] for index in range(len(layers))]


@dataclass
class _Sending:
    """One layer."""

    place: RegistryPlace
    layer: OutgoingLayer
    scratch: Path
    form: Form
    progress: SharedNumbers
    index: int

    def run(self) -> SentLayer:
        known = self.layer.known
        self._tell(Step.PREPARING)
        if known is None or (self.form.forced and layer_compression(known.media_type) != self.form.compression):
            return self._send_anew(None)
        repository = self.place.repository
        if repository.has_blob(known.digest):
            return self._told(SentLayer(_plain(known), Step.EXISTS))
        for source in self.layer.sources:
            upload = repository.mount_blob(known.digest, source)
            if upload is None:
                return self._told(SentLayer(_plain(known), Step.MOUNTED, source))
            upload.give_up()
        if self.layer.known_path is None:
            return self._send_anew(known)
        self._tell(Step.PUSHING)
        repository.put_file(known.digest, self.layer.known_path, sent=self._sent)
        return self._told(SentLayer(_plain(known), Step.PUSHED))

    def _send_anew(self, known: Descriptor | None) -> SentLayer:
        """Compress the layer, and send it while that is done; in the form of the *known* blob if there is one."""
        form = layer_compression(known.media_type) if known is not None else self.form.compression
        self._tell(Step.PUSHING)
        if form == "none":
            self.place.repository.put_file(self.layer.diff_id, self.layer.tar, sent=self._sent)
            size = self.layer.tar.stat().st_size
            return self._told(SentLayer(Descriptor(OCI_LAYER, self.layer.diff_id, size), Step.PUSHED))
        path = self.scratch / f"{self.index}.{form}"
        growing = GrowingFile(path)
        path.unlink()  # it is needed for as long as this process has it open
        writer = threading.Thread(target=self._compress, args=(growing, form), daemon=True)
        writer.start()
        digest = self.place.repository.put_blob(growing, str(self.place))
        writer.join()
        growing.close()
        return self._told(SentLayer(Descriptor(f"{OCI_LAYER}+{form}", digest, growing.size), Step.PUSHED))

    def _compress(self, growing: GrowingFile, form: Compression) -> None:
        assert form != "none", "a plain layer goes as it lies"
        state = hashlib.sha256()
        try:
            with Stage(state.update) as hashing:
                file = cast(BinaryIO, _Both(growing.write, hashing.put))
                for done in compress(self.layer.tar, file, form, self.form.level):
                    self._sent(done)
            growing.end(Digest(f"sha256:{state.hexdigest()}"))
        except BaseException as error:
            growing.end(None, error)

    def _tell(self, step: Step) -> None:
        self.progress[self.index * _NUMBERS + _STEP] = step

    def _sent(self, count: int) -> None:
        self.progress[self.index * _NUMBERS + _DONE] = count

    def _told(self, sent: SentLayer) -> SentLayer:
        self._tell(sent.step)
        return sent


class _Both:
    """A file whose bytes go two ways."""

    def __init__(self, *takers: Callable[[bytes], object]) -> None:
        self._takers = takers

    def write(self, data: bytes) -> int:
        kept = bytes(data)
        for take in self._takers:
            take(kept)
        return len(kept)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Whoever made it closes what lies behind."""


def _plain(blob: Descriptor) -> Descriptor:
    """A descriptor without what others noted in it."""
    return Descriptor(blob.media_type, blob.digest, blob.size)


def put_layer(
    place: Place, layer: OutgoingLayer, scratch: Path, form: Compression = "gzip", level: int | None = None
) -> Descriptor:
    """See that a place has a layer, compressed in *scratch* on its way; returns what points at it there. Blocking."""
    if layer.known is not None and (layer.known_path is not None or place.has_blob(layer.known.digest)):
        if layer.known_path is not None:
            place.put_file(layer.known.digest, layer.known_path)
        return _plain(layer.known)
    if form == "none":
        place.put_file(layer.diff_id, layer.tar)
        return Descriptor(OCI_LAYER, layer.diff_id, layer.tar.stat().st_size)
    blob = scratch / f"{layer.diff_id.hex}.{form}"
    try:
        compress_file(layer.tar, blob, form, level)
        digest = hash_file(blob)
        place.put_file(digest, blob)
        return Descriptor(f"{OCI_LAYER}+{form}", digest, blob.stat().st_size)
    finally:
        blob.unlink(missing_ok=True)
