"""Which images there are and what they are called.

A row ties an image ID (the digest of its config) to the manifest that lists its layers; a tag row ties a full name to an image ID.
Rows are few and asked for all the time, so they are kept in memory. What comes is committed before it shows there; what goes leaves
memory first, so that nobody can begin to use it any more.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lamina.content import ContentStore
from lamina.errors import LaminaError
from lamina.image.errors import AmbiguousImageID, ImageDamaged, ImageHeld, ImageNotFound
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffID, Digest, ImageID
from lamina.oci.manifest import Manifest
from lamina.oci.reference import InvalidReference, Reference
from lamina.state import Database, Schema
from lamina.state.database import WriteFailed

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
        """CREATE TABLE pulled (
            name TEXT PRIMARY KEY,
            image_id TEXT NOT NULL REFERENCES image (image_id)
        ) STRICT""",
    ),
)

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
_HEX_DIGITS = set("0123456789abcdef")
_log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class DamagedImage:
    """An image whose config or manifest is lost: it keeps its row, its names and its blobs, and can be verified, reloaded or removed."""

    image_id: ImageID
    manifest_digest: Digest
    config: ImageConfig | None
    manifest: Manifest | None
    parent: ImageID | None
    added_ns: int

    @property
    def blobs(self) -> frozenset[Digest]:
        """The blobs that are known to be the image's."""
        layers = {layer.digest for layer in self.manifest.layers} if self.manifest else set()
        diff_ids = self.config.diff_ids if self.config else ()
        return frozenset({self.image_id, self.manifest_digest, *layers, *diff_ids})


class Hold:
    """Images that must not be removed while their user is at work."""

    def __init__(self, images: ImageStore, counts: Counter[ImageID]) -> None:
        self._images = images
        self._counts = counts
        self._held: list[ImageID] = []

    def add(self, *image_ids: ImageID) -> None:
        """Hold further images. Raises ImageNotFound for one that is gone already."""
        for image_id in image_ids:
            self._images.get(image_id)
            self._held.append(image_id)
            self._counts[image_id] += 1

    def release(self) -> None:
        """Let go of all."""
        self._counts.subtract(self._held)
        for image_id in self._held:
            if self._counts[image_id] <= 0:
                del self._counts[image_id]
        self._held = []


