"""What a container is asked to mount, in docker's four ways read into one: ``-v``, ``--mount``, ``--tmpfs`` and the image's ``VOLUME``.

Pure: nothing is looked up or made, so that the same request gives the same mounts when the container is made and each time it starts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lamina.container.config import (
    BindOptions,
    ContainerConfig,
    DriverConfig,
    HostConfig,
    ImageOptions,
    TmpfsOptions,
    VolumeOptions,
)
from lamina.container.config import Mount as MountObject
from lamina.container.errors import UnsupportedOption
from lamina.container.record import MountPoint
from lamina.errors import InvalidArgument
from lamina.volume import VolumeDriverNotFound

Kind = Literal["bind", "volume", "tmpfs", "image"]
Recursion = Literal["with", "if-possible", "without"]
"""Whether what is mounted below a read-only bind is to be read-only too."""

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_MODES = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    PROPAGATIONS,
    frozenset({"nocopy"}),
    frozenset({"cached", "delegated", "consistent", "default"}),
)
"""The groups of which a ``-v`` may have one word each."""

_TMPFS_FLAGS = frozenset(
    "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime "
    "bind rbind private rprivate shared rshared slave rslave unbindable runbindable relatime norelatime strictatime "
    "nostrictatime".split()
)
_TMPFS_VALUES = frozenset(("gid", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"))
"""What docker lets a tmpfs have (moby/sys/mount, flags.go)."""

_OPTIONS: Mapping[Kind, str] = {
    "bind": "bind_options",
    "volume": "volume_options",
    "tmpfs": "tmpfs_options",
    "image": "image_options",
}


class InvalidMount(InvalidArgument):
    """A mount that was asked for makes no sense."""


@dataclass(frozen=True)
class MountRequest:
    """A mount as it is wanted. A volume without a source is an anonymous one; ``mode`` is how ``inspect`` shows it."""

    kind: Kind
    target: str
    source: str = ""
    read_only: bool = False
    mode: str = ""
    shown: bool = True
    """Whether it is among the mounts that ``inspect`` shows."""
    propagation: str = "rprivate"
    recursive: bool = True
    read_only_below: Recursion = "if-possible"
    make_source: bool = False
    copies: bool = True
    """Whether an empty volume gets what the image has in its place."""
    labels: Mapping[str, str] = field(default_factory=dict)
    driver_options: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """A tmpfs' own, as in fstab."""
    subpath: str = ""
    """The part of a volume that is mounted; empty for all of it."""


def mount_requests(
    config: ContainerConfig, host: HostConfig, inherited: Iterable[MountPoint] = ()
) -> dict[str, MountRequest]:
    """Every mount, by where it is to be. Two that are asked for at one place clash.

    *inherited* are those of other containers (``--volumes-from``), which give way to what is asked for; the image's ``VOLUME`` gives way
    to both. Raises InvalidMount or UnsupportedOption.
    """
    asked = [_bind(text) for text in host.binds or []]
    asked += [_mount(mount) for mount in host.mounts or []]
    asked += [_tmpfs(path, options) for path, options in (host.tmpfs or {}).items()]
    wanted: dict[str, MountRequest] = {}
    for request in asked:
        if request.target in wanted:
            raise InvalidMount(f"Duplicate mount point: {request.target}")
        wanted[request.target] = request
    for point in inherited:
        wanted.setdefault(point.destination, _inherited(point))
    for path in config.volumes or {}:
        target = absolute(f"/{path}")  # one that is relative is so to the root
        wanted.setdefault(target, MountRequest("volume", target))
    return wanted


