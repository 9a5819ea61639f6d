"""Deleting images as docker does: a name first, the image with its last name, then what only it needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lamina.content import ContentStore
from lamina.image.errors import ImageInUse
from lamina.image.store import Image, ImageStore
from lamina.oci.digest import DiffID, ImageID
from lamina.oci.reference import Reference
from lamina.snapshot import LayerTrees, LowerDriver


@dataclass(frozen=True)
class ImageUser:
    """A container that stands on an image."""

    container_id: str
    running: bool


UsersOf = Callable[[ImageID], Iterable[ImageUser]]


@dataclass(frozen=True)
class Removed:
    """What a removal did, in order: names taken away, images deleted, bytes freed."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[ImageID, ...] = ()
    freed_bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            self.untagged + other.untagged, self.deleted + other.deleted, self.freed_bytes + other.freed_bytes
        )


class ImageRemoval:
    """Removes images, and the blobs, trees and indexes that nothing else needs."""

    def __init__(
        self, images: ImageStore, content: ContentStore, trees: LayerTrees, lowers: LowerDriver, users_of: UsersOf
    ) -> None:
        self._images = images
        self._content = content
        self._trees = trees
        self._lowers = lowers
        self._users_of = users_of

    async def remove(self, name: str, *, force: bool = False, prune_parents: bool = True) -> Removed:
        """Remove what *name* means.

        A name that is not the image's last is only taken away. An ID with several names needs *force*. An image that a running
        container uses, or that other images were built from, is never deleted.

        Raises ImageNotFound or ImageInUse.
        """
        image_id, reference = self._images.find_named(name)
        image = self._images.get(image_id)
        names = self._images.names(image_id)
        if reference is not None and reference.digest is None and len(names) > 1:
            return await self._untag([reference])
        if reference is None and len(names) > 1 and not force:
            reason = "image is referenced in multiple repositories"
            if len({n.repository for n in names}) > 1:
                raise ImageInUse(_short(image_id), reason, forceable=True)
        users = list(self._users_of(image_id))
        if reference is not None and ((users and force) or self._images.children(image_id)):
            self._refuse_in_use(reference.familiar, users, force=force)
            return await self._untag(names)
        self._refuse_in_use(reference.familiar if reference else _short(image_id), users, force=force)
        if self._images.children(image_id):
            raise ImageInUse(_short(image_id), "image has dependent child images", forceable=False)
        if users:
            return await self._untag(names)
        removed = await self._delete(image, names)
        return removed + (await self._prune_parents(image.parent) if prune_parents else Removed())

    async def prune(self, candidates: Iterable[Image]) -> Removed:
        """Delete those of *candidates* that nothing uses, with the untagged images that they were built from."""
        removed = Removed()
        for image in candidates:
            in_use = list(self._users_of(image.image_id)) or self._images.children(image.image_id)
            if image.image_id in self._images and not in_use:
                removed += await self._delete(image, self._images.names(image.image_id))
                removed += await self._prune_parents(image.parent)
        return removed

    async def collect_garbage(self) -> int:
        """Delete every blob that no image needs and nobody leases; returns the bytes freed. For start-up."""
        needed = self._images.blobs_in_use()
        return sum(self._content.delete(d) for d in list(self._content.digests()) if d not in needed)

    def _refuse_in_use(self, shown: str, users: list[ImageUser], *, force: bool) -> None:
        running = next((u for u in users if u.running), None)
        if running is not None:
            reason = f"image is being used by running container {running.container_id[:12]}"
            raise ImageInUse(shown, reason, forceable=False)
        if users and not force:
            reason = f"image is being used by stopped container {users[0].container_id[:12]}"
            raise ImageInUse(shown, reason, forceable=True)

    async def _untag(self, names: list[Reference]) -> Removed:
        await self._images.untag(names)
        return Removed(untagged=tuple(n.familiar for n in names))

    async def _prune_parents(self, parent: ImageID | None) -> Removed:
        removed = Removed()
        while parent is not None and parent in self._images:
            image = self._images.get(parent)
            if self._images.names(parent) or self._images.children(parent) or list(self._users_of(parent)):
                break
            removed += await self._delete(image, [])
            parent = image.parent
        return removed

    async def _delete(self, image: Image, names: list[Reference]) -> Removed:
        await self._images.forget(image.image_id)
        needed = self._images.blobs_in_use()
        if not any(i.config.chain_id == image.config.chain_id for i in self._images):
            await self._lowers.forget(image.config.diff_ids)
        freed = 0
        for digest in image.blobs - needed:
            freed += self._content.delete(digest)
            self._trees.remove(DiffID(digest))
        return Removed(tuple(n.familiar for n in names), (image.image_id,), freed)


def _short(image_id: ImageID) -> str:
    return image_id.hex[:12]
