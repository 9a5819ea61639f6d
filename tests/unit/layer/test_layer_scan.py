"""What a tar may say: everything that docker takes, and nothing that could not be mounted afterwards."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hostile_tars import END, header, padded, pax, regular, scanned, sparse
from lamina.layer.errors import InvalidLayer, LayerTooLarge
from lamina.layer.merge import merge
from lamina.layer.scan import Limits
from lamina.layer.sparse import choose_chunks
from lamina.layer.tree import LayerTree, Node, load, save, walk

STEPS = (1, 7, 512, 700, 1 << 20)


def names(tree: LayerTree) -> list[bytes]:
    return [path for path, _ in tree.walk() if path]


def node(tree: LayerTree, path: bytes) -> Node:
    found = tree.lookup(path, follow=False)
    assert found is not None
    return found


@pytest.mark.parametrize("end", [END, bytes(512), b"", END + b"trailing garbage" * 99, END + regular(b"after", b"x")])
@pytest.mark.parametrize("step", STEPS)
def test_a_tar_ends_with_zero_blocks_or_with_its_bytes(end: bytes, step: int) -> None:
    assert names(scanned(regular(b"a", b"1" * 600), end, step=step)) == [b"a"]


@pytest.mark.parametrize("step", STEPS)
def test_the_last_entry_may_lack_its_padding(step: int) -> None:
    assert node(scanned(header(b"a", 600), b"1" * 600, step=step), b"a").size == 600
    with pytest.raises(InvalidLayer, match="truncated"):
        scanned(header(b"a", 600), b"1" * 599, step=step)


@pytest.mark.parametrize("step", STEPS)
def test_an_entry_behind_one_block_of_zeros_is_not_dropped_silently(step: int) -> None:
    with pytest.raises(InvalidLayer, match="block of zeros"):
        scanned(regular(b"a", b"1"), bytes(512), regular(b"b"), END, step=step)


@pytest.mark.parametrize("step", STEPS)
def test_an_extended_header_without_its_entry_is_dropped(step: int) -> None:
    assert names(scanned(regular(b"a"), pax((b"path", b"b")), END, step=step)) == [b"a"]


def test_global_records_are_not_applied() -> None:
    records = ((b"path", b"glob"), (b"uid", b"77"), (b"size", b"512"), (b"SCHILY.xattr.user.g", b"1"))
    tree = scanned(pax(*records, kind=b"g"), regular(b"a", b"1"), END)
    assert names(tree) == [b"a"]
    assert (node(tree, b"a").uid, node(tree, b"a").xattrs) == (0, None)


def test_empty_pax_values_leave_the_header_s() -> None:
    tree = scanned(
        pax((b"path", b""), (b"uid", b"")), regular(b"a"), pax((b"linkpath", b"")), header(b"l", 0, b"2", b"to"), END
    )
    assert names(tree) == [b"a", b"l"]
    assert node(tree, b"l").target == b"to"


def test_an_entry_without_a_name_is_skipped() -> None:
    assert names(scanned(regular(b"", b"x"), regular(b"a"), END)) == [b"a"]


def test_bytes_behind_a_number_s_nul_are_not_part_of_it() -> None:
    assert stat.S_IMODE(node(scanned(regular(b"f", b"", mode=(100, b"644\0 99\0")), END), b"f").mode) == 0o644
    for wrong in (b"zzzzzzzz", b"6_44\0   ", b"-0000644", b"+000644\0"):
        with pytest.raises(InvalidLayer):
            scanned(regular(b"f", b"", mode=(100, wrong)), END)


@pytest.mark.parametrize(("path", "shown"), [(b"a/../b", b"b"), (b"./b", b"b"), (b"//b", b"b"), (b"x/y/../../b", b"b")])
def test_two_dots_are_taken_out_of_a_path_that_stays_inside(path: bytes, shown: bytes) -> None:
    assert names(scanned(regular(path), END)) == [shown]


@pytest.mark.parametrize("path", [b"../b", b"/../b", b"a/../../b"])
def test_two_dots_that_lead_out_of_the_root_are_refused_by_name(path: bytes) -> None:
    with pytest.raises(InvalidLayer, match=path.decode()):
        scanned(regular(path), END)
    with pytest.raises(InvalidLayer, match=path.decode()):
        scanned(regular(b"b"), header(b"h", 0, b"1", path), END)


def test_a_directory_in_the_place_of_a_link_takes_what_follows() -> None:
    parts = [
        header(b"d/", 0, b"5"),
        header(b"l", 0, b"2", b"d"),
        regular(b"l/x"),
        header(b"l", 0, b"5"),
        regular(b"l/y"),
    ]
    assert names(scanned(*parts, END)) == [b"d", b"d/x", b"l", b"l/y"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (header(b"f", 0, m=(136, b"\x80" + (1 << 80).to_bytes(11, "big"))), "out of range"),
        (pax((b"uid", b"4294967295")) + regular(b"f"), "owner"),
        (pax((b"uid", b"9" * 5000)) + regular(b"f"), "bad number"),
        (pax((b"linkpath", b"n" * 4096)) + header(b"l", 0, b"2"), "target"),
        (pax((b"path", b"/".join([b"n" * 200] * 25))) + regular(b"f"), "4095"),
        (pax((b"SCHILY.xattr.user.a", b"v" * 70_000)) + regular(b"f"), "too long"),
        (pax((b"SCHILY.xattr.user." + b"n" * 300, b"v")) + regular(b"f"), "too long"),
        (pax(*((b"SCHILY.xattr.user.%d" % n, b"v" * 60_000) for n in range(6))) + regular(b"f"), "extended attributes"),
    ],
)
def test_what_could_not_be_mounted_is_refused(entry: bytes, reason: str) -> None:
    with pytest.raises(InvalidLayer, match=reason):
        scanned(entry, END)


@pytest.mark.parametrize(
    "entry",
    [
        sparse(b"s", 8192, [(0, 4096)], b"A" * 512),
        sparse(b"s", 8192, [(512, 512), (0, 512)], b"A" * 1024),
        sparse(b"s", 500, [(0, 512)], b"A" * 512),
        sparse(b"s", 10**30, [], b""),
        sparse(b"s", (1 << 63) - 1, [], b""),
        sparse(b"s", 2048, [(0, 10**18)], b"A" * 512),
        pax((b"GNU.sparse.size", b"2048"), (b"GNU.sparse.map", b"0,512,x,1024,512")) + regular(b"s", b"A" * 1024),
        pax((b"GNU.sparse.size", b"2048"), (b"GNU.sparse.map", b"0," + b"9" * 5000)) + regular(b"s", b"A" * 512),
        pax((b"GNU.sparse.size", b"1000000"), (b"GNU.sparse.map", b"0,1000000")) + regular(b"s", b"A" * 512),
    ],
)
def test_a_sparse_map_must_fit_the_file_and_its_data(entry: bytes) -> None:
    with pytest.raises(InvalidLayer):
        scanned(entry, regular(b"next", b"N" * 5000), END)


@pytest.mark.parametrize("step", [512, 700, 1 << 20])
def test_a_chain_of_sparse_headers_ends(step: int) -> None:
    first = header(b"sp", 0, b"S", m=(482, b"\1"), r=(483, b"%011o\0" % 2048))
    more = bytes(504) + b"\1" + bytes(7)
    with pytest.raises(InvalidLayer, match="too long"):
        scanned(first, more * 20_000, step=step)


def test_the_limit_holds_for_every_byte_of_a_tar() -> None:
    limits = Limits(tar_bytes=100_000)
    with pytest.raises(LayerTooLarge):
        scanned(header(b"big", 200_000), limits=limits)
    with pytest.raises(LayerTooLarge):
        scanned(regular(b"a"), END, bytes(200_000), limits=limits, step=1000)


def test_implied_directories_count_as_entries() -> None:
    with pytest.raises(LayerTooLarge):
        scanned(pax((b"path", b"a/" * 2000 + b"x")) + regular(b"x"), END, limits=Limits(entries=100))


def test_a_tree_may_be_two_thousand_levels_deep(tmp_path: Path) -> None:
    path = b"a/" * 2000 + b"x"
    tree = scanned(pax((b"path", path)) + regular(b"x"), END)
    save(tree, tmp_path / "tree")
    merged = merge([load(tmp_path / "tree"), tree])
    assert merged.lookup(path) is not None
    assert [p for p, _ in walk(merged.root, b"")][-1] == path


def test_a_hole_costs_an_index_next_to_nothing() -> None:
    size = 8 << 30
    chunks = choose_chunks(size, ((512, 512, 1024),))
    assert chunks.index_bytes < 4 << 20
    assert sum(count for count, _ in chunks.runs()) == chunks.count
    with pytest.raises(LayerTooLarge):
        scanned(*(sparse(b"s%d" % n, 1 << 44, [(512, 1)], padded(b"x")) for n in range(40)), END)


def test_symbolic_links_have_the_mode_that_linux_gives_them() -> None:
    assert node(scanned(header(b"l", 0, b"2", b"to"), END), b"l").mode == stat.S_IFLNK | 0o777


def test_a_cut_tree_is_stale_and_an_older_one_not_current(tmp_path: Path) -> None:
    from lamina.layer.tree import StaleTree, is_current

    save(scanned(regular(b"a"), END), tmp_path / "tree")
    assert is_current(tmp_path / "tree")
    data = (tmp_path / "tree").read_bytes()
    (tmp_path / "tree").write_bytes(data[:-4])
    with pytest.raises(StaleTree):
        load(tmp_path / "tree")
    (tmp_path / "tree").write_bytes(data[20:])
    assert not is_current(tmp_path / "tree")
    os.unlink(tmp_path / "tree")
    assert not is_current(tmp_path / "tree")
