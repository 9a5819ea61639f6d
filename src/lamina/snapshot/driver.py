"""What a lower driver does; ``erofs`` and ``directory`` are the two that exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from lamina.oci.digest import DiffID


class LowerDriver(Protocol):
    """Makes stacks of stored layers readable as file trees."""

    name: str
    """What ``info`` calls it."""

    async def lower(self, diff_ids: Sequence[DiffID]) -> tuple[int, ...]:
        """Directory descriptors that, stacked by overlayfs in this order (topmost first), show the layers *diff_ids*.

        The driver keeps the descriptors and hands out the same ones again; they stay valid until ``keep_only`` lets go of them or
        ``close``. Mounts made over them outlive both.

        Raises BlobNotFound if a layer's tar is gone, InvalidLayer if the layers do not stack, and OSError if the kernel refuses.
        """

    async def stacked_lower(self, diff_ids: Sequence[DiffID], base: int) -> tuple[int, ...]:
        """As ``lower``, for a build's step: a stack that is read once or twice and grows by a layer each time, so that little is made anew.

        The layers above the first *base* were written by ``layer.tarwriter``, every directory explicit and no link on any path. The
        files are those of ``lower``; their device numbers need not be.
        """

    async def keep_only(self, stacks: Iterable[Sequence[DiffID]]) -> None:
        """Let go of what was derived for any other stack than these, on disk too. What is being made at the moment stays."""

    def close(self) -> None:
        """Let go of all descriptors; what lies on disk stays."""
