"""Archives that docker takes are taken, hostile ones are not, and neither costs the daemon anything."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hostile_tars import END, header
from image_shop import Shop, archive, chunks, config_of, sha, tar_of
from lamina.content import BlobDamaged, BlobNotFound
from lamina.errors import InvalidArgument, LaminaError
from lamina.image.errors import ImageNotFound, InvalidArchive
from lamina.image.rootfs import import_rootfs
from lamina.layer.errors import InvalidLayer
from lamina.layer.ingest import Limits

ONE = tar_of({"a": b"1"})


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = await Shop.open(tmp_path)
    yield made
    await made.database.close()


@pytest.mark.parametrize(
    "layer", [ONE, tar_of({"[id].js": b"x"}), tar_of({"{{x}}/b": b"x"}), bytes(1024), b"", header(b"a", 3) + b"123"]
)
@pytest.mark.parametrize("packed", [False, True])
async def test_layers_of_any_size_and_first_name_are_told_from_documents(
    shop: Shop, layer: bytes, packed: bool
) -> None:
    stored = [gzip.compress(layer)] if packed else [layer]
    (loaded,) = await shop.load(archive([layer], stored=stored))
    assert [d.hex for d in loaded.image.config.diff_ids] == [sha(layer)]
    assert shop.leftovers() == []


async def test_documents_are_bounded_together(shop: Shop) -> None:
    bomb = tar_of({f"d{n}": b"{" + bytes(4 << 20) for n in range(17)} | {"manifest.json": b"[]"})
    with pytest.raises(InvalidArchive, match="documents"):
        await shop.load(gzip.compress(bomb, 1))
    assert shop.leftovers() == []


async def test_what_no_manifest_names_does_not_come_out_of_the_worker(tmp_path: Path) -> None:
    import os
    import pickle

    from lamina.image.load import read_archive

    files = {f"unused{n}.json": b"{}" + bytes(1 << 20) for n in range(8)}
    layers = [ONE]
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["l"]}]
    (tmp_path / "a.tar").write_bytes(
        tar_of(files | {"c.json": config_of(layers), "l": ONE, "manifest.json": json.dumps(manifest).encode()})
    )
    fd = os.open(tmp_path / "a.tar", os.O_RDONLY)
    try:
        assert len(pickle.dumps(read_archive(fd, tmp_path, Limits(), {}))) < 10_000
    finally:
        os.close(fd)


async def test_the_limit_of_a_layer_bounds_archives_too(tmp_path: Path) -> None:
    shop = await Shop.open(tmp_path, Limits(tar_bytes=100_000))
    with pytest.raises(InvalidArchive, match="100000"):
        await shop.load_one(tar_of({"big": bytes(200_000)}))
    with pytest.raises(LaminaError, match="larger than"):
        await shop.load(gzip.compress(archive([ONE]) + bytes(10_000_000)))
    assert shop.leftovers() == []
    assert shop.blobs() == set()
    await shop.database.close()


@pytest.mark.parametrize(
    "layers",
    [
        [header(b"a", 0, b"1", b"nope") + END],
        [header(b"a", 0, b"1", b"b") + header(b"b", 0, b"1", b"a") + END],
        [ONE, tar_of({"b": b""}) + b"", header(b"a", 0, b"1", b"nope") + END],
    ],
)
async def test_layers_that_could_not_be_mounted_are_refused_when_they_come(shop: Shop, layers: list[bytes]) -> None:
    with pytest.raises(InvalidArgument, match="hard link"):
        await shop.load_one(*layers)
    assert (shop.blobs(), shop.leftovers(), list(shop.images)) == (set(), [], [])


async def test_an_import_that_could_not_be_mounted_is_refused(shop: Shop) -> None:
    with pytest.raises(InvalidLayer, match="hard link"):
        tar = chunks(header(b"a", 0, b"1", b"nope") + END)
        await import_rootfs(shop.images, shop.intake, tar, source="-", run={})
    assert (shop.blobs(), shop.leftovers()) == (set(), [])


async def test_chains_of_hard_links_to_a_lower_layer_are_taken(shop: Shop) -> None:
    upper = header(b"x", 0, b"1", b"y") + header(b"y", 0, b"1", b"a") + END
    assert (await shop.load_one(ONE, upper)).config.diff_ids


@pytest.mark.parametrize(
    ("fields", "name", "reason"),
    [
        ({"os": "windows"}, "img:1", "cannot load windows image on linux"),
        ({"history": [{"created_by": "x"}] * 3}, "img:1", "too many non-empty layers"),
        ({}, "img", "invalid tag"),
    ],
)
async def test_what_docker_refuses_to_load_is_refused(
    shop: Shop, fields: dict[str, Any], name: str, reason: str
) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        await shop.load(archive([ONE], name, **fields))


async def test_one_image_under_several_entries_has_all_their_names(shop: Shop) -> None:
    entry = {"Config": "c.json", "Layers": ["l"]}
    manifest = [entry | {"RepoTags": [f"img:{n}"]} for n in range(3)]
    data = tar_of({"c.json": config_of([ONE]), "l": ONE, "manifest.json": json.dumps(manifest).encode()})
    (loaded,) = await shop.load(data)
    assert [n.familiar for n in loaded.names] == ["img:0", "img:1", "img:2"]


async def test_loading_again_repairs_what_was_damaged(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    for digest in (image.config.diff_ids[0], image.image_id):
        path = shop.content.path(digest)
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(b"?" + data[1:])
        await shop.load_one(ONE)
        assert path.read_bytes() == data
    assert shop.leftovers() == []


async def test_a_save_tells_of_missing_blobs_at_once_and_ends_at_damaged_ones(shop: Shop) -> None:
    image = await shop.load_one(ONE)
    path = shop.content.path(image.config.diff_ids[0])
    path.chmod(0o644)
    path.write_bytes(b"?" * len(ONE))
    with pytest.raises(BlobDamaged):
        await shop.saved("img:1")
    path.unlink()
    with pytest.raises(BlobNotFound):
        await shop.saved("img:1")


async def test_a_repository_alone_saves_all_its_tags(shop: Shop) -> None:
    await shop.load_one(ONE, name="repo:1")
    await shop.load_one(tar_of({"b": b"2"}), name="repo:2")
    await shop.load_one(ONE, name="other:1")
    data = await shop.saved("repo")
    other = await Shop.open(shop.root / "other")
    names = [n.familiar for loaded in await other.load(data) for n in loaded.names]
    assert sorted(names) == ["repo:1", "repo:2"]
    await other.database.close()
    with pytest.raises(ImageNotFound, match=r"No such image: nope$"):
        await shop.saved("nope")
