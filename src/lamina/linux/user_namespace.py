"""A user namespace whose users are others outside (user_namespaces(7)): who is root in a container, and nobody on the host.

The ranges are those of /etc/subuid and /etc/subgid (subuid(5)), as with docker's ``--userns-remap``.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.linux import mount

_NOBODY = 65534
_START_TIMEOUT_S = 10.0
_DEFAULT_USER = "dockremap"
_FIRST_FREE = 100_000
_COUNT = 65536


class InvalidMapping(InvalidArgument):
    """No range of IDs can be had for what was asked for."""


@dataclass(frozen=True)
class IdMap:
    """Container's IDs from 0 on are the host's from these on, *uid_count* users and *gid_count* groups."""

    uid_start: int
    gid_start: int
    uid_count: int = _COUNT
    gid_count: int = _COUNT

    @property
    def root(self) -> tuple[int, int]:
        """The container's root on the host."""
        return self.uid_start, self.gid_start

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """What a container's user and group are on the host. Raises InvalidMapping if they are none there."""
        if uid >= self.uid_count or gid >= self.gid_count:
            raise InvalidMapping(f"Container ID {uid}:{gid} cannot be mapped to a host ID")
        return self.uid_start + uid, self.gid_start + gid

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """What a host's user and group are in the container: nobody, if they are not of the range."""
        inner_uid, inner_gid = uid - self.uid_start, gid - self.gid_start
        return (
            inner_uid if 0 <= inner_uid < self.uid_count else _NOBODY,
            inner_gid if 0 <= inner_gid < self.gid_count else _NOBODY,
        )


def read_mapping(text: str, subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")) -> IdMap:
    """``user[:group]`` or ``default`` as ``--userns-remap`` has it. Raises InvalidMapping.

    The default's range is that of the user ``dockremap``; where there is none, one that nobody has.
    """
    user, _, group = text.partition(":")
    if text == "default":
        user = _DEFAULT_USER
        if _range_of(subuid, user) is None or _range_of(subgid, user) is None:
            start = max(_first_free(subuid), _first_free(subgid))
            return IdMap(start, start)
    uids, gids = _range_of(subuid, user), _range_of(subgid, group or user)
    if uids is None:
        raise InvalidMapping(f"user namespaces: no subuid ranges found for user {user!r} in {subuid}")
    if gids is None:
        raise InvalidMapping(f"user namespaces: no subgid ranges found for group {group or user!r} in {subgid}")
    return IdMap(uids[0], gids[0], uids[1], gids[1])


class UserNamespace:
    """A user namespace that nobody lives in, held by a descriptor: for mounts whose owners are shifted, and for further namespaces."""

    def __init__(self, idmap: IdMap) -> None:
        """Blocking, some milliseconds. Raises OSError."""
        self.idmap = idmap
        with self._in_new_ones("--user") as pid:
            self._fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def shifted(self, tree: int) -> int:
        """A detached copy of a mount, or of a directory's, whose files' owners are the host's of the range (mount_setattr(2)).

        Raises OSError if the file system cannot do that.
        """
        copy = mount.clone_tree(f"/proc/self/fd/{tree}")
        try:
            mount.set_owner_mapping(copy, self._fd)
        except BaseException:
            os.close(copy)
            raise
        return copy

    def pin_network_namespace(self, pin: Path) -> None:
        """Make a network namespace pinned at the file *pin*, with a user namespace of its own, pinned beside it, that owns it.

        Its users are mapped as in this one. Blocking. Raises OSError.
        """
        user_pin = user_pin_of(pin)
        user_pin.touch(0o400)
        with self._in_new_ones("--user", "--net") as pid:
            mount.bind(f"/proc/{pid}/ns/user", str(user_pin), recursive=False)
            mount.bind(f"/proc/{pid}/ns/net", str(pin), recursive=False)

    @contextmanager
    def _in_new_ones(self, *kinds: str) -> Iterator[int]:
        """The pid of a process in new namespaces, which ends with the block."""
        with subprocess.Popen(["unshare", *kinds, "sleep", "60"], stdin=subprocess.DEVNULL) as process:
            try:
                _await_other_namespace(process)
                for kind, start, count in (
                    ("uid", self.idmap.uid_start, self.idmap.uid_count),
                    ("gid", self.idmap.gid_start, self.idmap.gid_count),
                ):
                    Path(f"/proc/{process.pid}/{kind}_map").write_text(f"0 {start} {count}\n")
                yield process.pid
            finally:
                process.kill()


def user_pin_of(network_pin: Path) -> Path:
    """Where the user namespace is pinned that owns a network namespace."""
    return network_pin.with_name(f"{network_pin.name}.user")


def _await_other_namespace(process: subprocess.Popen[bytes]) -> None:
    own = os.readlink("/proc/self/ns/user")
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):  # not yet what it will be
            if os.readlink(f"/proc/{process.pid}/ns/user") != own:
                return
        time.sleep(0.001)
    raise OSError("no user namespace could be made")


def _range_of(path: Path, name: str) -> tuple[int, int] | None:
    """The first range of a user: its beginning and its length."""
    for owner, start, count in _ranges(path):
        if owner == name:
            return start, count
    return None


def _first_free(path: Path) -> int:
    return max([_FIRST_FREE, *(start + count for _, start, count in _ranges(path))])


def _ranges(path: Path) -> list[tuple[str, int, int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    parts = (line.split(":") for line in lines)
    return [(p[0], int(p[1]), int(p[2])) for p in parts if len(p) == 3 and p[1].isdigit() and p[2].isdigit()]
