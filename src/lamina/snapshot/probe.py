"""Which lower driver this host's kernel and this store's file system allow."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from lamina.content import ContentStore
from lamina.errors import Unsupported
from lamina.layer.erofs import write_image
from lamina.layer.merge import merge
from lamina.layer.tree import LayerTree
from lamina.snapshot.directory import DirectoryLowers
from lamina.snapshot.driver import LowerDriver
from lamina.snapshot.erofs import ErofsLowers, mount_index
from lamina.snapshot.trees import LayerTrees

_log = logging.getLogger(__name__)


class UnknownDriver(Unsupported):
    """A driver was asked for that does not exist or does not work here."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"storage driver {name}: {reason}")
        self.name = name
        self.reason = reason


def erofs_failure(directory: Path) -> str | None:
    """Try to mount a file-backed EROFS whose files lie in *directory*; None if it works, else why not."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".tmp-probe-") as scratch:
        index, tar = Path(scratch, "index"), Path(scratch, "tar")
        tar.write_bytes(bytes(1024))
        write_image(merge([LayerTree()]), index, tars=[tar], uuid=bytes(16))
        try:
            fd = mount_index(index, [tar])
        except OSError as error:
            return str(error)
        try:
            os.listdir(f"/proc/self/fd/{fd}")
        except OSError as error:
            return str(error)
        finally:
            os.close(fd)
    return None


def choose_driver(root: Path, content: ContentStore, trees: LayerTrees, wanted: str | None = None) -> LowerDriver:
    """The driver named *wanted*, or the best that works for a store at *root*.

    Raises UnknownDriver if *wanted* does not exist or does not work here.
    """
    root.mkdir(parents=True, exist_ok=True)
    if wanted not in (None, ErofsLowers.name, DirectoryLowers.name):
        raise UnknownDriver(wanted or "", "expected erofs or directory")
    if wanted != DirectoryLowers.name:
        failure = erofs_failure(root)
        if failure is None:
            erofs = ErofsLowers(root / "erofs", content, trees)
            erofs.open()
            return erofs
        if wanted:
            raise UnknownDriver(wanted, failure)
        _log.warning("EROFS cannot be mounted from files here (%s): layers will be extracted", failure)
    directory = DirectoryLowers(root / "directory", content, trees)
    directory.open()
    return directory
