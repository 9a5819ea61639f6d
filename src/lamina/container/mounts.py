"""What a container has mounted beside its root: binds, volumes, tmpfs, asked for in any of docker's four ways."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.container.config import ContainerConfig, HostConfig
from lamina.container.config import Mount as MountRequest
from lamina.container.errors import UnsupportedOption
from lamina.container.record import MountPoint
from lamina.errors import InvalidArgument
from lamina.linux import paths, processes
from lamina.linux.deletion import remove_tree
from lamina.linux.files import temporary_name
from lamina.runtime.settings import Mount
from lamina.volume import Hold, Volume, VolumeStore

_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_FLAGS = frozenset({"ro", "rw", "z", "Z", "nocopy", "copy", "cached", "delegated", "consistent"}) | _PROPAGATIONS


class InvalidMount(InvalidArgument):
    """A mount that was asked for makes no sense."""


@dataclass(frozen=True)
class MountPlan:
    """The mounts of a container to be: what ``inspect`` shows, and the volumes that are to get the image's content."""

    points: list[MountPoint]
    to_fill: list[tuple[Volume, str]]
    anonymous: list[str]


async def plan_mounts(config: ContainerConfig, host: HostConfig, volumes: VolumeStore, hold: Hold) -> MountPlan:
    """Decide every mount of a container, and make the volumes that it needs, which are held.

    Later ways win over the image's ``VOLUME`` for the same place; two that were both asked for clash.
    Raises InvalidMount or UnsupportedOption.
    """
    wanted: dict[str, MountRequest] = {}
    modes: dict[str, str] = {}
    for text in host.binds or []:
        request, mode = _parse_bind(text)
        _claim(wanted, request)
        modes[request.target] = mode
    for request in host.mounts or []:
        _claim(wanted, _checked(request))
    for path, options in (host.tmpfs or {}).items():
        _claim(wanted, MountRequest(type="tmpfs", target=_absolute(path), tmpfs_options={"Options": options}))
    for path in config.volumes or {}:
        target = _absolute(path)
        wanted.setdefault(target, MountRequest(type="volume", target=target))
    points, to_fill, anonymous = [], [], []
    for target, request in sorted(wanted.items()):
        if request.type == "volume":
            fresh = request.source not in volumes
            volume = await hold.create(request.source or None, _volume_labels(request))
            if not request.source:
                anonymous.append(volume.name)
            if (fresh or not any(volume.path.iterdir())) and not (request.volume_options or {}).get("NoCopy"):
                to_fill.append((volume, target))
            points.append(_volume_point(request, volume, modes.get(target, "")))
        else:
            points.append(_point(request, modes.get(target, "")))
    return MountPlan(points, to_fill, anonymous)


def runtime_mounts(points: Iterable[MountPoint]) -> list[Mount]:
    """The same in the runtime's words. A bind whose source has vanished is the runtime's to complain about."""
    result = []
    for point in points:
        if point.type == "tmpfs":
            options = ["nosuid", "nodev", "noexec", *(o for o in point.mode.split(",") if o)]
            result.append(Mount(point.destination, "tmpfs", "tmpfs", options))
            continue
        access = "rw" if point.rw else "ro"
        result.append(
            Mount(point.destination, "bind", point.source, ["rbind", access, point.propagation or "rprivate"])
        )
    return result


