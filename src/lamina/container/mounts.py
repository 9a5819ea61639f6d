"""What a container has mounted beside its root: binds, volumes and tmpfs, made ready, and told to the runtime."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lamina.container import bundle_mounts
from lamina.container.config import ContainerConfig, HostConfig
from lamina.container.errors import ContainerNotFound
from lamina.container.mount_requests import InvalidMount, MountRequest, mount_requests
from lamina.container.record import ImageMount, MountPoint, Record
from lamina.container.store import ContainerStore
from lamina.errors import LaminaError
from lamina.image.store import Image
from lamina.linux import paths, processes
from lamina.linux.deletion import remove_tree
from lamina.linux.files import temporary_name
from lamina.runtime.settings import Mount
from lamina.volume import Hold, Volume, VolumeStore


@dataclass(frozen=True)
class MountPlan:
    """The mounts of a container to be: what ``inspect`` shows, the volumes that are to get the image's content, missing directories."""

    points: list[MountPoint]
    to_fill: list[tuple[Volume, str]]
    anonymous: list[str]
    to_make: list[str]
    images: dict[str, ImageMount]

    def make_sources(self) -> None:
        """Make the host's directories that are to be bound and are not there; last, as they stay. Raises InvalidMount."""
        for source in self.to_make:
            try:
                Path(source).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidMount(
                    f"error while creating mount source path '{source}': mkdir {source}: {str(error.strerror).lower()}"
                ) from None


async def plan_mounts(
    config: ContainerConfig,
    host: HostConfig,
    inherited: Sequence[MountPoint],
    volumes: VolumeStore,
    hold: Hold,
    find_image: Callable[[str], Image],
) -> MountPlan:
    """Look for what a container's mounts need, and make its volumes, which are held. Raises InvalidMount or UnsupportedOption.

    *find_image* finds an image that is to be mounted; it raises LaminaError.
    """
    points, to_fill, anonymous, to_make = [], [], [], []
    images: dict[str, ImageMount] = {}
    shared = {point.name for point in inherited}
    for target, request in sorted(mount_requests(config, host, inherited).items()):
        if request.kind == "bind":
            if _is_missing(request):
                to_make.append(request.source)
            points.append(_point(request, request.source))
        elif request.kind == "volume":
            fresh = request.source not in volumes
            volume = await hold.create(request.source or None, dict(request.labels), dict(request.driver_options))
            # of those who share a volume without a name, the last one takes it away
            if not request.source or (volume.anonymous and volume.name in shared):
                anonymous.append(volume.name)
            if request.copies and (fresh or volume.options or not any(volume.path.iterdir())):
                to_fill.append((volume, target))
            points.append(_point(request, str(volume.path), volume.name))
        elif request.kind == "image":
            images[target] = _image_mount(request, find_image)
            points.append(_point(request, request.source))
        elif request.shown:
            points.append(_point(request, ""))
    return MountPlan(points, to_fill, anonymous, to_make, images)


def inherited_points(texts: Sequence[str], containers: ContainerStore) -> list[MountPoint]:
    """The mounts that ``--volumes-from CONTAINER[:MODE]`` brings; of two at one place the later one's. Raises InvalidMount."""
    found: dict[str, MountPoint] = {}
    for text in texts:
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z", "ro,z", "ro,Z", "rw,z", "rw,Z"):
            raise InvalidMount(f"invalid mode: {mode}")
        try:
            donor = containers.find(name)
        except ContainerNotFound as error:
            raise InvalidMount(error.message) from None  # what is not found is the image, as clients understand it
        for point in donor.mounts:
            if point.type in ("bind", "volume"):
                read_write = point.rw and not mode.startswith("ro")
                found[point.destination] = msgspec.structs.replace(point, rw=read_write, mode="")
    return list(found.values())


def runtime_mounts(
    record: Record, bundle: Path, images: Mapping[str, Sequence[int]], *, recursive_read_only: bool
) -> Iterator[Mount]:
    """A container's mounts in the runtime's words. A bind whose source has vanished is the runtime's to complain about.

    Parts of volumes are bound, and *images* (layers by target) mounted, below the *bundle*. *recursive_read_only* tells whether kernel
    and runtime can make all mounts of a tree read-only. Raises InvalidMount if one was to be so in any case.
    """
    sources = {point.destination: point.source for point in record.mounts}
    requests = mount_requests(record.config, record.host_config, record.mounts)
    for number, (target, request) in enumerate(requests.items()):
        access = ["ro"] if request.read_only else []
        if request.kind == "tmpfs":
            yield Mount(target, "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", *request.options, *access])
            continue
        if request.read_only and request.read_only_below != "without":
            if recursive_read_only:
                access = ["ro", "rro"]
            elif request.read_only_below == "with":
                raise InvalidMount(f"{target}: recursive read-only mounts are not supported by this kernel or runtime")
        kind = "rbind" if request.recursive else "bind"
        source = sources[target]
        if request.kind == "image":
            source = bundle_mounts.mount_image(images[target], bundle, number)
        if request.subpath:
            source = bundle_mounts.bind_part(source, request.subpath, bundle, number)
        yield Mount(target, "bind", source, [kind, *(access or ["rw"]), request.propagation])


async def fill_volume(volume: Volume, rootfs: Path, target: str, *, in_use: bool) -> None:
    """Copy what the image has at *target* into an empty volume, with owners, modes and the directory's own attributes.

    It is copied beside the volume's directory and takes its place, as half of it, after a crash, would never be made whole. Where a
    process has the directory mounted (*in_use*) it has to be that one. Raises InvalidMount if the image has a file there.
    """
    try:
        source = paths.open_in_root(rootfs, target, os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError:
        raise InvalidMount(f"cannot mount volume over existing file, file exists {target}") from None
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


def _image_mount(request: MountRequest, find_image: Callable[[str], Image]) -> ImageMount:
    try:
        image = find_image(request.source)
    except LaminaError as error:
        # what is not found is the container's own image, as clients understand it
        raise InvalidMount(f'invalid mount config for type "image": {error.message}') from None
    return ImageMount(image_id=str(image.image_id), diff_ids=[str(d) for d in image.config.diff_ids])


def _is_missing(request: MountRequest) -> bool:
    """Whether a bind's source is to be made. Raises InvalidMount if it is not there and not to be made."""
    if os.path.lexists(request.source) if request.make_source else os.path.exists(request.source):
        return False
    if not request.make_source:
        reason = f"bind source path does not exist: {request.source}"
        raise InvalidMount(f'invalid mount config for type "bind": {reason}')
    return True


def _point(request: MountRequest, source: str, volume: str = "") -> MountPoint:
    return MountPoint(
        type=request.kind,
        name=volume,
        source=source,
        destination=request.target,
        driver="local" if request.kind == "volume" else "",
        mode=request.mode,
        rw=not request.read_only,
        propagation=request.propagation if request.kind == "bind" else "",
    )
