"""What the two paths of ``cp`` mean: docker's rules for trailing slashes, ``/.`` and links, and where a copy goes and under what name.

A path that ends with ``/`` or ``/.`` is a directory's, or an error, and a link there is followed. ``dir/.`` as a source is what is in
the directory rather than the directory. Errors are CommandFailed.
"""

from __future__ import annotations

import errno
import os
import posixpath
from typing import NamedTuple

from lamina.cli.grammar import CommandFailed
from lamina.cli.output import described, go_quoted

_MOST_LINKS = 10


class Source(NamedTuple):
    """A file to copy: where it is, the name that it has in a tar before it is copied to another one, and whether it is a directory."""

    path: str
    name: str
    is_directory: bool


class Destination(NamedTuple):
    """A path to copy to, as it was typed but for links in its last place, and what is there."""

    path: str
    exists: bool
    is_directory: bool


def container_and_path(text: str) -> tuple[str, str]:
    """``CONTAINER:PATH``; no container for a path of this machine, which one that begins with ``/`` or ``.`` is for certain."""
    container, colon, path = text.partition(":")
    return (container, path) if colon and not text.startswith(("/", ".")) else ("", text)


def last_part(path: str) -> str:
    """A path's last part, whatever slashes follow: ``.`` of nothing, ``/`` of the root (Go's filepath.Base)."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def clean(path: str) -> str:
    """A path without ``.``, ``..`` and slashes that say nothing (Go's filepath.Clean)."""
    normal = posixpath.normpath(path)
    return normal[1:] if normal.startswith("//") else normal


def parent_and_name(path: str) -> tuple[str, str]:
    """The directory of a path and the name there; the name of ``dir/.`` is ``.``, in ``dir``."""
    parts = clean(path) + ("/." if last_part(path) == "." else "")
    head, slash, _ = parts.rpartition("/")
    return clean(head or slash), last_part(parts)


def with_end_of(path: str, typed: str) -> str:
    """A cleaned path with the ``/`` or ``/.`` that it was typed with."""
    if last_part(typed) == "." and last_part(path) != ".":
        path = path.rstrip("/") + "/."
    return path + "/" if typed.endswith("/") and not path.endswith("/") else path


def absolute(path: str) -> str:
    """A path of this machine from its root, its end as it was typed."""
    return with_end_of(clean(os.path.abspath(path)), path)


def host_source(path: str, *, follow: bool) -> Source:
    """What is at an absolute path of this machine. With *follow*, what a link in its last place leads to, under the link's name."""
    names_directory = _names_directory(path)
    try:
        if follow or names_directory:
            found = os.path.realpath(path, strict=True)
        else:
            parent, name = os.path.split(path)
            found = os.path.join(os.path.realpath(parent, strict=True), name)
        os.lstat(found)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CommandFailed("EvalSymlinks: too many links") from None
        raise CommandFailed("not a directory" if error.errno == errno.ENOTDIR else described(error, "lstat")) from None
    is_directory = os.path.isdir(found) and not os.path.islink(found)
    if names_directory and not is_directory:
        raise CommandFailed("not a directory")
    return Source(found, last_part(path), is_directory)


def check_host_destination(path: str) -> None:
    """Refuse an absolute path whose directory is not there, or where a device is, before anything is asked for."""
    parent = os.path.dirname(clean(path))
    if not os.path.exists(parent):
        raise CommandFailed(f"invalid output path: directory {go_quoted(parent)} does not exist")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(described(error, "stat")) from None
    import stat

    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise CommandFailed(
            f"invalid output path: {go_quoted(path)} must be a directory or a regular file: got a device"
        )


def host_destination(path: str) -> Destination:
    """What is at an absolute path of this machine; of a link, what it leads to, which need not be there."""
    typed = path
    for _ in range(_MOST_LINKS + 1):
        if not os.path.islink(path):
            break
        path = os.path.join(parent_and_name(path)[0], os.readlink(path))
    else:
        raise CommandFailed(f"too many symlinks in {typed}")
    if os.path.lexists(path):
        return Destination(path, exists=True, is_directory=os.path.isdir(path))
    parent = parent_and_name(path)[0]
    try:
        os.stat(parent)
    except OSError as error:
        raise CommandFailed(described(error, "stat")) from None
    if not os.path.isdir(parent):
        raise CommandFailed("not a directory")
    return Destination(path, exists=False, is_directory=False)


def placed(source: Source, destination: Destination) -> tuple[str, str]:
    """The directory that a copy goes to, and its name there."""
    if destination.is_directory:
        return destination.path, source.name
    if destination.exists and source.is_directory:
        raise CommandFailed("cannot copy directory")
    if not destination.exists and not source.is_directory and _names_directory(destination.path):
        raise CommandFailed("no such directory")
    return parent_and_name(destination.path)


def renamed(name: str, base: str, new: str) -> str:
    """An entry's name in a tar of *base* as it is in one of *new*."""
    if base == "/":
        return f"{new}/{name.lstrip('/')}".rstrip("/")
    return new + name[len(base) :] if name == base or name.startswith(f"{base}/") else name


def _names_directory(path: str) -> bool:
    return path.endswith("/") or last_part(path) == "."
