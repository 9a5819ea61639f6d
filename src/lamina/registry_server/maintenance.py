"""What a registry does for itself from time to time: retention, garbage, and scrubbing."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from lamina.registry_server.catalog import Catalog
from lamina.registry_server.retention import Policies, retain
from lamina.registry_server.scrub import scrub
from lamina.registry_server.settings import Settings
from lamina.registry_server.storage import Storage
from lamina.state import Database

_log = logging.getLogger("lamina.registry")
_COLLECTED_AT_ONCE = 200
_STRAY_S = 86400.0


async def maintain(database: Database, storage: Storage, catalog: Catalog, settings: Settings) -> None:
    """What is done again and again, by the first process: retention and garbage, and scrubbing."""

    async def tidy() -> None:
        await apply_policies(database, settings)
        await catalog.recover()
        await collect(catalog, settings)
        await remove_strays(catalog)

    async def look() -> None:
        await scrub(database, storage, settings.scrub_bytes_per_s)

    async with asyncio.TaskGroup() as tasks:
        for work, every_s in ((tidy, settings.collect_every_s), (look, settings.scrub_every_s)):
            if every_s:
                tasks.create_task(_often(work, every_s))


async def _often(work: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        try:
            await work()
        except Exception:
            _log.exception("maintenance failed")
        await asyncio.sleep(every_s)


async def apply_policies(database: Database, settings: Settings, *, dry_run: bool = False) -> list[str]:
    """Remove what no policy keeps; returns it."""
    if settings.policies is None:
        return []
    gone = await retain(database, Policies.read(settings.policies), dry_run=dry_run)
    for name in gone:
        _log.info("%s %s by policy", "would remove" if dry_run else "removed", name)
    return gone


async def collect(catalog: Catalog, settings: Settings, *, dry_run: bool = False) -> tuple[int, int]:
    """Collect all garbage, in steps that others can write between; returns how many blobs, and their bytes."""
    blobs = freed = 0
    if not dry_run:
        await catalog.forget_uploads(time.time() - settings.stale_upload_s)
    at_once = sys.maxsize if dry_run else _COLLECTED_AT_ONCE
    while True:
        found = await catalog.collect(time.time() - settings.unused_s, at_once, dry_run=dry_run)
        blobs, freed = blobs + len(found.blobs), freed + found.freed_bytes
        if dry_run or not (found.links or found.blobs):
            return blobs, freed


async def remove_strays(catalog: Catalog) -> None:
    """Remove what a kill left between a file and its row, once nobody can be at work with it."""
    await catalog.remove_strays(time.time() - _STRAY_S)