def absolute(path: str) -> str:
    """A place in a container, normalized. Raises InvalidMount if it is not absolute, or the root."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidMount(f"invalid mount path: '{path}' mount path must be absolute")
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/":
        raise InvalidMount("invalid specification: destination can't be '/'")
    return normal


def _bind(text: str) -> MountRequest:
    """``[source:]target[:mode]`` of ``-v``; a source that is no path names a volume, a missing directory is made."""
    parts = text.split(":")
    if len(parts) == 1:
        return MountRequest("volume", absolute(parts[0]))
    if len(parts) > 3 or not parts[0] or not parts[1] or "\0" in text:
        raise InvalidMount(f"invalid volume specification: '{text}'")
    source = parts[0]
    is_bind = source.startswith("/")
    try:
        target = absolute(parts[1])
    except InvalidMount as error:
        reason = _invalid("bind" if is_bind else "volume", error.message)
        raise InvalidMount(f"invalid volume specification: '{text}': {reason}") from None
    mode = parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    if any(sum(word in group for word in words) > 1 for group in _MODES) or not set(words) <= set().union(*_MODES):
        raise InvalidMount(f"invalid mode: {mode}")
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    if (is_bind and "nocopy" in words) or (not is_bind and propagation):
        kind, options = ("bind", "VolumeOptions") if is_bind else ("volume", "BindOptions")
        raise InvalidMount(f"invalid volume specification: '{text}': {_invalid(kind, _not_for(options))}")
    read_only = "ro" in words
    if not is_bind:
        copies = "nocopy" not in words
        return MountRequest("volume", target, source, read_only, mode or "z", copies=copies)
    return MountRequest(
        "bind",
        target,
        posixpath.normpath(source),
        read_only,
        mode,
        propagation=propagation or "rprivate",
        make_source=True,
    )


def _inherited(point: MountPoint) -> MountRequest:
    """A mount as another container, or this one before it was started, has it."""
    read_only = not point.rw
    if point.type == "volume":
        return MountRequest("volume", point.destination, point.name, read_only, point.mode, copies=False)
    propagation = point.propagation or "rprivate"
    return MountRequest("bind", point.destination, point.source, read_only, point.mode, propagation=propagation)


def _tmpfs(path: str, options: str) -> MountRequest:
    words = tuple(word for word in options.split(",") if word)
    return MountRequest("tmpfs", absolute(path), shown=False, options=_known_to_tmpfs(words))


def _known_to_tmpfs(words: Iterable[str]) -> tuple[str, ...]:
    """The same words. Raises InvalidMount for one that is no option of a tmpfs."""
    known = tuple(words)
    for word in known:
        name, equals, _ = word.partition("=")
        if not (name in _TMPFS_VALUES if equals else word in _TMPFS_FLAGS):
            shown = " ".join(f'"{part}"' for part in word.split("=", 1))
            raise InvalidMount(f"invalid tmpfs option [{shown}]")
    return known


def _mount(mount: MountObject) -> MountRequest:
    """A ``--mount``. What is meant for another type is refused, never ignored."""
    if mount.type in ("npipe", "cluster"):
        raise UnsupportedOption(f"mount type {mount.type!r}")
    if mount.type not in _OPTIONS:
        raise InvalidMount(_invalid(mount.type, "mount type unknown"))
    if not mount.target:
        raise InvalidMount(_invalid(mount.type, "field Target must not be empty"))
    for kind, name in _OPTIONS.items():
        if kind != mount.type and getattr(mount, name) is not None:
            raise InvalidMount(_invalid(mount.type, _not_for(f"{kind.capitalize()}Options")))
    try:
        target = absolute(mount.target)
    except InvalidMount as error:
        raise InvalidMount(_invalid(mount.type, error.message)) from None
    read = {"bind": _bind_mount, "volume": _volume_mount, "tmpfs": _tmpfs_mount, "image": _image_mount}[mount.type]
    return read(mount, target)


def _bind_mount(mount: MountObject, target: str) -> MountRequest:
    options = mount.bind_options or BindOptions()
    if not mount.source:
        raise InvalidMount(_invalid("bind", "field Source must not be empty"))
    if not mount.source.startswith("/") or "\0" in mount.source:
        raise InvalidMount(_invalid("bind", f"invalid mount path: '{mount.source}' mount path must be absolute"))
    propagation = options.propagation or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidMount(_invalid("bind", f"invalid propagation mode: {propagation}"))
    return MountRequest(
        "bind",
        target,
        posixpath.normpath(mount.source),
        mount.read_only,
        propagation=propagation,
        recursive=not options.non_recursive,
        read_only_below=_recursion(mount, options),
        make_source=options.create_mountpoint,
    )


def _recursion(mount: MountObject, options: BindOptions) -> Recursion:
    without, forced = options.read_only_non_recursive, options.read_only_force_recursive
    if (without or forced) and not mount.read_only:
        name = "ReadOnlyNonRecursive" if without else "ReadOnlyForceRecursive"
        raise InvalidMount(_invalid("bind", f"{name} must be used with ReadOnly"))
    if without and forced:
        raise InvalidMount(_invalid("bind", "ReadOnlyForceRecursive conflicts with ReadOnlyNonRecursive"))
    return "without" if without else "with" if forced else "if-possible"


def _volume_mount(mount: MountObject, target: str) -> MountRequest:
    options = mount.volume_options or VolumeOptions()
    driver = options.driver_config or DriverConfig()
    subpath = _subpath("volume", options.subpath)
    if driver.name not in ("", "local"):
        # not as a thing that is not found, which a client would take for the image
        raise InvalidMount(VolumeDriverNotFound(mount.source, driver.name).message)
    copies = not options.no_copy and not subpath
    labels = options.labels or {}
    return MountRequest(
        "volume",
        target,
        mount.source,
        mount.read_only,
        "z",
        copies=copies,
        labels=labels,
        driver_options=driver.options or {},
        subpath=subpath,
    )


def _image_mount(mount: MountObject, target: str) -> MountRequest:
    """An image's files, which are read-only in any case."""
    if not mount.source:
        raise InvalidMount(_invalid("image", "field Source must not be empty"))
    subpath = _subpath("image", (mount.image_options or ImageOptions()).subpath)
    return MountRequest("image", target, mount.source, read_only=True, copies=False, subpath=subpath)


def _subpath(kind: Kind, subpath: str) -> str:
    if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath:
        raise InvalidMount(_invalid(kind, f"subpath must be a relative path within the {kind}"))
    return subpath


def _tmpfs_mount(mount: MountObject, target: str) -> MountRequest:
    options = mount.tmpfs_options or TmpfsOptions()
    if mount.source:
        raise InvalidMount(_invalid("tmpfs", _not_for("Source")))
    size, mode = options.size_bytes, options.mode
    if size < 0 or mode < 0:
        raise InvalidMount(_invalid("tmpfs", "SizeBytes and Mode must be numbers that are not negative"))
    words = [f"size={size}"] if size else []
    words += [f"mode={mode:o}"] if mode else []
    for item in options.options or []:
        if not 0 < len(item) < 3:
            raise InvalidMount(_invalid("tmpfs", "Options must be a list of [name] and [name, value]"))
        words.append("=".join(item))
    return MountRequest("tmpfs", target, read_only=mount.read_only, options=_known_to_tmpfs(words))


def _invalid(kind: str, reason: str) -> str:
    return f'invalid mount config for type "{kind}": {reason}'


def _not_for(name: str) -> str:
    return f"field {name} must not be specified"
