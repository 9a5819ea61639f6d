"""Users and groups, looked up in the container's own /etc/passwd and /etc/group, which are hostile input like all its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.linux.paths import read_in_root

_MAXIMUM_BYTES = 8 << 20
_MAXIMUM_ID = (1 << 31) - 1


class UserNotFound(InvalidArgument):
    """The image knows no such user or group."""

    def __init__(self, kind: str, name: str) -> None:
        file = "passwd" if kind == "user" else "group"
        super().__init__(f"unable to find {kind} {name}: no matching entries in {file} file")
        self.kind = kind
        self.name = name


@dataclass(frozen=True)
class Identity:
    """Who a process is, and its home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(rootfs: Path | int, user: str, additional_groups: Sequence[str] = ()) -> Identity:
    """``""``, ``name``, ``uid``, ``name:group``, ``uid:gid`` as docker reads them; groups by name or number.

    Without a group, the primary and supplementary groups are the user's own. Raises UserNotFound.
    """
    name, colon, group = user.partition(":")
    passwd = list(_entries(rootfs, "/etc/passwd", 7))
    groups = list(_entries(rootfs, "/etc/group", 4))
    uid, gid, home, login = _find_user(passwd, name or "0")
    supplementary: list[int] = []
    if colon and group:
        gid = _find_group(groups, group)
    elif login is not None:
        supplementary = [int(g[2]) for g in groups if login in g[3].split(",") and g[2].isdigit()]
    supplementary += [_find_group(groups, g) for g in additional_groups]
    ordered = tuple(dict.fromkeys([gid, *supplementary])) if supplementary or uid == 0 else (gid,)
    return Identity(uid, gid, ordered, home)


def _find_user(passwd: list[list[str]], name: str) -> tuple[int, int, str, str | None]:
    """(uid, primary gid, home, login name); a number need not be in the file, a name must."""
    for entry in passwd:
        if (entry[0] == name or entry[2] == name) and entry[2].isdigit() and entry[3].isdigit():
            return int(entry[2]), int(entry[3]), entry[5] or "/", entry[0]
    if not name.isdigit():
        raise UserNotFound("user", name)
    return _checked(name, "user"), 0, "/root" if name == "0" else "/", None


def _find_group(groups: list[list[str]], name: str) -> int:
    for entry in groups:
        if entry[0] == name and entry[2].isdigit():
            return int(entry[2])
    if not name.isdigit():
        raise UserNotFound("group", name)
    return _checked(name, "group")


def _checked(text: str, kind: str) -> int:
    if len(text) > 10 or int(text) > _MAXIMUM_ID:
        raise InvalidArgument(f"{kind} ID {text[:20]} is out of range: it must be 0-{_MAXIMUM_ID}")
    return int(text)


def _entries(rootfs: Path | int, path: str, fields: int) -> Iterator[list[str]]:
    try:
        data = read_in_root(rootfs, path, limit=_MAXIMUM_BYTES)
    except OSError:
        return
    for line in data.decode("utf-8", "replace").splitlines():
        parts = line.strip().split(":")
        if len(parts) >= fields - 1 and parts[0] and not line.startswith("#"):
            yield parts + [""] * (fields - len(parts))