class ImageStore:
    """The images of one state root, with their names."""

    def __init__(self, database: Database, content: ContentStore) -> None:
        self._database = database
        self._content = content
        self._images: dict[ImageID, Image] = {}
        self._damaged: dict[ImageID, DamagedImage] = {}
        self._tags: dict[Reference, ImageID] = {}
        self._digests: dict[Reference, ImageID] = {}
        self._tagged_ns: dict[ImageID, int] = {}
        self._holds: Counter[ImageID] = Counter()

    async def open(self) -> None:
        """Read all rows. An image whose config or manifest is lost is logged and kept apart, see ``damaged``."""
        images, tags, pulled = await self._database.read(
            lambda c: [c.execute(f"SELECT * FROM {table}").fetchall() for table in ("image", "tag", "pulled")]  # noqa: S608
        )
        for row in images:
            self._open_image(row)
        for row in tags:
            image_id = ImageID(Digest(row["image_id"]))
            self._tags[Reference.parse(row["name"])] = image_id
            self._tagged_ns[image_id] = max(row["tagged_ns"], self._tagged_ns.get(image_id, 0))
        for row in pulled:
            self._digests[Reference.parse(row["name"])] = ImageID(Digest(row["image_id"]))

    def _open_image(self, row: Any) -> None:
        image_id, manifest_digest = ImageID(Digest(row["image_id"])), Digest(row["manifest_digest"])
        parent = ImageID(Digest(row["parent"])) if row["parent"] else None
        config, manifest = None, None
        try:
            config = ImageConfig.parse(self._content.read(image_id))
        except LaminaError as error:
            _log.error("image %s: its config is lost: %s", image_id, error)
        try:
            manifest = Manifest.parse(self._content.read(manifest_digest))
        except LaminaError as error:
            _log.error("image %s: its manifest is lost: %s", image_id, error)
        if config is not None and manifest is not None:
            self._images[image_id] = Image(config, manifest, parent, row["added_ns"])
        else:
            self._damaged[image_id] = DamagedImage(image_id, manifest_digest, config, manifest, parent, row["added_ns"])

    @property
    def damaged(self) -> list[DamagedImage]:
        """The images of which something is lost; no other method but ``stored``, ``find_named`` and ``forget`` knows them."""
        return list(self._damaged.values())

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def __contains__(self, image_id: ImageID) -> bool:
        return image_id in self._images

    def get(self, image_id: ImageID) -> Image:
        """The image with exactly this ID. Raises ImageNotFound or ImageDamaged."""
        image = self.stored(image_id)
        if isinstance(image, DamagedImage):
            raise ImageDamaged(image_id)
        return image

    def stored(self, image_id: ImageID) -> Image | DamagedImage:
        """The image with exactly this ID, in whatever state. Raises ImageNotFound."""
        image = self._images.get(image_id) or self._damaged.get(image_id)
        if image is None:
            raise ImageNotFound(image_id)
        return image

    @contextmanager
    def hold(self, *image_ids: ImageID) -> Iterator[Hold]:
        """Keep images from being removed for the length of the block; more can be added to the hold on the way.

        Raises ImageNotFound for one that is gone already.
        """
        hold = Hold(self, self._holds)
        try:
            hold.add(*image_ids)
            yield hold
        finally:
            hold.release()

    def is_held(self, image_id: ImageID) -> bool:
        """Whether a build, or the creation of a container, is at work with an image."""
        return self._holds[image_id] > 0

    def find(self, name: str) -> Image:
        """The image that a user means by *name*: a reference, an ID with or without ``sha256:``, or the beginning of one.

        A name wins over an ID. Raises ImageNotFound, ImageDamaged, AmbiguousImageID or InvalidReference.
        """
        return self.get(self.find_named(name)[0])

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

    def digests(self, image_id: ImageID) -> list[Reference]:
        """By which digests the image came from registries, each with its repository; sorted."""
        return sorted(r for r, i in self._digests.items() if i == image_id)

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
        """Every blob that some image is known to need."""
        images: list[Image | DamagedImage] = [*self._images.values(), *self._damaged.values()]
        return {blob for image in images for blob in image.blobs}

    def compressed_layers(self) -> dict[DiffID, Descriptor]:
        """Of the layers that came compressed the blobs, by diff ID."""
        pairs = (
            (layer, d)
            for i in self._images.values()
            for layer, d in zip(i.manifest.layers, i.config.diff_ids, strict=True)
        )
        return {diff_id: layer for layer, diff_id in pairs if layer.digest != diff_id}

    async def add(
        self,
        config: ImageConfig,
        manifest: Manifest,
        *,
        parent: ImageID | None = None,
        tags: Sequence[Reference] = (),
        digests: Sequence[Reference] = (),
    ) -> Image:
        """Record an image whose blobs are all stored (config and manifest are put here), with its names, at once.

        *digests* are repositories with the digest that the image has there; that may be an index's.

        The caller holds a lease on the layers. Adding an image that exists keeps its row; its tags are moved. One that was damaged is
        whole again.
        """
        with self._content.lease((config.image_id, manifest.descriptor.digest)):
            self._content.put(config.data)
            self._content.put(manifest.data)
            now = time.time_ns()
            image = self._images.get(config.image_id) or Image(config, manifest, parent, now)
            with self._held_while_known(image.image_id):
                await self._database.write(lambda c: _insert(c, image, tags, digests, now))
                self._images[image.image_id] = image
                self._damaged.pop(image.image_id, None)
                self._digests.update(dict.fromkeys(digests, image.image_id))
                self._show_tags(tags, image.image_id, now)
        return image

    async def tag(self, image_id: ImageID, tags: Sequence[Reference]) -> None:
        """Give an image further names; a name that another image had moves to this one. Raises ImageNotFound."""
        now = time.time_ns()
        with self.hold(image_id):
            await self._database.write(lambda c: _move_tags(c, tags, image_id, now))
            self._show_tags(tags, image_id, now)

    async def known_as(self, image_id: ImageID, digests: Sequence[Reference]) -> None:
        """An image has these digests at registries now, each with its repository. Raises ImageNotFound."""
        with self.hold(image_id):
            rows = [(str(digest), str(image_id)) for digest in digests]
            await self._database.write(lambda c: c.executemany("INSERT OR REPLACE INTO pulled VALUES (?, ?)", rows))
            self._digests.update(dict.fromkeys(digests, image_id))

    async def untag(self, tags: Iterable[Reference]) -> None:
        """Remove names, tags or digests; the images stay.

        With an image's last tag in a repository go its digests there, as with docker.
        """
        names = list(tags)
        gone = [name for name in names if name.digest is None]
        digests = [name for name in names if name.digest is not None]
        for image_id in {self._tags[tag] for tag in gone if tag in self._tags}:
            left = {tag.repository for tag in self.names(image_id) if tag not in gone}
            digests += [d for d in self.digests(image_id) if d.repository not in left]

        def delete(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM tag WHERE name = ?", [(str(tag),) for tag in gone])
            connection.executemany("DELETE FROM pulled WHERE name = ?", [(str(digest),) for digest in digests])

        await self._database.write(delete, frees=True)
        for name in (*gone, *digests):
            self._tags.pop(name, None)
            self._digests.pop(name, None)
        self._export_index()

    async def forget(self, image_id: ImageID) -> None:
        """Remove an image's row and names. Its blobs become garbage unless another image needs them.

        It is gone for everybody at once, before anything is waited for. Raises ImageNotFound, or ImageHeld if somebody is at work
        with it.
        """
        image, names, digests = self.stored(image_id), self.names(image_id), self.digests(image_id)
        if self.is_held(image_id):
            raise ImageHeld(image_id)
        self._remove_from_memory(image_id, names, digests)

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM tag WHERE image_id = ?", (str(image_id),))
            connection.execute("DELETE FROM pulled WHERE image_id = ?", (str(image_id),))
            connection.execute("DELETE FROM image WHERE image_id = ?", (str(image_id),))

        try:
            await self._database.write(delete, frees=True)
        except (WriteFailed, sqlite3.Error):
            if isinstance(image, Image):
                self._images[image_id] = image
            else:
                self._damaged[image_id] = image
            self._tags.update(dict.fromkeys(names, image_id))
            self._digests.update(dict.fromkeys(digests, image_id))
            raise
        self._export_index()

    def _remove_from_memory(self, image_id: ImageID, names: Iterable[Reference], digests: Iterable[Reference]) -> None:
        self._images.pop(image_id, None)
        self._damaged.pop(image_id, None)
        self._tagged_ns.pop(image_id, None)
        for tag in names:
            del self._tags[tag]
        for digest in digests:
            del self._digests[digest]

    @contextmanager
    def _held_while_known(self, image_id: ImageID) -> Iterator[None]:
        """A hold on an image that may not be there yet."""
        self._holds[image_id] += 1
        try:
            yield
        finally:
            self._holds[image_id] -= 1
            if not self._holds[image_id]:
                del self._holds[image_id]

    def _by_reference(self, reference: Reference) -> ImageID | None:
        if reference.digest is None:
            return self._tags.get(reference)
        known = self._digests.get(reference._replace(tag=None))
        if known is not None:
            return known
        for tag, image_id in self._tags.items():
            image = self.stored(image_id)
            digest = image.manifest.descriptor.digest if isinstance(image, Image) else image.manifest_digest
            if tag.repository == reference.repository and digest == reference.digest:
                return image_id
        return None

    def _by_id_prefix(self, name: str) -> ImageID | None:
        prefix = name.removeprefix("sha256:")
        if not _may_be_id(name):
            return None
        found = [i for i in (*self._images, *self._damaged) if i.hex.startswith(prefix)]
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
        """Rewrite index.json, by which skopeo and others find images in the store.

        It is derived from the rows, which are what counts: that it cannot be written, as on a full disk, is no failure of a change.
        """
        manifests = []
        for reference, image_id in sorted(self._tags.items()):
            if image_id not in self._images:
                continue
            pointer = self._images[image_id].manifest.descriptor
            annotations = {_REF_NAME: reference.familiar, _IMAGE_NAME: str(reference)}
            manifests.append(
                Descriptor(
                    media_type=pointer.media_type, digest=pointer.digest, size=pointer.size, annotations=annotations
                )
            )
        try:
            self._content.write_index(manifests)
        except OSError as error:
            _log.warning("index.json is out of date until the next change of a name: %s", error)


def _insert(
    connection: sqlite3.Connection, image: Image, tags: Sequence[Reference], digests: Sequence[Reference], now: int
) -> None:
    row = (str(image.image_id), str(image.manifest.descriptor.digest), _text(image.parent), image.added_ns)
    connection.execute(
        "INSERT INTO image VALUES (?, ?, ?, ?) "
        "ON CONFLICT (image_id) DO UPDATE SET manifest_digest = excluded.manifest_digest",
        row,
    )
    _move_tags(connection, tags, image.image_id, now)
    rows = [(str(digest), str(image.image_id)) for digest in digests]
    connection.executemany("INSERT OR REPLACE INTO pulled VALUES (?, ?)", rows)


def _move_tags(connection: sqlite3.Connection, tags: Sequence[Reference], image_id: ImageID, now: int) -> None:
    connection.executemany("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", [(str(t), str(image_id), now) for t in tags])


def _may_be_id(name: str) -> bool:
    prefix = name.removeprefix("sha256:")
    return 0 < len(prefix) <= 64 and set(prefix) <= _HEX_DIGITS


def _text(digest: Digest | None) -> str | None:
    return str(digest) if digest else None
