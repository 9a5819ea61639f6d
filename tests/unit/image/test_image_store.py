"""Names, holds, removal by docker's rules, damage, and what a list shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image_shop import Shop, ref, tar_of
from lamina.image.errors import ImageDamaged, ImageHeld, ImageInUse, ImageNotFound, LastNameInUse
from lamina.image.listing import ImageQuery, InvalidPattern, select_images
from lamina.image.removal import ImageUser
from lamina.image.store import Image
from lamina.image.verify import verify
from lamina.state.database import WriteFailed

ONE, TWO = tar_of({"a": b"1"}), tar_of({"b": b"2"})
STOPPED, RUNNING = ImageUser("c" * 64, running=False), ImageUser("d" * 64, running=True)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = await Shop.open(tmp_path)
    yield made
    await made.database.close()


async def dangling(shop: Shop, layer: bytes = ONE) -> Image:
    image = await shop.load_one(layer, name="gone:1")
    await shop.images.untag([ref("gone:1")])
    return image


async def test_an_id_with_two_tags_of_one_repository_needs_force(shop: Shop) -> None:
    image = await shop.load_one(ONE, name="repo:1")
    await shop.images.tag(image.image_id, [ref("repo:2")])
    with pytest.raises(ImageInUse, match=r"must be forced\) - image is referenced in multiple repositories"):
        await shop.removal.remove(image.image_id.hex[:12])
    removed = await shop.removal.remove(image.image_id.hex[:12], force=True)
    assert removed.untagged == (("repo:1", image.image_id), ("repo:2", image.image_id))
    assert removed.deleted == (image.image_id,)
    assert shop.blobs() == set()


async def test_the_last_name_of_an_image_with_a_container_needs_force(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    shop.users[image.image_id] = [STOPPED]
    with pytest.raises(LastNameInUse) as raised:
        await shop.removal.remove("img:1")
    short = image.image_id.hex[:12]
    assert str(raised.value) == (
        'conflict: unable to remove repository reference "img:1" (must force) - '
        f"container cccccccccccc is using its referenced image {short}"
    )


async def test_force_takes_the_last_name_away_from_under_a_running_container(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    shop.users[image.image_id] = [RUNNING]
    removed = await shop.removal.remove("img:1", force=True)
    assert (removed.untagged, removed.deleted) == ((("img:1", image.image_id),), ())
    assert image.image_id in shop.images
    with pytest.raises(ImageInUse, match="cannot be forced"):
        await shop.removal.remove(str(image.image_id), force=True)


async def test_force_deletes_an_image_from_under_a_stopped_container_which_keeps_its_layers(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    shop.users[image.image_id] = [STOPPED]
    shop.stacks.append(image.config.diff_ids)
    removed = await shop.removal.remove(str(image.image_id), force=True)
    assert (removed.untagged, removed.deleted) == ((("img:1", image.image_id),), (image.image_id,))
    assert shop.blobs() == {image.config.diff_ids[0].hex}
    assert shop.lowers.kept == [image.config.diff_ids]
    shop.stacks.clear()
    await shop.removal.collect_garbage()
    assert shop.blobs() == set()


async def test_a_prune_leaves_what_was_tagged_since_it_looked(shop: Shop) -> None:
    first, second = await dangling(shop), await dangling(shop, TWO)
    candidates = [item.image for item in select_images(shop.images, ImageQuery(dangling=True))]
    await shop.images.tag(second.image_id, [ref("saved:1")])
    removed = await shop.removal.prune(candidates)
    assert removed.deleted == (first.image_id,)
    assert shop.images.find("saved:1").image_id == second.image_id
    assert (await shop.removal.prune(candidates, named=True)).deleted == (second.image_id,)


async def test_a_prune_beside_tagging_leaves_every_image_whole_or_gone(shop: Shop) -> None:
    images = [await dangling(shop, tar_of({f"f{n}": b"x"})) for n in range(12)]

    async def tag(image: Image) -> bool:
        await asyncio.sleep(0)
        try:
            await shop.images.tag(image.image_id, [ref(f"t:{image.image_id.hex[:8]}")])
        except ImageNotFound:
            return False
        return True

    pruning = asyncio.ensure_future(shop.removal.prune(images))
    tagged = await asyncio.gather(*map(tag, images))
    removed = await pruning
    for image, kept in zip(images, tagged, strict=True):
        assert kept == (image.image_id in shop.images)
        assert kept == (image.image_id not in removed.deleted)
        assert all(shop.content.exists(blob) for blob in image.blobs) == kept
    known = {i.image_id for i in shop.images}
    await shop.reopen()
    assert {i.image_id for i in shop.images} == known


async def test_an_image_that_is_being_deleted_is_gone_for_everybody(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    going = asyncio.ensure_future(shop.images.forget(image.image_id))
    await asyncio.sleep(0)
    with pytest.raises(ImageNotFound):
        await shop.images.tag(image.image_id, [ref("late:1")])
    with pytest.raises(ImageNotFound), shop.images.hold(image.image_id):
        pass
    await going


async def test_an_image_that_is_deleted_and_loaded_at_once_is_there_in_the_end(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    await asyncio.gather(shop.removal.remove("img:1"), shop.load_one(ONE))
    assert "img:1" in [n.familiar for n in shop.images.names(image.image_id)] or image.image_id not in shop.images
    whole = image.image_id in shop.images
    assert all(shop.content.exists(blob) for blob in image.blobs) == whole


async def test_a_held_image_is_only_untagged(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    with shop.images.hold(image.image_id) as hold:
        other = await dangling(shop, TWO)
        hold.add(other.image_id)
        removed = await shop.removal.remove("img:1", force=True)
        assert (removed.untagged, removed.deleted) == ((("img:1", image.image_id),), ())
        assert (await shop.removal.prune(list(shop.images))).deleted == ()
        with pytest.raises(ImageInUse, match="used by a build"):
            await shop.removal.remove(str(image.image_id), force=True)
        with pytest.raises(ImageHeld):
            await shop.images.forget(image.image_id)
    assert len((await shop.removal.prune(list(shop.images))).deleted) == 2


@pytest.mark.parametrize("what", ["config", "manifest"])
async def test_a_damaged_image_does_not_keep_the_store_from_opening(shop: Shop, what: str) -> None:
    image, other = await shop.load_one(ONE, TWO), await shop.load_one(TWO, name="other:1")
    digest = image.image_id if what == "config" else image.manifest.descriptor.digest
    path = shop.content.path(digest)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"?")
    await shop.reopen()
    assert [i.image_id for i in shop.images] == [other.image_id]
    with pytest.raises(ImageDamaged):
        shop.images.find("img:1")
    before = shop.blobs()
    await shop.removal.collect_garbage()
    await shop.removal.remove("other:1")
    assert shop.blobs() >= {blob.hex for blob in image.blobs}
    assert len(before - shop.blobs()) == 2
    image_id, _ = shop.images.find_named("img:1")
    statuses = {b.kind: b.status async for b in verify(shop.images.stored(image_id), shop.content)}
    assert statuses[what] == "damaged"  # type: ignore[index]
    await shop.load_one(ONE, TWO)
    assert shop.images.find("img:1").image_id == image.image_id
    await shop.reopen()
    assert [i.image_id for i in shop.images] == [image.image_id]


async def test_a_damaged_image_can_be_removed(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    shop.content.path(image.image_id).unlink()
    await shop.reopen()
    assert (await shop.removal.remove("img:1")).deleted == (image.image_id,)
    assert shop.blobs() == set()


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("repo", ["repo:1", "repo:2"]),
        ("repo:1", ["repo:1"]),
        ("re*", ["repo:1", "repo:2"]),
        ("*:2", ["me/app:2", "repo:2"][1:]),
        ("*", ["repo:1", "repo:2"]),
        ("me/*", ["me/app:2"]),
        ("docker.io/library/repo", []),
        ("repo:[1]", ["repo:1"]),
    ],
)
async def test_a_list_shows_the_names_that_match_alone(shop: Shop, pattern: str, shown: list[str]) -> None:
    image = await shop.load_one(ONE, name="repo:1")
    await shop.images.tag(image.image_id, [ref("repo:2"), ref("me/app:2")])
    listed = select_images(shop.images, ImageQuery(references=[pattern]))
    assert [n.familiar for item in listed for n in item.names] == shown


async def test_a_pattern_that_is_none_is_an_error(shop: Shop) -> None:
    await shop.load_one(ONE)
    with pytest.raises(InvalidPattern, match="syntax error in pattern"):
        select_images(shop.images, ImageQuery(references=["a["]))


async def test_lists_go_by_the_time_at_which_images_were_made(shop: Shop) -> None:
    times = {"new": "2022-01-01T00:00:00.000000002Z", "old": "2001-01-01T02:00:00+02:00", "mid": "2022-01-01T00:00:00Z"}
    for name, created in times.items():
        await shop.load_one(tar_of({name: b""}), name=f"{name}:1", created=created)

    def names(query: ImageQuery) -> list[str]:
        return [n.familiar for item in select_images(shop.images, query) for n in item.names]

    assert names(ImageQuery()) == ["new:1", "mid:1", "old:1"]
    assert names(ImageQuery(since="old:1")) == ["new:1", "mid:1"]
    assert names(ImageQuery(before="mid:1")) == ["old:1"]
    assert names(ImageQuery(until_ns=978_307_200 * 10**9)) == ["old:1"]
    assert names(ImageQuery(until_ns=978_307_199 * 10**9)) == []


async def test_an_index_that_cannot_be_written_does_not_keep_an_image(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await shop.load_one(ONE)

    def fail(manifests: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(shop.images._content, "write_index", fail)
    removed = await shop.removal.remove("img:1")
    assert (removed.deleted, image.image_id in shop.images) == ((image.image_id,), False)


async def test_an_image_whose_row_stays_is_there_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    image = await shop.load_one(ONE)

    async def fail(*args: object, **options: object) -> None:
        raise WriteFailed(Path("db"), "disk I/O error")

    monkeypatch.setattr(shop.images._database, "write", fail)
    with pytest.raises(WriteFailed):
        await shop.images.forget(image.image_id)
    assert shop.images.find("img:1").image_id == image.image_id
