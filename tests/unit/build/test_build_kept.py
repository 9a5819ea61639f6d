"""What of that which builds keep may go."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.build.cache.kept import CacheItem, PruneRequest, choose, marked
from lamina.build.context.directory import ContextDigests
from lamina.build.run.cache_mounts import CacheMounts
from lamina.build.run.mounts import RunMount

ITEMS = [
    CacheItem("a", "regular", "RUN a", 100, 0, 10),
    CacheItem("b", "regular", "RUN b", 50, 0, 20, shared=True),
    CacheItem("c", "exec.cachemount", "cached mount /c", 30, 0, 30),
    CacheItem("d", "regular", "RUN d", 20, 0, 40, in_use=True),
]


def chosen(request: PruneRequest, free_bytes: int = 0) -> str:
    return "".join(item.id for item in choose(ITEMS, request, free_bytes))


def test_what_is_in_use_stays_and_what_an_image_has_unless_all_is_asked_for() -> None:
    assert chosen(PruneRequest()) == "ac"
    assert chosen(PruneRequest(everything=True)) == "abc"


def test_what_was_used_since_the_time_stays() -> None:
    assert chosen(PruneRequest(used_before_ns=30)) == "a"


def test_fields_choose() -> None:
    assert chosen(PruneRequest(fields={"type": "exec.cachemount"})) == "c"
    assert chosen(PruneRequest(fields={"id": "a"})) == "a"
    assert chosen(PruneRequest(everything=True, fields={"shared": ""})) == "b"
    assert chosen(PruneRequest(everything=True, fields={"private": ""})) == "ac"
    assert chosen(PruneRequest(fields={"inuse": ""})) == ""


def test_the_longest_unused_goes_until_the_bound_is_met() -> None:
    assert chosen(PruneRequest(maximum_bytes=60)) == "a"
    assert chosen(PruneRequest(reserved_bytes=150)) == ""
    assert chosen(PruneRequest(reserved_bytes=40)) == "ac"
    assert chosen(PruneRequest(maximum_bytes=10, reserved_bytes=60)) == "a", "what is reserved stays"


def test_no_more_goes_than_the_disk_needs() -> None:
    assert chosen(PruneRequest(minimum_free_bytes=100), free_bytes=100) == ""
    assert chosen(PruneRequest(minimum_free_bytes=100), free_bytes=10) == "a"


def test_what_was_used_since_a_running_build_began_is_in_use() -> None:
    assert [item.id for item in marked(ITEMS, 30) if item.in_use] == ["c", "d"]
    assert [item.id for item in marked(ITEMS, None) if item.in_use] == ["d"]


async def test_a_cache_mount_that_a_step_has_stays(tmp_path: Path) -> None:
    caches = CacheMounts(tmp_path)
    mount = RunMount.of((("type", "cache"), ("target", "/c")))
    async with caches.use(mount) as path:
        (path / "file").write_bytes(bytes(5000))
        (item,) = await caches.items()
        assert (item.description, item.in_use) == ("cached mount /c", True)
        assert await caches.remove([item.id], 1 << 62) == 0
    (item,) = await caches.items()
    assert item.size_bytes >= 5000
    assert not item.in_use
    assert await caches.remove([item.id], item.used_ns) == 0, "used since then"
    assert await caches.remove([item.id], item.used_ns + 1) == item.size_bytes
    assert await caches.items() == []
    assert os.listdir(tmp_path) == []


async def test_the_digests_of_a_context_are_in_use_from_the_beginning_of_a_build(tmp_path: Path) -> None:
    contexts = ContextDigests(tmp_path / "contexts")
    assert await contexts.items() == []
    path = contexts.path_for(tmp_path)
    path.write_bytes(b"digests")
    os.utime(path, ns=(5, 5))
    (item,) = await contexts.items()
    assert (item.size_bytes, item.used_ns) == (7, 5)
    assert contexts.path_for(tmp_path) == path
    assert await contexts.remove([item.id], 6) == 0, "used meanwhile"
    assert await contexts.remove([item.id], 1 << 62) == 7
    assert await contexts.items() == []
