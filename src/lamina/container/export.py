"""Export: what a container sees as its root, as one tar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from lamina.container import init_layer
from lamina.container.record import NEVER, Record
from lamina.content import ContentStore
from lamina.layer.diff import write_diff
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import DiffID, Digest
from lamina.snapshot import Snapshots

_READ_BYTES = 1 << 20


async def export_rootfs(record: Record, snapshots: Snapshots, content: ContentStore) -> AsyncIterator[bytes]:
    """The tar's bytes. Volumes and what the runtime mounts are not part of it: it is written from below them.

    The tar is written whole before its first byte is given, so that a failure leaves no half of one.
    """
    tar, tree = content.temporary_path(), content.temporary_path()
    try:
        async with snapshots.mounted(record.id, [DiffID(Digest(d)) for d in record.diff_ids]) as rootfs:
            if record.state.started_at == NEVER:
                init_layer.mark(rootfs)
            init_layer.make_places(rootfs)
            owner_in = record.idmap.to_container if record.idmap is not None else None
            await run_in_worker(write_diff, (), rootfs, tar, tree, owner_in=owner_in)
        with open(tar, "rb") as file:  # noqa: ASYNC230 - opening a local file does not wait
            while data := await asyncio.to_thread(file.read, _READ_BYTES):
                yield data
    finally:
        tar.unlink(missing_ok=True)
        tree.unlink(missing_ok=True)
