"""One suite over both ways to make an image's layers readable: EROFS over the tars, and extraction."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.content import ContentStore
from lamina.layer.errors import InvalidLayer
from lamina.layer.ingest import ingest
from lamina.linux import mount
from lamina.oci.digest import DiffID
from lamina.snapshot import LayerTrees, Snapshots
from lamina.snapshot.directory import DirectoryLowers
from lamina.snapshot.erofs import ErofsLowers

_KINDS = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "sym": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "chr": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}
Entry = tuple[str, str, bytes | str, dict[str, object]]


def layer(*entries: Entry) -> bytes:
    """A tar: (name, kind, contents or target, attributes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, value, attributes in entries:
            header = tarfile.TarInfo(name)
            header.mode = 0o755 if kind == "dir" else 0o644
            header.mtime = 1_600_000_000
            header.type = _KINDS[kind]
            if kind in ("sym", "hard"):
                header.linkname = str(value)
            for key, attribute in attributes.items():
                setattr(header, key, attribute)
            data = value if isinstance(value, bytes) else b""
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, data: bytes = b"x", **attributes: object) -> Entry:
    return name, "file", data, attributes


def directory(name: str, **attributes: object) -> Entry:
    return name, "dir", b"", attributes


@dataclass
class Store:
    """Layers of one driver, shown as a mounted root."""

    content: ContentStore
    trees: LayerTrees
    snapshots: Snapshots
    count: int = 0

    def put(self, tar: bytes) -> DiffID:
        path = self.content.temporary_path()
        path.with_suffix(".in").write_bytes(tar)
        source = os.open(path.with_suffix(".in"), os.O_RDONLY)
        tree = self.trees.temporary_path()
        try:
            made = ingest(source, tar_path=path, tree_path=tree)
        finally:
            os.close(source)
        diff_id = DiffID(made.diff_id)
        self.trees.adopt(tree, diff_id)
        self.content.adopt(path, diff_id)
        return diff_id

    async def show(self, *tars: bytes) -> Path:
        self.count += 1
        name = f"s{self.count}"
        self.snapshots.create(name)
        return await self.snapshots.mount(name, [self.put(tar) for tar in tars])


