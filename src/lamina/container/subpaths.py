"""Parts of volumes as mounts of their own (``volume-subpath``).

What is in a volume is written by containers, which may put a link in the way at any time. So the part is opened inside the volume
(``linux.paths``), and what was opened is bound to a place below the container's bundle, of which the runtime is told.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from lamina.container.mount_requests import InvalidMount
from lamina.linux import mount, paths

_DIRECTORY = "subpath"


def bind(volume: str, subpath: str, bundle: Path, number: int) -> str:
    """Bind a part of a volume's directory below a bundle, and return where. Raises InvalidMount if the volume has no such part."""
    try:
        fd = paths.open_in_root(volume, subpath, os.O_PATH)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidMount(f"cannot access path {subpath} in the volume: {reason}") from None
    try:
        place = bundle / _DIRECTORY / str(number)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            place.mkdir()
        else:
            place.touch()
        tree = mount.clone_tree(f"/proc/self/fd/{fd}")
        try:
            mount.attach(tree, str(place))
        finally:
            os.close(tree)
    finally:
        os.close(fd)
    return str(place)


def release(bundle: Path) -> None:
    """Let go of all parts that are bound below a bundle. Whoever deletes a bundle does this first."""
    with suppress(FileNotFoundError):
        for place in (bundle / _DIRECTORY).iterdir():
            with suppress(OSError):
                mount.unmount(str(place))
