"""Whose a copied file is to be: ``--chown`` looked up in the stage's own files, ``--chmod`` read."""

from __future__ import annotations

from lamina.build.context.source import FileSource
from lamina.build.copy.chmod import ModeChange
from lamina.build.copy.plan import Ownership
from lamina.build.errors import BuildFailed


def resolve_ownership(files: FileSource, chown: str, chmod: str) -> Ownership:
    """``user[:group]`` by name or number, and a mode. A number without a group is the group's as well.

    Raises BuildFailed for a name that the stage's /etc/passwd or /etc/group does not have, DockerfileError for a mode that is none.
    """
    mode = ModeChange.parse(chmod) if chmod else None
    if not chown:
        return Ownership(mode=mode)
    user, _, group = chown.partition(":")
    if user.isdigit():
        uid = primary = int(user)
    else:
        uid, primary = _look_up(files, b"etc/passwd", user or "root", "user")
    gid = _look_up(files, b"etc/group", group, "group")[0] if group else primary
    return Ownership(uid, gid, mode)


def _look_up(files: FileSource, path: bytes, name: str, kind: str) -> tuple[int, int]:
    """(ID, primary group) of a user, or (ID, ID) of a group."""
    if name.isdigit():
        return int(name), int(name)
    found, node = files.tree.resolve(path)
    text = files.read(b"/".join(found), node).decode("utf-8", "replace") if node is not None and node.is_regular else ""
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 4 and name == parts[0] and parts[2].isdigit():
            number = int(parts[2])
            return number, int(parts[3]) if kind == "user" and parts[3].isdigit() else number
    if name == "root":
        return 0, 0
    raise BuildFailed(f"unable to convert uid/gid chown string to host mapping: can't find {kind} for {kind} {name}")
