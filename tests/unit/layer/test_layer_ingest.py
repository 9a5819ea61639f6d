"""One pass brings a layer in: its tar, its tree, both digests; or nothing at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.layer.diff import node_of
from lamina.layer.errors import InvalidLayer, LayerTooLarge
from lamina.layer.ingest import IngestedLayer, Limits, from_fd, ingest
from lamina.layer.scan import Scanner
from lamina.layer.tarwriter import SourceChanged, TarWriter, reader_of
from lamina.layer.tree import Node, StaleTree, load


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def take(directory: Path, data: bytes, limits: Limits | None = None) -> IngestedLayer:
    (directory / "source").write_bytes(data)
    fd = os.open(directory / "source", os.O_RDONLY)
    try:
        return ingest(
            from_fd(fd),
            tar_path=directory / "tar",
            tree_path=directory / "tree",
            blob_path=directory / "blob",
            limits=limits or Limits(),
        )
    finally:
        os.close(fd)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("form", COMPRESSORS)
def test_a_compressed_layer_keeps_both_digests(tmp_path: Path, form: str) -> None:
    plain = tar_of(a=b"one", b=os.urandom(3_000_000))
    packed = COMPRESSORS[form](plain)
    layer = take(tmp_path, packed)
    assert layer.compression == form
    assert layer.diff_id.hex == hashlib.sha256(plain).hexdigest()
    assert layer.blob_digest.hex == hashlib.sha256(packed).hexdigest()
    assert (tmp_path / "tar").read_bytes() == plain
    assert (tmp_path / "blob").read_bytes() == packed
    assert sorted(load(tmp_path / "tree").root.children or ()) == [b"a", b"b"]


def test_a_plain_layer_is_its_own_blob(tmp_path: Path) -> None:
    layer = take(tmp_path, tar_of(a=b"x"))
    assert layer.blob_digest == layer.diff_id
    assert not (tmp_path / "blob").exists()


def test_a_stream_of_several_gzip_members_is_one_layer(tmp_path: Path) -> None:
    plain = tar_of(a=os.urandom(100_000))
    packed = gzip.compress(plain[:5000]) + gzip.compress(plain[5000:])
    assert take(tmp_path, packed).diff_id.hex == hashlib.sha256(plain).hexdigest()


@pytest.mark.parametrize("form", COMPRESSORS)
def test_damaged_compression_leaves_nothing(tmp_path: Path, form: str) -> None:
    packed = COMPRESSORS[form](tar_of(a=os.urandom(500_000)))
    with pytest.raises(InvalidLayer):
        take(tmp_path, packed[: len(packed) // 2])
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_bomb_ends_at_the_limit(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_of(zeros=bytes(50_000_000)))
    assert len(bomb) < 100_000
    with pytest.raises(LayerTooLarge):
        take(tmp_path, bomb, Limits(tar_bytes=10_000_000))
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerTooLarge):
        take(tmp_path, tar_of(**{f"f{n}": b"" for n in range(20)}), Limits(entries=10))


def test_marks_of_overlayfs_in_a_layer_are_dropped() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        header = tarfile.TarInfo("d")
        header.type = tarfile.DIRTYPE
        header.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.kept": "1"}
        tar.addfile(header)
    scanner = Scanner()
    scanner.feed(buffer.getvalue())
    node = scanner.finish().lookup(b"d")
    assert node is not None
    assert node.xattrs == {b"user.kept": b"1"}


def test_a_tree_of_another_format_is_stale(tmp_path: Path) -> None:
    (tmp_path / "tree").write_bytes(b"\0\0")
    with pytest.raises(StaleTree):
        load(tmp_path / "tree")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(1, 700), max_size=20))
def test_any_bytes_scan_or_are_refused_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    scanner = Scanner()
    try:
        for size in cuts:
            scanner.feed(data[:size])
            data = data[size:]
        scanner.feed(data)
        scanner.finish()
    except InvalidLayer as error:
        assert str(error)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_harmless(position: int, value: int) -> None:
    data = bytearray(tar_of(a=b"x" * 700, b=b"y"))
    data[position % len(data)] = value
    scanner = Scanner()
    try:
        scanner.feed(bytes(data))
        scanner.finish()
    except InvalidLayer as error:
        assert str(error)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(alphabet="abcé", min_size=1, max_size=120), st.binary(max_size=2000), max_size=6),
    st.integers(0, 2**32 - 2),
    st.integers(-(10**18), 4 * 10**18),
)
def test_what_the_writer_wrote_gnu_s_reader_and_the_scanner_read_alike(
    files: dict[str, bytes], uid: int, mtime_ns: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        tar_path, tree_path = Path(scratch, "tar"), Path(scratch, "tree")
        writer = TarWriter(tar_path)
        for name, data in sorted(files.items()):
            node = Node(stat.S_IFREG | 0o640, uid, 7, mtime_ns)
            node.size = len(data)
            node.xattrs = {b"user.k": data[:20]}
            source = Path(scratch, "data")
            source.write_bytes(data)
            fd = os.open(source, os.O_RDONLY)
            writer.add(name.encode(), node, reader_of(fd))
            os.close(fd)
        layer = writer.finish(tree_path)
        assert layer.diff_id.hex == hashlib.sha256(tar_path.read_bytes()).hexdigest()
        tree = load(tree_path)
        for name, data in files.items():
            found = tree.lookup(name.encode())
            assert found is not None
            assert (found.uid, found.gid, found.mtime_ns, found.size) == (uid, 7, mtime_ns, len(data))
            assert tar_path.read_bytes()[found.offset : found.offset + found.size] == data
        with tarfile.open(tar_path) as tar:
            for name, data in files.items():
                member = tar.extractfile(name)
                assert member is not None
                assert member.read() == data


def test_a_file_that_shrinks_while_it_is_copied_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"short")
    node = node_of(os.fsencode(tmp_path / "f"), os.stat(tmp_path / "f"))
    node.size = 100
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    writer = TarWriter(tmp_path / "tar")
    with pytest.raises(SourceChanged):
        writer.add(b"f", node, reader_of(fd))
    writer.discard()
    os.close(fd)
