"""What is mounted on the host for one container alone, so that the runtime can be told of it by a path: parts of volumes, and images.

It lies below the container's bundle and goes with its process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lamina.container.mount_requests import InvalidMount
from lamina.linux import mount, paths

_DIRECTORY = "mounts"


def bind_part(whole: str, subpath: str, bundle: Path, number: int) -> str:
    """Bind a part of a directory below a bundle, and return where. Raises InvalidMount if there is no such part.

    What lies there may be written by containers, which may put a link in the way at any time: the part is opened inside the directory
    (``linux.paths``), and what was opened is bound.
    """
    try:
        fd = paths.open_in_root(whole, subpath, os.O_PATH)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidMount(f"cannot access path {subpath} in the volume: {reason}") from None
    try:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        tree = mount.clone_tree(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return _attach(tree, bundle, f"part-{number}", is_directory=is_directory)


def mount_image(lowers: Sequence[int], bundle: Path, number: int) -> str:
    """Mount an image's layers (directory descriptors, the topmost first) below a bundle, and return where. Raises OSError."""
    tree = mount.clone_tree(f"/proc/self/fd/{lowers[0]}") if len(lowers) == 1 else mount.overlay_read_only(lowers)
    mount.set_attributes(tree, mount.MOUNT_ATTR_RDONLY)
    return _attach(tree, bundle, f"image-{number}", is_directory=True)


def release(bundle: Path) -> None:
    """Unmount all that is mounted below a bundle. Whoever deletes a bundle does this first."""
    with suppress(FileNotFoundError):
        # a part of an image goes before the image
        for place in sorted((bundle / _DIRECTORY).iterdir(), reverse=True):
            with suppress(OSError):
                mount.unmount(str(place))


def _attach(tree: int, bundle: Path, name: str, *, is_directory: bool) -> str:
    """Give a detached mount a place; the descriptor is closed."""
    place = bundle / _DIRECTORY / name
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        if is_directory:
            place.mkdir()
        else:
            place.touch()
        mount.attach(tree, str(place))
    finally:
        os.close(tree)
    return str(place)
