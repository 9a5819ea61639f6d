"""The layer cache: what a step made of an image, named by the image, the instruction and what it read."""

from __future__ import annotations

import hashlib
import time

from lamina.image.store import ImageStore
from lamina.oci.digest import Digest, ImageID
from lamina.state import Database, Schema

SCHEMA = Schema(
    "build",
    (
        """CREATE TABLE step (
            key TEXT PRIMARY KEY,
            image_id TEXT NOT NULL,
            used_ns INTEGER NOT NULL
        ) STRICT""",
    ),
)


class BuildCache:
    """Steps that were carried out before. An entry whose image is gone counts as none."""

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._database = database
        self._images = images

    @staticmethod
    def key(parent: ImageID | None, *parts: str) -> str:
        """The name of a step: the image it starts from and all that its outcome depends on."""
        return hashlib.sha256("\0".join((str(parent), *parts)).encode("utf-8", "surrogateescape")).hexdigest()

    async def find(self, key: str) -> ImageID | None:
        """The image that the step made, if it is still there."""
        row = await self._database.read(
            lambda c: c.execute("SELECT image_id FROM step WHERE key = ?", (key,)).fetchone()
        )
        if row is None:
            return None
        image_id = ImageID(Digest(row["image_id"]))
        return image_id if image_id in self._images else None

    async def put(self, key: str, image_id: ImageID) -> None:
        """Remember what a step made."""
        values = (key, str(image_id), time.time_ns())
        await self._database.write(lambda c: c.execute("INSERT OR REPLACE INTO step VALUES (?, ?, ?)", values))
