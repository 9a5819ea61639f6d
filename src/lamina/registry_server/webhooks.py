"""Webhooks: others are told of what is pushed and removed, in the form of docker's registry (its notifications' envelope).

Told in the background, in order for each URL, several times if need be; what waits is lost with the process, and what waits too long in
a full queue is dropped and logged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import msgspec
import urllib3

from lamina.oci.digest import Digest

_MEDIA_TYPE = "application/vnd.docker.distribution.events.v1+json"
_MOST_WAITING = 1000
_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.5
_log = logging.getLogger("lamina.registry")


@dataclass(frozen=True)
class Happened:
    """A manifest, or a tag, was pushed or removed by somebody."""

    action: Literal["push", "delete"]
    repository: str
    user: str
    digest: Digest | None = None
    tag: str | None = None
    media_type: str = ""
    size: int = 0


class Webhooks:
    """Tells URLs; without any it does nothing."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._threads = ThreadPoolExecutor(max(1, len(urls)), thread_name_prefix="webhook")
        self._queues = {url: asyncio.Queue[bytes](_MOST_WAITING) for url in urls}
        self._tasks = [asyncio.create_task(self._deliver(url, queue)) for url, queue in self._queues.items()]

    def tell(self, happened: Happened) -> None:
        """Note something to be told."""
        for url, queue in self._queues.items():
            try:
                queue.put_nowait(_envelope(happened))
            except asyncio.QueueFull:
                _log.error(
                    "webhook %s is too far behind: %s of %s is not told", url, happened.action, happened.repository
                )

    async def close(self, timeout_s: float) -> None:
        """Tell what waits, for a moment."""
        waiting = [asyncio.ensure_future(queue.join()) for queue in self._queues.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        for task in (*waiting, *self._tasks):
            task.cancel()
        await asyncio.gather(*waiting, *self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _deliver(self, url: str, queue: asyncio.Queue[bytes]) -> None:
        pool = urllib3.PoolManager(retries=False, timeout=10)
        while True:
            body = await queue.get()
            for attempt in range(_ATTEMPTS):
                if await asyncio.get_running_loop().run_in_executor(self._threads, _post, pool, url, body):
                    break
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
            else:
                _log.error("webhook %s does not take an event", url)
            queue.task_done()


def _post(pool: urllib3.PoolManager, url: str, body: bytes) -> bool:
    try:
        response = pool.request("POST", url, body=body, headers={"Content-Type": _MEDIA_TYPE})
    except (urllib3.exceptions.HTTPError, ValueError):
        return False
    return 200 <= response.status < 300


def _envelope(happened: Happened) -> bytes:
    target = {
        "mediaType": happened.media_type,
        "digest": str(happened.digest or ""),
        "size": happened.size,
        "length": happened.size,
        "repository": happened.repository,
        "tag": happened.tag or "",
    }
    event = {
        "id": secrets.token_hex(16),
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "action": happened.action,
        "target": {name: value for name, value in target.items() if value},
        "actor": {"name": happened.user} if happened.user else {},
    }
    return msgspec.json.encode({"events": [event]})
