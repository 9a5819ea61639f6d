"""Deleting images as docker does: a name first, the image with its last name, then what only it needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamina.content import ContentStore
from lamina.image.errors import ImageInUse, LastNameInUse
from lamina.image.store import Image, ImageStore
from lamina.oci.digest import DiffID, Digest, ImageID
from lamina.oci.reference import Reference
from lamina.snapshot import LayerTrees, LowerDriver


@dataclass(frozen=True)
class ImageUser:
    """A container that stands on an image."""

    container_id: str
    running: bool


UsersOf = Callable[[ImageID], Iterable[ImageUser]]
StacksInUse = Callable[[], Iterable[Sequence[DiffID]]]
"""The layers under every container: they stay even when the container's image goes."""


class Untagged(NamedTuple):
    """A name that was taken away, in its familiar form, and the image that bore it."""

    name: str
    image_id: ImageID


@dataclass(frozen=True)
class Removed:
    """What a removal did, in order: names taken away, images deleted, bytes freed; and the blobs that the images needed."""

    untagged: tuple[Untagged, ...] = ()
    deleted: tuple[ImageID, ...] = ()
    freed_bytes: int = 0
    blobs: frozenset[Digest] = frozenset()

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            self.untagged + other.untagged,
            self.deleted + other.deleted,
            self.freed_bytes + other.freed_bytes,
            self.blobs | other.blobs,
        )


@dataclass(frozen=True)
class _Conflict:
    """Why an image stays; one that is *forceable* gives way to force."""

    reason: str
    forceable: bool


class ImageRemoval:
    """Removes images, and the blobs, trees and indexes that nothing else needs."""

    def __init__(
        self,
        images: ImageStore,
        content: ContentStore,
        trees: LayerTrees,
        lowers: LowerDriver,
        users_of: UsersOf,
        stacks_in_use: StacksInUse,
    ) -> None:
        self._images = images
        self._content = content
        self._trees = trees
        self._lowers = lowers
        self._users_of = users_of
        self._stacks_in_use = stacks_in_use
        self._collecting: set[asyncio.Task[int]] = set()

    async def remove(self, name: str, *, force: bool = False, prune_parents: bool = True) -> Removed:
        """Remove what *name* means, by docker's rules.

        A name is taken away, and the image with its last one if nothing needs it. An ID with several names needs *force*. An image
        that a running container or a build uses, or that other images were built from, is never deleted.

        Raises ImageNotFound, ImageInUse or LastNameInUse.
        """
        image_id, reference = self._images.find_named(name)
        removed = Removed()
        if reference is not None and reference.digest is not None and self._images.names(image_id):
            digest = reference._replace(tag=None)
            await self._images.untag([digest])
            return Removed(_untagged([digest], image_id))
        if reference is not None and reference.digest is None:
            self._refuse_last_name(reference, image_id, force=force)
            await self._images.untag([reference])
            removed = Removed(_untagged([reference], image_id))
            if self._images.names(image_id) or self._conflict(image_id, force=force, named=True):
                return removed
        else:
            several_names = len(self._images.names(image_id)) > 1
            conflict = self._conflict(image_id, force=force, named=not several_names)
            if conflict is not None:
                raise ImageInUse(_short(image_id), conflict.reason, forceable=conflict.forceable)
        removed += await self._delete(image_id, prune_parents=prune_parents)
        return removed + Removed(freed_bytes=await self.collect_garbage(among=removed.blobs))

    async def prune(self, candidates: Iterable[Image], *, named: bool = False) -> Removed:
        """Delete those of *candidates* that nothing uses, with the untagged images that they were built from.

        Only *named* deletes one that has a name by the time that its turn comes.
        """
        removed = Removed()
        for image in candidates:
            if image.image_id in self._images and self._conflict(image.image_id, force=False, named=named) is None:
                removed += await self._delete(image.image_id, prune_parents=True)
        return removed + Removed(freed_bytes=await self.collect_garbage(among=removed.blobs))

    async def collect_garbage(self, *, among: Iterable[Digest] = ()) -> int:
        """Delete every blob that no image and no container needs and nobody leases, and what was derived of it; returns the bytes freed.

        While there are damaged images, of which nobody knows what they need, only blobs *among* those given are deleted.
        """
        stacks = [*self._stacks_in_use(), *(image.config.diff_ids for image in self._images)]
        await self._lowers.keep_only(stacks)
        # from here on nothing is waited for
        needed = self._images.blobs_in_use().union(*self._stacks_in_use())
        freed = 0
        for digest in list(among) if self._images.damaged else list(self._content.digests()):
            if digest not in needed:
                freed += self._content.delete(digest)
                if not self._content.exists(digest):
                    self._trees.remove(DiffID(digest))
        return freed

    def container_gone(self, image_id: ImageID) -> None:
        """A container is no more: if its image went before it, its layers go now, in the background."""
        if image_id not in self._images:
            task = asyncio.ensure_future(self.collect_garbage())
            self._collecting.add(task)
            task.add_done_callback(self._collecting.discard)

    def _refuse_last_name(self, name: Reference, image_id: ImageID, *, force: bool) -> None:
        users = list(self._users_of(image_id))
        if users and not force and len(self._images.names(image_id)) == 1:
            raise LastNameInUse(name.familiar, users[0].container_id[:12], _short(image_id))

    def _conflict(self, image_id: ImageID, *, force: bool, named: bool) -> _Conflict | None:
        """Why an image cannot be deleted now; with *named* its names are no reason."""
        if self._images.children(image_id):
            return _Conflict("image has dependent child images", forceable=False)
        users = list(self._users_of(image_id))
        running = next((u for u in users if u.running), None)
        if running is not None:
            return _Conflict(f"image is being used by running container {running.container_id[:12]}", forceable=False)
        if self._images.is_held(image_id):
            return _Conflict("image is being used by a build", forceable=False)
        if force:
            return None
        if (self._images.names(image_id) or self._images.digests(image_id)) and not named:
            return _Conflict("image is referenced in multiple repositories", forceable=True)
        if users:
            return _Conflict(f"image is being used by stopped container {users[0].container_id[:12]}", forceable=True)
        return None

    async def _delete(self, image_id: ImageID, *, prune_parents: bool) -> Removed:
        """Delete an image that nothing conflicts with, and the images without names that it was built from.

        Nothing is waited for between the look for conflicts and the image's leaving.
        """
        removed = Removed()
        wanted: ImageID | None = image_id
        while wanted is not None:
            image, names = self._images.stored(wanted), self._images.names(wanted)
            await self._images.forget(wanted)
            removed += Removed(_untagged(names, wanted), (wanted,), blobs=image.blobs)
            wanted = image.parent if prune_parents else None
            if wanted is not None and (wanted not in self._images or self._conflict(wanted, force=False, named=False)):
                break
        return removed


def _untagged(names: Iterable[Reference], image_id: ImageID) -> tuple[Untagged, ...]:
    return tuple(Untagged(name.familiar, image_id) for name in names)


def _short(image_id: ImageID) -> str:
    return image_id.hex[:12]
