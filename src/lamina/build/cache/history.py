"""``--cache-from`` an image that tells nothing of its steps: its history says what was done, its layers what came of it.

This is docker's classic rule (image/cache): as long as a stage's history is the beginning of the image's, the next entry there may be
what the next step makes, if it is the same instruction. What COPY writes is not in the words of a history, so that here the files
themselves are compared.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from lamina.build.cache.outcomes import Outcome
from lamina.build.context.source import TarContents
from lamina.build.copy.plan import CopyItem, digest_of
from lamina.image.store import Image
from lamina.layer.tree import Node, load
from lamina.oci.config import ImageConfig
from lamina.oci.digest import DiffID

Accepts = Callable[[DiffID | None], Awaitable[bool]]
"""Whether a layer, None for none, can be what a step makes whose instruction is known to be the same."""


async def any_layer(layer: DiffID | None) -> bool:
    """For RUN, whose instruction says all."""
    return True


async def no_layer(layer: DiffID | None) -> bool:
    """For what changes no file."""
    return layer is None


async def find_in_history(
    images: Sequence[Image], so_far: ImageConfig, created_by: str, accepts: Accepts
) -> Outcome | None:
    """What a step after *so_far* made in one of the images."""
    done = len(so_far.history)
    for image in images:
        history = image.config.history
        is_beginning = [e.created_by for e in history[:done]] == [e.created_by for e in so_far.history]
        is_below = image.config.diff_ids[: len(so_far.diff_ids)] == so_far.diff_ids
        is_same_platform = image.config.platform == so_far.platform
        if len(history) <= done or not (is_beginning and is_below and is_same_platform):
            continue
        if history[done].created_by != created_by:
            continue
        layers = image.config.diff_ids[len(so_far.diff_ids) :]
        if not history[done].empty_layer and not layers:
            continue
        layer = None if history[done].empty_layer else layers[0]
        if await accepts(layer):
            return Outcome(layer, history[done].created or image.config.created or "")
    return None


async def has_files(items: Sequence[CopyItem], tree: Path, tar: Path) -> bool:
    """Whether a layer's files are those of a plan, but for their times and for directories that are there only to hold others."""
    return await asyncio.to_thread(_has_files, items, tree, tar)


def _has_files(items: Sequence[CopyItem], tree: Path, tar: Path) -> bool:
    contents = TarContents((tar,))
    wanted = {item.path: item for item in items if not item.kept}
    found: set[bytes] = set()
    for path, node in load(tree).walk():
        if node.children is not None and path not in wanted:
            if node.whiteouts or node.opaque:
                return False
            continue
        item = wanted.get(path)
        if item is None or _attributes(item.node) != _attributes(node):
            return False
        if node.is_regular and digest_of(contents.pieces(path, node)) != (item.digest or digest_of(item.pieces())):
            return False
        found.add(path)
    return found == wanted.keys()


def _attributes(node: Node) -> tuple[object, ...]:
    size = node.size if stat.S_ISREG(node.mode) else 0
    return (node.mode, node.uid, node.gid, node.rdev, node.target, size, sorted((node.xattrs or {}).items()))
