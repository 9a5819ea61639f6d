"""The parsed tree of every stored layer: what its tar says, in a form that loads in milliseconds.

Derived data: a tree that is missing or of an older format is made anew from the layer's tar, so nothing is lost with it.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from lamina.content import BlobNotFound, ContentStore
from lamina.layer.scan import scan_tar_file
from lamina.layer.tree import is_current, save
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import DiffID


class LayerTrees:
    """Trees below a directory, one file a layer."""

    def __init__(self, root: Path, content: ContentStore) -> None:
        self._root = root
        self._content = content

    def open(self) -> None:
        """Make the directory and remove unfinished trees."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob(".tmp-*"):
            leftover.unlink()

    def temporary_path(self) -> Path:
        """A fresh name for a tree being written; see ``adopt``."""
        return self._root / f".tmp-{secrets.token_hex(12)}"

    def adopt(self, temporary: Path, diff_id: DiffID) -> None:
        """Take a tree that was saved while its layer came in."""
        temporary.replace(self._path(diff_id))

    async def paths(self, diff_ids: list[DiffID]) -> list[Path]:
        """Files with the trees of these layers, made anew where they are missing or of an older format.

        Raises BlobNotFound if a layer's tar is not stored.
        """
        for diff_id in diff_ids:
            if not is_current(self._path(diff_id)):
                await self.rebuild(diff_id)
        return [self._path(d) for d in diff_ids]

    async def rebuild(self, diff_id: DiffID) -> None:
        """Scan a layer's tar again. Raises BlobNotFound, or InvalidLayer if the tar is no layer."""
        if not self._content.exists(diff_id):
            raise BlobNotFound(diff_id)
        temporary = self.temporary_path()
        try:
            await run_in_worker(_scan_and_save, (), self._content.path(diff_id), temporary)
            self.adopt(temporary, diff_id)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, diff_id: DiffID) -> None:
        """Forget a layer's tree."""
        self._path(diff_id).unlink(missing_ok=True)

    def _path(self, diff_id: DiffID) -> Path:
        return self._root / diff_id.hex


def _scan_and_save(tar_path: Path, tree_path: Path) -> None:
    save(scan_tar_file(tar_path), tree_path)
