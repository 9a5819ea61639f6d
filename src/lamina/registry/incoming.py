"""Layers on their way from a place: what each is found to be counts, not what it is called."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import LaminaError
from lamina.layer.compression import Read
from lamina.layer.errors import InvalidLayer
from lamina.layer.ingest import IngestedLayer, Limits, ingest
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffID
from lamina.registry.errors import WrongBytes
from lamina.registry.partial import discard
from lamina.registry.places import Place, RegistryPlace

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class IncomingLayer:
    """A layer, and where its files are to lie: what of the *blob* lies there already is not fetched again."""

    descriptor: Descriptor
    diff_id: DiffID
    tar: Path
    tree: Path
    blob: Path


def fetch_layers(place: RegistryPlace, layers: Sequence[IncomingLayer], limits: Limits) -> list[IngestedLayer]:
    """Write layers' tars, trees and blobs, one after the other.

    Blocking. Of a layer that is not what it should be nothing is left; of one that could not be fetched to its end the blob's bytes so
    far. Raises NotInRegistry, WrongBytes, InvalidLayer and the registry's errors.
    """
    return [_fetch(place, layer, limits) for layer in layers]


def _fetch(place: RegistryPlace, wanted: IncomingLayer, limits: Limits) -> IngestedLayer:
    """One layer; what came from a server that sent wrong bytes, or was left by an earlier download, is given another chance."""
    while True:
        arriving = place.download(wanted.descriptor, wanted.blob)
        try:
            with arriving:
                layer = ingest(
                    arriving.read,
                    tar_path=wanted.tar,
                    tree_path=wanted.tree,
                    blob_algorithm=wanted.descriptor.digest.algorithm,
                    limits=limits,
                )
                _verify(place, layer, wanted.descriptor, wanted.diff_id, (wanted.tar, wanted.tree))
                arriving.finish()
        except OSError as error:
            if error.errno in _FULL:
                discard(wanted.blob)  # what came so far is not worth a full disk
            raise
        except LaminaError as error:
            if not _is_about_bytes(error):
                raise
            discard(wanted.blob)
            if not (arriving.resumed or (arriving.source is not None and place.distrust(arriving.source))):
                raise
        else:
            return layer


def _is_about_bytes(error: Exception) -> bool:
    """Whether an error says that a blob is not what it should be, rather than that it could not be had."""
    return isinstance(error, WrongBytes | InvalidLayer)


def fetch_layer(
    place: Place, descriptor: Descriptor, diff_id: DiffID, tar: Path, tree: Path, limits: Limits
) -> IngestedLayer:
    """Write a layer's tar and tree; none is left if it is not what it should be.

    Blocking. Raises NotInRegistry, WrongBytes, InvalidLayer.
    """
    with place.open_blob(descriptor.digest) as blob:
        read = _bounded(blob.read, descriptor.size, WrongBytes(str(place), descriptor.digest))
        layer = ingest(read, tar_path=tar, tree_path=tree, blob_algorithm=descriptor.digest.algorithm, limits=limits)
    _verify(place, layer, descriptor, diff_id, (tar, tree))
    return layer


def _verify(place: Place, layer: IngestedLayer, descriptor: Descriptor, diff_id: DiffID, paths: Sequence[Path]) -> None:
    """Raises WrongBytes for a layer with another digest than it should have, and removes its files."""
    for actual, expected in ((layer.blob_digest, descriptor.digest), (layer.diff_id, diff_id)):
        if actual != expected:
            for path in paths:
                path.unlink(missing_ok=True)
            raise WrongBytes(str(place), expected)


def _bounded(read: Read, size: int, error: WrongBytes) -> Read:
    """A blob's bytes, of which there may be *size*: what comes behind a compressed stream has no other bound."""
    left = size

    def read_on(wanted: int) -> bytes:
        nonlocal left
        data = read(wanted)
        left -= len(data)
        if left < 0:
            raise error
        return data

    return read_on
