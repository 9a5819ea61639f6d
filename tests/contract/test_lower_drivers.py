"""One suite over both ways to make an image's layers readable: EROFS over the tars, and extraction."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hostile_tars import END, header, padded, pax, regular, sparse
from lamina.content import ContentStore
from lamina.layer.diff import write_diff
from lamina.layer.errors import InvalidLayer
from lamina.layer.ingest import from_fd, ingest
from lamina.layer.merge import merge
from lamina.layer.tree import load
from lamina.linux import mount
from lamina.oci.digest import DiffID, chain_id
from lamina.snapshot import LayerTrees, LowerDriver, Snapshots
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
    lowers: LowerDriver
    count: int = 0

    def put(self, tar: bytes) -> DiffID:
        path = self.content.temporary_path()
        path.with_suffix(".in").write_bytes(tar)
        source = os.open(path.with_suffix(".in"), os.O_RDONLY)
        tree = self.trees.temporary_path()
        try:
            made = ingest(from_fd(source), tar_path=path, tree_path=tree)
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
    driver = ErofsLowers if request.param == "erofs" else DirectoryLowers
    lowers = driver(place, content, trees)
    lowers.open()
    snapshots = Snapshots(tmp_path / "rw", tmp_path / "mounts", lowers)
    snapshots.open(())
    try:
        yield Store(content, trees, snapshots, lowers)
    finally:
        mount.unmount_all(str(tmp_path))
        await lowers.keep_only([])
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
        ([("h", "hard", "missing", {})], "lower layer has"),
        ([("l", "sym", "l", {}), file("l/x")], "loop"),
        ([file("f"), file("f/x")], "no directory"),
    ],
)
async def test_hostile_layers_are_refused_by_name(store: Store, entries: list[Entry], reason: str) -> None:
    with pytest.raises(InvalidLayer) as raised:
        await store.show(layer(*entries))
    assert reason in str(raised.value)
    assert not list(store.content.root.glob("ingest/*.tar"))


BASE = layer(
    directory("p"),
    directory("d"),
    ("p/l", "sym", "../d", {}),
    directory("p/sub", mode=0o700, uid=7),
    file("p/sub/old"),
    ("m", "sym", "d", {}),
    file("d/z", b"z"),
)


def link(name: str, target: str) -> Entry:
    return name, "sym", target, {}


def hard(name: str, target: str) -> Entry:
    return name, "hard", target, {}


def shown(root: Path) -> dict[str, str]:
    """Every path with what is there: a file's bytes, a link's target, a slash for a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = f"→{path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


LOWER = {"d": "/", "d/z": "z", "m": "→d", "p": "/", "p/l": "→../d", "p/sub": "/", "p/sub/old": "x"}


@pytest.mark.parametrize(
    ("upper", "gone", "new"),
    [
        (
            [file(".wh.p", b""), directory("p"), file("p/l/x"), file("p/sub/new")],
            ["p/sub/old"],
            {"p/l": "/", "p/l/x": "x", "p/sub/new": "x"},
        ),
        (
            [directory("p"), file("p/.wh..wh..opq", b""), file("p/l/x")],
            ["p/sub", "p/sub/old"],
            {"p/l": "/", "p/l/x": "x"},
        ),
        ([file("d/x", b"1"), file("m/x", b"2")], [], {"d/x": "2"}),
        ([file("m/x", b"2"), file("d/x", b"1")], [], {"d/x": "1"}),
        ([file("d/.wh.z", b""), file("m/.wh.z", b"")], ["d/z"], {}),
        ([file("m/.wh.z", b""), file("m/q", b"q")], ["d/z"], {"d/q": "q"}),
        ([file("m/.wh..wh..opq", b""), file("m/q", b"q")], ["d/z"], {"d/q": "q"}),
        ([file("d/own", b"o"), file("m/.wh..wh..opq", b"")], ["d/z"], {"d/own": "o"}),
        ([file(".wh.m", b""), file("m/q", b"q")], [], {"m": "/", "m/q": "q"}),
        ([directory("m"), file("m/q", b"q")], [], {"m": "/", "m/q": "q"}),
        ([hard("a", "b"), file("b", b"later")], [], {"a": "later", "b": "later"}),
        ([hard("a", "b"), hard("b", "d/z")], [], {"a": "z", "b": "z"}),
        ([hard("a", "d/z"), file("d/.wh.z", b"")], ["d/z"], {"a": "z"}),
        ([file("d/.wh.z", b""), hard("a", "d/z")], ["d/z"], {"a": "z"}),
        ([hard("a", "m/z"), file("m/x"), hard("b", "d/x")], [], {"a": "z", "b": "x", "d/x": "x"}),
        ([hard("d/z", "d/z")], [], {}),
        ([file("a/../d/n", b"n")], [], {"d/n": "n"}),
    ],
)
async def test_a_layer_over_links_and_whiteouts_shows_the_same_with_both_drivers(
    store: Store, upper: list[Entry], gone: list[str], new: dict[str, str]
) -> None:
    root = await store.show(BASE, layer(*upper))
    assert shown(root) == {k: v for k, v in LOWER.items() if k not in gone} | new


