"""Which images there are and what they are called.

A row ties an image ID (the digest of its config) to the manifest that lists its layers; a tag row ties a full name to an image ID.
Rows are few and asked for all the time, so they are kept in memory; every change is committed before it shows there.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from lamina.content import ContentStore
from lamina.image.errors import AmbiguousImageID, ImageNotFound
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, ImageID
from lamina.oci.manifest import Manifest
from lamina.oci.reference import InvalidReference, Reference
from lamina.state import Database, Schema

SCHEMA = Schema(
    "image",
    (
        """CREATE TABLE image (
            image_id TEXT PRIMARY KEY,
            manifest_digest TEXT NOT NULL,
            parent TEXT,
            added_ns INTEGER NOT NULL
        ) STRICT""",
        """CREATE TABLE tag (
            name TEXT PRIMARY KEY,
            image_id TEXT NOT NULL REFERENCES image (image_id),
            tagged_ns INTEGER NOT NULL
        ) STRICT""",
    ),
)

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
_HEX_DIGITS = set("0123456789abcdef")


@dataclass(frozen=True)
class Image:
    """A stored image. ``parent`` is the image that the build step before made, where that is known."""

    config: ImageConfig
    manifest: Manifest
    parent: ImageID | None
    added_ns: int

    @cached_property
    def image_id(self) -> ImageID:
        """Digest of the config."""
        return self.config.image_id

    @cached_property
    def blobs(self) -> frozenset[Digest]:
        """Every blob that the image needs: manifest, config, layers in both forms."""
        layers = {layer.digest for layer in self.manifest.layers}
        return frozenset({self.manifest.descriptor.digest, self.image_id, *layers, *self.config.diff_ids})


class ImageStore:
    """The images of one state root, with their names."""

    def __init__(self, database: Database, content: ContentStore) -> None:
        self._database = database
        self._content = content
        self._images: dict[ImageID, Image] = {}
        self._tags: dict[Reference, ImageID] = {}
        self._tagged_ns: dict[ImageID, int] = {}

    async def open(self) -> None:
        """Read all rows. An image whose config or manifest is lost raises DataLoss's kinds."""
        images, tags = await self._database.read(
            lambda c: (c.execute("SELECT * FROM image").fetchall(), c.execute("SELECT * FROM tag").fetchall())
        )
        for row in images:
            config = ImageConfig.parse(self._content.read(Digest(row["image_id"])))
            manifest = Manifest.parse(self._content.read(Digest(row["manifest_digest"])))
            parent = ImageID(Digest(row["parent"])) if row["parent"] else None
            self._images[config.image_id] = Image(config, manifest, parent, row["added_ns"])
        for row in tags:
            image_id = ImageID(Digest(row["image_id"]))
            self._tags[Reference.parse(row["name"])] = image_id
            self._tagged_ns[image_id] = max(row["tagged_ns"], self._tagged_ns.get(image_id, 0))

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def __contains__(self, image_id: ImageID) -> bool:
        return image_id in self._images

    def get(self, image_id: ImageID) -> Image:
        """The image with exactly this ID. Raises ImageNotFound."""
        try:
            return self._images[image_id]
        except KeyError:
            raise ImageNotFound(image_id) from None

    def find(self, name: str) -> Image:
        """The image that a user means by *name*: a reference, an ID with or without ``sha256:``, or the beginning of one.

        A name wins over an ID. Raises ImageNotFound, AmbiguousImageID or InvalidReference.
        """
        return self._images[self.find_named(name)[0]]

    def find_named(self, name: str) -> tuple[ImageID, Reference | None]:
        """As ``find``, and the reference if *name* was one rather than an ID."""
        reference = None
        try:
            reference = Reference.parse_tagged(name)
        except InvalidReference:
            if not _may_be_id(name):
                raise
        if reference is not None:
            image_id = self._by_reference(reference)
            if image_id is not None:
                return image_id, reference
        image_id = self._by_id_prefix(name)
        if image_id is None:
            raise ImageNotFound(reference.familiar if reference and not name.startswith("sha256:") else name)
        return image_id, None

    def names(self, image_id: ImageID) -> list[Reference]:
        """The tags of an image, sorted."""
        return sorted(r for r, i in self._tags.items() if i == image_id)

    def tags(self) -> dict[Reference, ImageID]:
        """All tags."""
        return dict(self._tags)

    def tagged_ns(self, image_id: ImageID) -> int:
        """When the image last got a tag (Unix time in nanoseconds), 0 if never."""
        return self._tagged_ns.get(image_id, 0)

    def children(self, image_id: ImageID) -> list[Image]:
        """The images that build steps made from this one."""
        return [i for i in self._images.values() if i.parent == image_id]

    def blobs_in_use(self) -> set[Digest]:
        """Every blob that some image needs."""
        return {blob for image in self._images.values() for blob in image.blobs}

    async def add(
        self,
        config: ImageConfig,
        manifest: Manifest,
        *,
        parent: ImageID | None = None,
        tags: Sequence[Reference] = (),
    ) -> Image:
        """Record an image whose blobs are all stored (config and manifest are put here), with its tags, at once.

        The caller holds a lease on the layers. Adding an image that exists keeps its row; its tags are moved.
        """
        self._content.put(config.data)
        self._content.put(manifest.data)
        now = time.time_ns()
        image = self._images.get(config.image_id) or Image(config, manifest, parent, now)

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO image VALUES (?, ?, ?, ?)",
                (str(image.image_id), str(image.manifest.descriptor.digest), _text(image.parent), image.added_ns),
            )
            _move_tags(connection, tags, image.image_id, now)

        await self._database.write(insert)
        self._images[image.image_id] = image
        self._show_tags(tags, image.image_id, now)
        return image

    async def tag(self, image_id: ImageID, tags: Sequence[Reference]) -> None:
        """Give an image further names; a name that another image had moves to this one."""
        now = time.time_ns()
        await self._database.write(lambda c: _move_tags(c, tags, image_id, now))
        self._show_tags(tags, image_id, now)

    async def untag(self, tags: Iterable[Reference]) -> None:
        """Remove names; the images stay."""
        gone = list(tags)
        await self._database.write(lambda c: c.executemany("DELETE FROM tag WHERE name = ?", [(str(t),) for t in gone]))
        for tag in gone:
            self._tags.pop(tag, None)
        self._export_index()

    async def forget(self, image_id: ImageID) -> None:
        """Remove an image's row and names. Its blobs become garbage unless another image needs them."""

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM tag WHERE image_id = ?", (str(image_id),))
            connection.execute("DELETE FROM image WHERE image_id = ?", (str(image_id),))

        await self._database.write(delete)
        self._images.pop(image_id, None)
        self._tagged_ns.pop(image_id, None)
        for tag in self.names(image_id):
            del self._tags[tag]
        self._export_index()

    def _by_reference(self, reference: Reference) -> ImageID | None:
        if reference.digest is None:
            return self._tags.get(reference)
        for tag, image_id in self._tags.items():
            digest = self._images[image_id].manifest.descriptor.digest
            if tag.repository == reference.repository and digest == reference.digest:
                return image_id
        return None

    def _by_id_prefix(self, name: str) -> ImageID | None:
        prefix = name.removeprefix("sha256:")
        if not _may_be_id(name):
            return None
        found = [i for i in self._images if i.hex.startswith(prefix)]
        if len(found) > 1:
            raise AmbiguousImageID(name)
        return found[0] if found else None

    def _show_tags(self, tags: Sequence[Reference], image_id: ImageID, now: int) -> None:
        for tag in tags:
            self._tags[tag] = image_id
        if tags:
            self._tagged_ns[image_id] = now
            self._export_index()

    def _export_index(self) -> None:
        """Rewrite index.json, by which skopeo and others find images in the store."""
        manifests = []
        for reference, image_id in sorted(self._tags.items()):
            pointer = self._images[image_id].manifest.descriptor
            annotations = {_REF_NAME: reference.familiar, _IMAGE_NAME: str(reference)}
            manifests.append(
                Descriptor(
                    media_type=pointer.media_type, digest=pointer.digest, size=pointer.size, annotations=annotations
                )
            )
        self._content.write_index(manifests)


def _move_tags(connection: sqlite3.Connection, tags: Sequence[Reference], image_id: ImageID, now: int) -> None:
    connection.executemany("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", [(str(t), str(image_id), now) for t in tags])


def _may_be_id(name: str) -> bool:
    prefix = name.removeprefix("sha256:")
    return 0 < len(prefix) <= 64 and set(prefix) <= _HEX_DIGITS


def _text(digest: Digest | None) -> str | None:
    return str(digest) if digest else None
