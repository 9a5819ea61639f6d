"""What takes the disk: layers, containers, volumes and the build cache, counted so that together they are what ``du`` says of the root."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from lamina.build.cache.kept import CacheItem
from lamina.container.log_files import total_bytes
from lamina.container.record import Record
from lamina.engine.engine import Engine
from lamina.linux.files import bytes_below
from lamina.volume import Volume


@dataclass(frozen=True)
class ContainerUse:
    """A container's read-write layer and its log, in bytes."""

    record: Record
    written: int
    log: int


@dataclass(frozen=True)
class VolumeUse:
    """A volume's files in bytes, those of its snapshots included, and how many containers refer to it."""

    volume: Volume
    size: int
    containers: int


async def layers_bytes(engine: Engine) -> int:
    """Bytes of all that images are made of, each layer once: tars, what came compressed, JSON, indexes and trees."""
    blobs = engine.images.blobs_in_use()
    stored = sum(engine.content.size(digest) for digest in blobs if engine.content.exists(digest))
    return stored + await asyncio.to_thread(_derived_bytes, engine.options.root.absolute() / "snapshot")


async def containers_use(engine: Engine) -> list[ContainerUse]:
    """What each container takes."""

    def measure(record: Record) -> ContainerUse:
        written = engine.snapshots.size_bytes(record.id)
        return ContainerUse(record, written, total_bytes(engine.processes.log_path(record.id)))

    return await asyncio.to_thread(lambda: [measure(record) for record in engine.containers])


async def volumes_use(engine: Engine) -> list[VolumeUse]:
    """What each volume takes."""
    users = [{point.name for point in record.mounts} for record in engine.containers]

    def measure(volume: Volume) -> VolumeUse:
        return VolumeUse(volume, bytes_below(volume.path.parent), sum(volume.name in names for names in users))

    return await asyncio.to_thread(lambda: [measure(volume) for volume in engine.volumes])


async def cache_use(engine: Engine) -> list[CacheItem]:
    """What builds keep for later ones."""
    return list(await engine.builder.kept())


def _derived_bytes(snapshots: Path) -> int:
    """What the drivers have made of the layers."""
    return sum(bytes_below(path) for path in snapshots.iterdir() if path.name != "rw")