def _random_layer(rng: random.Random) -> bytes:
    def path() -> str:
        return "/".join(rng.choice("abc") for _ in range(rng.randint(1, 3)))

    entries = []
    for _ in range(rng.randint(1, 7)):
        name = path()
        parent, _, last = name.rpartition("/")
        entries.append(
            rng.choice(
                [
                    file(name, rng.choice([b"1", b"2"])),
                    directory(name, mode=rng.choice([0o755, 0o700])),
                    link(name, rng.choice(["a", "b", "../a", "/c", "a/b", "..", "/", "nope"])),
                    file(os.path.join(parent, f".wh.{last}"), b""),
                    file(f"{name}/.wh..wh..opq", b""),
                    hard(name, path()),
                ]
            )
        )
    return layer(*entries)


async def test_both_drivers_show_the_tree_that_merge_makes(store: Store) -> None:
    rng, shown_stacks = random.Random(20), 0
    while shown_stacks < 12:
        tars = [_random_layer(rng) for _ in range(3)]
        try:
            ids = [store.put(tar) for tar in tars]
            merged = merge([load(path) for path in await store.trees.paths(ids)])
        except InvalidLayer:
            continue
        shown_stacks += 1
        expected = {
            os.fsdecode(path): (stat.S_IFMT(node.mode), stat.S_IMODE(node.mode)) for path, node in merged.walk() if path
        }
        root = await store.show(*tars)
        found = {}
        for name in _names(root):
            mode = os.lstat(root / name).st_mode
            found[name] = (stat.S_IFMT(mode), stat.S_IMODE(mode))
        assert found == expected


async def test_what_a_build_stacks_is_what_a_merge_shows(store: Store) -> None:
    base = layer(directory("d"), file("d/a"), file("d/b"), directory("e", mode=0o700), file("e/x"), link("l", "d"))
    steps = [
        layer(directory("d"), file("d/.wh.a", b""), file("d/new", b"2")),
        layer(directory("e", mode=0o750), file("e/.wh..wh..opq", b""), file("e/y"), file(".wh.l", b"")),
        layer(directory("d"), file("d/a", b"again"), directory("d/sub"), file("d/sub/z")),
    ]
    merged = await store.show(base, *steps)
    ids = [store.put(tar) for tar in (base, *steps)]
    store.snapshots.create("stacked")
    stacked = await store.snapshots.mount("stacked", ids, base=1)
    assert shown(stacked) == shown(merged)
    assert [stat.S_IMODE(os.stat(stacked / name).st_mode) for name in ("d", "e")] == [0o755, 0o750]


async def test_a_replaced_directory_does_not_keep_the_attributes_below(store: Store) -> None:
    root = await store.show(BASE, layer(file(".wh.p", b""), directory("p"), file("p/sub/new")))
    status = os.stat(root / "p/sub")
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 0)


@pytest.mark.parametrize(
    "lower",
    [
        [link("c", "nope/x")],
        [file("t", b"t"), link("c", "t")],
        [link("c", "c2"), link("c2", "c")],
    ],
)
async def test_a_lower_link_that_leads_to_no_directory_gives_way_to_one(store: Store, lower: list[Entry]) -> None:
    below, upper = layer(*lower), layer(file("c/x"))
    before = await store.show(below)
    expected = {k: v for k, v in _names(before).items() if k != "c"} | {"c": "/", "c/x": "x"}
    assert _names(await store.show(below, upper)) == expected


def _names(root: Path) -> dict[str, str]:
    """As ``shown``, without following what may be a loop."""
    return {
        os.path.relpath(os.path.join(at, name), root): _what(os.path.join(at, name))
        for at, directories, files in os.walk(root)
        for name in (*directories, *files)
    }


def _what(path: str) -> str:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return f"→{os.readlink(path)}"
    return "/" if stat.S_ISDIR(status.st_mode) else Path(path).read_text()


