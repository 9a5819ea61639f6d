"""An image store on a directory of its own, with everything around it that is real but the mounts."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.content import ContentStore
from lamina.image import store as image_store
from lamina.image.intake import LayerIntake
from lamina.image.load import Loaded, load
from lamina.image.removal import ImageRemoval, ImageUser
from lamina.image.save import save, select
from lamina.image.store import Image, ImageStore
from lamina.layer.ingest import Limits
from lamina.oci.digest import DiffID, ImageID
from lamina.oci.reference import Reference
from lamina.snapshot import LayerTrees
from lamina.state import Database


class NoLowers:
    """A driver that mounts nothing and remembers what it was to keep."""

    name = "none"

    def __init__(self) -> None:
        self.kept: list[Sequence[DiffID]] = []

    async def lower(self, diff_ids: Sequence[DiffID]) -> tuple[int, ...]:
        raise NotImplementedError

    async def stacked_lower(self, diff_ids: Sequence[DiffID], base: int) -> tuple[int, ...]:
        raise NotImplementedError

    async def keep_only(self, stacks: Iterable[Sequence[DiffID]]) -> None:
        self.kept = list(stacks)

    def close(self) -> None:
        pass


@dataclass
class Shop:
    """Services over one root; ``users`` are the containers, by image."""

    root: Path
    database: Database
    content: ContentStore
    trees: LayerTrees
    images: ImageStore
    intake: LayerIntake
    removal: ImageRemoval
    lowers: NoLowers = field(default_factory=NoLowers)
    users: dict[ImageID, list[ImageUser]] = field(default_factory=dict)
    stacks: list[Sequence[DiffID]] = field(default_factory=list)

    @classmethod
    async def open(cls, root: Path, limits: Limits = Limits()) -> Shop:  # noqa: B008 - frozen
        root.mkdir(exist_ok=True)
        database = await Database.open(root / "state.db", (image_store.SCHEMA,))
        content = ContentStore(root / "content")
        content.open()
        trees = LayerTrees(root / "trees", content)
        trees.open()
        images = ImageStore(database, content)
        await images.open()
        lowers = NoLowers()
        users: dict[ImageID, list[ImageUser]] = {}
        stacks: list[Sequence[DiffID]] = []
        removal = ImageRemoval(images, content, trees, lowers, lambda i: users.get(i, []), lambda: stacks)
        intake = LayerIntake(content, trees, limits)
        return cls(root, database, content, trees, images, intake, removal, lowers, users, stacks)

    async def reopen(self) -> None:
        """Close the root and open it again, as a daemon that starts does."""
        await self.database.close()
        self.__dict__.update((await Shop.open(self.root)).__dict__)

    async def load(self, archive: bytes) -> list[Loaded]:
        return await load(self.images, self.intake, chunks(archive))

    async def load_one(self, *layers: bytes, name: str = "img:1", **config: Any) -> Image:
        return (await self.load(archive(layers, name, **config)))[0].image

    async def saved(self, *names: str) -> bytes:
        return b"".join([chunk async for chunk in save(select(self.images, names), self.content)])

    def blobs(self) -> set[str]:
        return {p.name for p in (self.root / "content" / "blobs" / "sha256").iterdir()}

    def leftovers(self) -> list[Path]:
        return [*(self.root / "content" / "ingest").iterdir(), *(self.root / "trees").glob(".tmp-*")]


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_of(layers: Sequence[bytes], **fields: Any) -> bytes:
    """An image config; *layers* are plain tars."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(layer)}" for layer in layers]},
        "history": [{"created_by": f"layer {n}"} for n in range(len(layers))],
    }
    return json.dumps(document | fields).encode()


def archive(
    layers: Sequence[bytes], name: str | None = "img:1", *, stored: Sequence[bytes] | None = None, **fields: Any
) -> bytes:
    """docker's form of an archive; *stored* are the layers as they lie in it, if compressed."""
    config = config_of(layers, **fields)
    files = {f"{n}/layer.tar": layer for n, layer in enumerate(stored or layers)}
    manifest = [{"Config": "c.json", "RepoTags": [name] if name else None, "Layers": list(files)}]
    return tar_of({"c.json": config, **files, "manifest.json": json.dumps(manifest).encode()})


def ref(name: str) -> Reference:
    return Reference.parse_tagged(name)
