"""Shared memory that several containers have (``--ipc shareable`` and ``--ipc container:X``).

A container's /dev/shm is a tmpfs of its own mount namespace, which no other can reach. That of a container which may be joined is mounted
on the host, below its bundle, and bound into it and into all that join it; it lives as long as one of them has it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lamina.container.errors import NotShareable
from lamina.container.record import Record
from lamina.linux import mount
from lamina.runtime.settings import Mount

PLACE = "/dev/shm"  # noqa: S108 - where the standard library of C looks for it
_NAME = "shm"


def share(bundle: Path, size_bytes: int) -> Mount:
    """Make a tmpfs that others may have too, and return how it is mounted. Raises OSError."""
    path = bundle / _NAME
    path.mkdir()
    flags = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
    mount.mount("shm", str(path), "tmpfs", flags, f"mode=1777,size={size_bytes}")
    return _bound(path)


def join(donor: Record, bundle: Path) -> Mount:
    """How the tmpfs of *donor*, whose bundle is given, is mounted in another container. Raises NotShareable."""
    if donor.host_config.ipc_mode != "shareable":
        raise NotShareable(donor.id)
    return _bound(bundle / _NAME)


def release(bundle: Path) -> None:
    """Let go of the tmpfs below a bundle, if there is one. Whoever deletes a bundle does this first."""
    with suppress(OSError):
        mount.unmount(str(bundle / _NAME))


def _bound(path: Path) -> Mount:
    return Mount(PLACE, "bind", str(path), ["rbind", "rprivate"])
