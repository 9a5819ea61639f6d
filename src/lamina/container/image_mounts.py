"""Images as mounts (``--mount type=image``): their files, which nobody can write to, at a place in a container.

The layers are mounted for the container alone, below its bundle, and go with its process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lamina.linux import mount

_DIRECTORY = "image"


def attach(lowers: Sequence[int], bundle: Path, number: int) -> str:
    """Mount an image's layers (directory descriptors, the topmost first) below a bundle, and return where. Raises OSError."""
    place = bundle / _DIRECTORY / str(number)
    place.mkdir(mode=0o755, parents=True)
    tree = mount.clone_tree(f"/proc/self/fd/{lowers[0]}") if len(lowers) == 1 else mount.overlay_read_only(lowers)
    try:
        mount.set_attributes(tree, mount.MOUNT_ATTR_RDONLY)
        mount.attach(tree, str(place))
    finally:
        os.close(tree)
    return str(place)


def release(bundle: Path) -> None:
    """Unmount all images below a bundle. Whoever deletes a bundle does this first."""
    with suppress(FileNotFoundError):
        for place in (bundle / _DIRECTORY).iterdir():
            with suppress(OSError):
                mount.unmount(str(place))