@pytest.mark.parametrize("cut", [0, 512, 1024, 1124, 1200])
@pytest.mark.parametrize("size", [1, 511, 1799, 300_001])
async def test_a_tar_s_last_file_is_whole_without_padding_and_end_blocks(store: Store, cut: int, size: int) -> None:
    data = os.urandom(size)
    whole = header(b"a", len(data)) + padded(data) + END
    root = await store.show(whole[: max(len(whole) - cut, 512 + len(data))])
    assert (root / "a").read_bytes() == data
    holes = sparse(b"s", 2_000_000, [(1_000_448, size)], data)
    root = await store.show(holes[: max(len(holes) + 1024 - cut, 512 * ((len(holes) - size) // 512) + size)])
    assert (root / "s").read_bytes() == bytes(1_000_448) + data + bytes(2_000_000 - 1_000_448 - size)


def _expanded(size: int, pairs: list[tuple[int, int]], data: bytes) -> bytes:
    result = bytearray(size)
    for offset, length in pairs:
        result[offset : offset + length], data = data[:length], data[length:]
    return bytes(result)


@pytest.mark.parametrize(
    ("size", "pairs"),
    [
        (2048, [(0, 512), (1024, 512)]),
        (2048, [(100, 10), (1000, 30)]),
        (8192, [(0, 700), (4096, 512)]),
        (1_000_000, [(3, 5000), (70_001, 65_536), (999_000, 1000)]),
        (10_000_000, [(512 * n, 512) for n in range(7, 4000, 13)]),
        (10_000_000, [(513 * n, 500) for n in range(7, 4000, 13)]),
        (9_999_999, [(4096, 8192), (5_000_000, 4_999_999)]),
        (5000, []),
    ],
)
async def test_sparse_files_of_any_alignment_have_their_bytes(
    store: Store, size: int, pairs: list[tuple[int, int]]
) -> None:
    data = os.urandom(sum(length for _, length in pairs))
    tar = sparse(b"s", size, pairs, data) + regular(b"next", b"N" * 600) + END
    root = await store.show(layer(file("other", b"o" * 999)), tar)
    assert (root / "s").read_bytes() == _expanded(size, pairs, data)
    assert (root / "next").read_bytes() == b"N" * 600


async def test_a_file_of_eight_gigabytes_of_holes_costs_little(store: Store, tmp_path: Path) -> None:
    root = await store.show(sparse(b"s", 8 << 30, [(512, 512)], b"A" * 512) + END)
    with open(root / "s", "rb") as file:
        assert file.read(2048) == bytes(512) + b"A" * 512 + bytes(1024)
        file.seek((8 << 30) - 1000)
        assert file.read() == bytes(1000)
    used = sum(p.lstat().st_blocks * 512 for p in (tmp_path / "lowers").rglob("*"))
    assert used < 8 << 20


async def test_two_thousand_levels_of_directories_are_shown_and_written_again(store: Store, tmp_path: Path) -> None:
    path = b"a/" * 1900 + b"x"
    root = await store.show(pax((b"path", path)) + regular(b"x", b"deep") + END)
    made = write_diff(root, tmp_path / "tar", tmp_path / "tree")
    assert made is not None
    assert load(tmp_path / "tree").lookup(path) is not None


async def test_attributes_that_linux_would_not_show_do_not_spoil_a_root(store: Store, tmp_path: Path) -> None:
    value = b"1"
    tar = pax((b"SCHILY.xattr.user.q", value)) + header(b"l", 0, b"2", b"to")
    tar += pax((b"SCHILY.xattr.system.posix_acl_access", b"junk")) + regular(b"bad-acl")
    tar += pax((b"SCHILY.xattr.trusted.t", value)) + regular(b"f") + END
    root = await store.show(tar)
    assert os.listxattr(root / "l", follow_symlinks=False) == []
    assert os.listxattr(root / "bad-acl") == []
    assert os.getxattr(root / "f", "trusted.t") == value
    assert write_diff(root, tmp_path / "tar", tmp_path / "tree") is not None


async def test_links_and_strange_times_look_the_same_everywhere(store: Store) -> None:
    old = pax((b"mtime", b"-1.5")) + regular(b"old")
    new = pax((b"mtime", b"999999999999999")) + regular(b"new")
    root = await store.show(header(b"l", 0, b"2", b"to") + old + new + END)
    assert stat.S_IMODE(os.lstat(root / "l").st_mode) == 0o777
    assert os.stat(root / "old").st_mtime_ns == os.stat(root / "new").st_mtime_ns == 0


async def test_what_no_stack_needs_any_more_is_deleted(store: Store, tmp_path: Path) -> None:
    one, two, three = layer(file("a")), layer(file("b")), layer(file("c"))
    await store.show(one, two)
    kept = await store.show(one, three)
    store.snapshots.open(())
    await store.lowers.keep_only([[store.put(one), store.put(three)]])
    left = {p.name.removesuffix(".erofs") for p in (tmp_path / "lowers").iterdir()}
    chains = {chain_id([store.put(one), store.put(three)])}
    if store.lowers.name == "directory":
        chains.add(chain_id([store.put(one)]))
    assert left == {chain.hex for chain in chains if chain is not None}
    kept = await store.show(one, three)
    assert sorted(os.listdir(kept)) == ["a", "c"]
    assert sorted(os.listdir(await store.show(one, two))) == ["a", "b"]
    await store.lowers.keep_only([])
    assert list((tmp_path / "lowers").iterdir()) == []


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
