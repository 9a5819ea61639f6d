"""What builds keep for the ones after them, and which of it may go.

There are several stores of such things (outcomes of steps, cache mounts, downloads, digests of contexts). Each tells what it has as
``CacheItem``s and removes those it is told to; what goes is decided here, for all of them alike, by BuildKit's rules
(client/prune.go, cache/manager.go).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

Kind = Literal["regular", "exec.cachemount", "source.local"]
"""BuildKit's words: a step's outcome or a download, a directory of ``RUN --mount=type=cache``, what is known of a context."""


@dataclass(frozen=True)
class CacheItem:
    """One thing that is kept. Sizes in bytes, times in Unix nanoseconds.

    An item that is *shared* frees nothing: an image that somebody wanted has its bytes, or it has none.
    """

    id: str
    kind: Kind
    description: str
    size_bytes: int
    created_ns: int
    used_ns: int
    uses: int = 1
    parents: Sequence[str] = ()
    shared: bool = False
    in_use: bool = False

    @property
    def reclaimable_bytes(self) -> int:
        """What removing the item would free."""
        return 0 if self.shared or self.in_use else self.size_bytes


class Keeper(Protocol):
    """A store of things that builds keep."""

    async def items(self) -> list[CacheItem]:
        """All that is kept."""

    async def remove(self, ids: Collection[str], unused_since_ns: int) -> int:
        """Remove items, but those that were used since then; returns the bytes that are free now."""


@dataclass(frozen=True)
class PruneRequest:
    """Which items are to go. *used_before_ns* bounds their last use; *fields* have the only value that a property may have.

    Without *everything* shared items stay. The three bounds in bytes stop the removal, the longest unused going first, as soon as they
    are met; 0 for none: what is kept in any case, what may be kept at most, and what is to be free on the disk.
    """

    everything: bool = False
    used_before_ns: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    reserved_bytes: int = 0
    maximum_bytes: int = 0
    minimum_free_bytes: int = 0

    def wants(self, item: CacheItem) -> bool:
        """Whether an item may go."""
        if item.in_use or (item.shared and not self.everything):
            return False
        if self.used_before_ns is not None and item.used_ns >= self.used_before_ns:
            return False
        return all(_fits(item, name, value) for name, value in self.fields.items())

    def bytes_to_keep(self, total_bytes: int, free_bytes: int) -> int | None:
        """How much may stay of *total_bytes* that are kept, while *free_bytes* are free on the disk; None if nothing bounds it."""
        if not (self.reserved_bytes or self.maximum_bytes or self.minimum_free_bytes):
            return None
        keep = self.maximum_bytes
        excess = self.minimum_free_bytes - free_bytes
        if excess > 0:
            keep = min(keep, total_bytes - excess) if keep else total_bytes - excess
        elif not keep and not self.reserved_bytes:
            keep = total_bytes
        return max(keep, self.reserved_bytes)


FIELDS = ("id", "parent", "type", "description", "inuse", "shared", "private")
"""What an item can be chosen by."""


def choose(items: Sequence[CacheItem], request: PruneRequest, free_bytes: int) -> list[CacheItem]:
    """The items that go, the longest unused first. Pure."""
    candidates = sorted((item for item in items if request.wants(item)), key=lambda item: item.used_ns)
    total = sum(item.size_bytes for item in items if not item.shared)
    keep = request.bytes_to_keep(total, free_bytes)
    if keep is None:
        return candidates
    chosen = []
    for item in candidates:
        if total <= keep:
            break
        chosen.append(item)
        total -= item.reclaimable_bytes
    return chosen


def marked(items: Sequence[CacheItem], oldest_build_ns: int | None) -> list[CacheItem]:
    """The items, those in use that were used since the oldest build that runs began."""
    if oldest_build_ns is None:
        return list(items)
    return [replace(item, in_use=item.in_use or item.used_ns >= oldest_build_ns) for item in items]


def _fits(item: CacheItem, name: str, value: str) -> bool:
    match name:
        case "id":
            return value in item.id
        case "parent":
            return value in item.parents
        case "type":
            return item.kind == value
        case "description":
            return item.description == value
        case "shared":
            return item.shared
        case "private":
            return not item.shared
    return item.in_use