async def fill_volume(volume: Volume, rootfs: Path, target: str, *, in_use: bool) -> None:
    """Copy what the image has at *target* into an empty volume, with owners, modes and the directory's own attributes.

    It is copied beside the volume's directory and takes its place, as half of it, after a crash, would never be made whole. Where a
    process has the directory mounted (*in_use*) it has to be that one.
    """
    try:
        source = paths.open_in_root(rootfs, target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    filled = volume.path if in_use else temporary_name(volume.path)
    try:
        argv = ["cp", "--archive", "--reflink=auto", f"/proc/self/fd/{source}/.", str(filled)]
        done = await processes.run(argv, pass_fds=(source,))
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace")
            raise InvalidMount(f"cannot copy the image's {target} to volume {volume.name}: {reason}")
        with suppress(OSError):  # no longer empty: another container was quicker
            filled.rename(volume.path)
    finally:
        os.close(source)
        if filled != volume.path:
            await asyncio.to_thread(remove_tree, filled)


def _claim(wanted: dict[str, MountRequest], request: MountRequest) -> None:
    if request.target in wanted:
        raise InvalidMount(f"Duplicate mount point: {request.target}")
    wanted[request.target] = request


def _parse_bind(text: str) -> tuple[MountRequest, str]:
    """``[source:]target[:options]`` of ``-v``; a source that is no path names a volume, a missing directory is made."""
    parts = text.split(":")
    if len(parts) == 1:
        return MountRequest(type="volume", target=_absolute(parts[0])), ""
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise InvalidMount(f"invalid volume specification: '{text}'")
    source, target = parts[0], _absolute(parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    flags = [f for f in mode.split(",") if f]
    unknown = [f for f in flags if f not in _FLAGS]
    if unknown:
        raise InvalidMount(f"invalid mode: {mode}")
    read_only = "ro" in flags
    if not source.startswith("/"):
        options = {"NoCopy": True} if "nocopy" in flags else None
        return MountRequest(
            type="volume", source=source, target=target, read_only=read_only, volume_options=options
        ), mode
    propagation = next((f for f in flags if f in _PROPAGATIONS), "rprivate")
    Path(source).mkdir(parents=True, exist_ok=True) if not os.path.lexists(source) else None
    bind = {"Propagation": propagation}
    source = posixpath.normpath(source)
    return MountRequest(type="bind", source=source, target=target, read_only=read_only, bind_options=bind), mode


def _checked(request: MountRequest) -> MountRequest:
    target = _absolute(request.target)
    options = request.bind_options or {}
    if request.type == "bind":
        if not request.source.startswith("/"):
            raise InvalidMount('invalid mount config for type "bind": invalid mount path: mount path must be absolute')
        if not os.path.exists(request.source):
            if not options.get("CreateMountpoint"):
                raise InvalidMount(
                    f'invalid mount config for type "bind": bind source path does not exist: {request.source}'
                )
            Path(request.source).mkdir(parents=True)
    elif request.type not in ("volume", "tmpfs"):
        if request.type in ("image", "npipe", "cluster"):
            raise UnsupportedOption(f"mount type {request.type!r}")
        raise InvalidMount(f'invalid mount config for type "{request.type}": mount type unknown')
    if (request.volume_options or {}).get("Subpath"):
        raise UnsupportedOption("volume-subpath")
    if (request.volume_options or {}).get("DriverConfig"):
        _check_driver((request.volume_options or {})["DriverConfig"])
    return MountRequest(
        type=request.type,
        source=request.source,
        target=target,
        read_only=request.read_only,
        bind_options=request.bind_options,
        volume_options=request.volume_options,
        tmpfs_options=request.tmpfs_options,
    )


def _check_driver(driver: dict[str, Any]) -> None:
    if driver.get("Name") not in (None, "", "local") or driver.get("Options"):
        raise UnsupportedOption("volume driver options")


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidMount(f"invalid mount path: '{path}' mount path must be absolute")
    normal = posixpath.normpath(path)
    if normal in ("/", "//"):
        raise InvalidMount("invalid specification: destination can't be '/'")
    return normal


def _volume_labels(request: MountRequest) -> dict[str, str]:
    labels = (request.volume_options or {}).get("Labels") or {}
    return {str(k): str(v) for k, v in labels.items()}


def _volume_point(request: MountRequest, volume: Volume, mode: str) -> MountPoint:
    return MountPoint(
        type="volume",
        name=volume.name,
        source=str(volume.path),
        destination=request.target,
        driver="local",
        mode=mode or "z",
        rw=not request.read_only,
    )


def _point(request: MountRequest, mode: str) -> MountPoint:
    if request.type == "tmpfs":
        return MountPoint(type="tmpfs", destination=request.target, mode=_tmpfs_mode(request), rw=not request.read_only)
    propagation = (request.bind_options or {}).get("Propagation") or "rprivate"
    return MountPoint(
        type="bind",
        source=request.source,
        destination=request.target,
        mode=mode,
        rw=not request.read_only,
        propagation=propagation,
    )


def _tmpfs_mode(request: MountRequest) -> str:
    options = request.tmpfs_options or {}
    if isinstance(options.get("Options"), str):
        return str(options["Options"])
    parts = [f"size={options['SizeBytes']}"] if options.get("SizeBytes") else []
    parts += [f"mode={options['Mode']:o}"] if options.get("Mode") else []
    return ",".join(parts + (["ro"] if request.read_only else []))