@pytest.fixture(params=["erofs", "directory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, needs_root: None) -> AsyncIterator[Store]:
    content = ContentStore(tmp_path / "content")
    content.open()
    trees = LayerTrees(tmp_path / "trees", content)
    trees.open()
    place = tmp_path / "lowers"
    lowers = ErofsLowers(place, content, trees) if request.param == "erofs" else DirectoryLowers(place, content)
    lowers.open()
    snapshots = Snapshots(tmp_path / "rw", tmp_path / "mounts", lowers)
    snapshots.open(())
    try:
        yield Store(content, trees, snapshots)
    finally:
        mount.unmount_all(str(tmp_path))
        lowers.close()


async def test_an_upper_file_covers_a_lower_one(store: Store) -> None:
    root = await store.show(layer(file("a", b"old"), file("b")), layer(file("a", b"new")))
    assert (root / "a").read_bytes() == b"new"
    assert (root / "b").read_bytes() == b"x"


async def test_a_whiteout_hides_what_lies_below_and_nothing_of_its_own_layer(store: Store) -> None:
    root = await store.show(
        layer(directory("d"), file("d/a"), file("d/b")), layer(file("d/.wh.a", b""), file("d/c"), file(".wh.gone", b""))
    )
    assert sorted(os.listdir(root / "d")) == ["b", "c"]
    assert not (root / "gone").exists()


async def test_an_opaque_directory_hides_all_that_lay_in_it(store: Store) -> None:
    root = await store.show(
        layer(directory("d"), file("d/a"), file("d/b")), layer(directory("d"), file("d/.wh..wh..opq", b""), file("d/c"))
    )
    assert os.listdir(root / "d") == ["c"]


async def test_a_directory_takes_the_place_of_a_file_and_the_reverse(store: Store) -> None:
    root = await store.show(
        layer(file("a"), directory("b"), file("b/x")),
        layer(directory("a"), file("a/y"), file(".wh.b", b"")),
        layer(file("b", b"file")),
    )
    assert os.listdir(root / "a") == ["y"]
    assert (root / "b").read_bytes() == b"file"


async def test_an_implied_directory_keeps_the_lower_one_s_attributes(store: Store) -> None:
    root = await store.show(layer(directory("d", mode=0o1770, uid=5, gid=6)), layer(file("d/new")))
    status = os.stat(root / "d")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1770, 5, 6)


async def test_entries_of_an_implied_directory_go_where_a_lower_link_leads(store: Store) -> None:
    root = await store.show(
        layer(directory("usr"), directory("usr/lib"), ("lib", "sym", "usr/lib", {})), layer(file("lib/new"))
    )
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/new").read_bytes() == b"x"


async def test_hard_links_share_bytes_also_with_a_lower_layer(store: Store) -> None:
    root = await store.show(layer(file("a", b"one"), ("b", "hard", "a", {})), layer(("c", "hard", "a", {})))
    assert {(root / n).read_bytes() for n in "abc"} == {b"one"}
    assert os.stat(root / "a").st_ino == os.stat(root / "b").st_ino


async def test_every_attribute_comes_through(store: Store) -> None:
    long = "n" * 200
    tar = layer(
        file("f", b"data", uid=100_000, gid=2_000_000_000, mode=0o4755, mtime=1_600_000_000),
        file("x", pax_headers={"SCHILY.xattr.user.k": "v", "mtime": "1600000000.123456789"}),
        ("s", "sym", "../" + "t" * 300, {}),
        ("null", "chr", b"", {"devmajor": 1, "devminor": 3, "mode": 0o666}),
        ("pipe", "fifo", b"", {}),
        directory("p" * 100),
        file("p" * 100 + "/" + long, b"deep"),
        file("big", bytes(range(256)) * 4096),
        file("empty", b""),
    )
    root = await store.show(tar)
    status = os.stat(root / "f")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_mtime) == (
        100_000,
        2_000_000_000,
        0o4755,
        1_600_000_000,
    )
    assert os.stat(root / "x").st_mtime_ns == 1_600_000_000_123_456_789
    assert os.getxattr(root / "x", "user.k") == b"v"
    assert os.readlink(root / "s") == "../" + "t" * 300
    assert os.stat(root / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO(os.stat(root / "pipe").st_mode)
    assert (root / ("p" * 100) / long).read_bytes() == b"deep"
    assert hashlib.sha256((root / "big").read_bytes()).digest() == hashlib.sha256(bytes(range(256)) * 4096).digest()
    assert (root / "empty").read_bytes() == b""


async def test_sparse_files_have_their_holes(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with open(source, "wb") as target:
        target.write(b"start")
        target.seek(5_000_000)
        target.write(b"middle")
        target.truncate(9_000_000)
    import subprocess

    for form in ("gnu", "posix"):
        argv = ["tar", "-C", str(tmp_path), f"--format={form}", "--sparse", "-cf", "-", "sparse"]
        tar = subprocess.run(argv, capture_output=True, check=True).stdout
        assert len(tar) < 1_000_000
        root = await store.show(tar)
        assert (root / "sparse").read_bytes() == source.read_bytes()


async def test_writes_stay_in_the_read_write_layer(store: Store) -> None:
    tar = layer(file("a", b"old"), directory("d"), file("d/x"))
    first = await store.show(tar)
    (first / "a").write_bytes(b"new")
    (first / "d" / "x").unlink()
    second = await store.show(tar)
    assert (second / "a").read_bytes() == b"old"
    assert (second / "d" / "x").exists()


async def test_a_directory_of_thousands(store: Store) -> None:
    names = [f"f{n:05}" for n in range(3000)]
    root = await store.show(layer(directory("d"), *(file(f"d/{n}", n.encode()) for n in names)))
    assert sorted(os.listdir(root / "d")) == names
    assert (root / "d" / "f02999").read_bytes() == b"f02999"


async def test_an_image_without_layers_is_an_empty_root(store: Store) -> None:
    root = await store.show()
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("../x")], ".."),
        ([file("a/../../x")], ".."),
        ([("h", "hard", "../x", {})], ".."),
        ([file("n" * 256)], "255"),
        ([("h", "hard", "missing", {})], "no lower layer"),
        ([("l", "sym", "l", {}), file("l/x")], "loop"),
        ([file("f"), file("f/x")], "no directory"),
    ],
)
async def test_hostile_layers_are_refused_by_name(store: Store, entries: list[Entry], reason: str) -> None:
    with pytest.raises(InvalidLayer) as raised:
        await store.show(layer(*entries))
    assert reason in str(raised.value)
    assert not list(store.content.root.glob("ingest/*.tar"))


async def test_links_out_of_the_root_lead_nowhere_else(store: Store) -> None:
    root = await store.show(layer(("out", "sym", "/", {}), file("out/etc-of-the-image", b"x")))
    assert (root / "etc-of-the-image").read_bytes() == b"x"
    assert not os.path.exists("/etc-of-the-image")


@pytest.mark.parametrize("cut", [100, 700, 1500])
async def test_truncated_tars_are_refused(store: Store, cut: int) -> None:
    with pytest.raises(InvalidLayer):
        store.put(layer(file("a", b"x" * 3000))[:cut])


async def test_a_wrong_header_checksum_is_refused(store: Store) -> None:
    tar = bytearray(layer(file("a")))
    tar[0] ^= 1
    with pytest.raises(InvalidLayer, match="checksum"):
        store.put(bytes(tar))
