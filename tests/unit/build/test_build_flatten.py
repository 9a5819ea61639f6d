"""Several layers as one: what it shows is what the stack shows."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lamina.build.context.source import TarContents
from lamina.build.flatten import flatten
from lamina.layer.ingest import from_fd, ingest
from lamina.layer.merge import merge
from lamina.layer.tree import MergedTree, load

Entry = tuple[str, str]
"""A name, and its contents; a name that ends with / is a directory, contents that begin with -> or = are a link's target."""


def stored(directory: Path, layers: Sequence[Sequence[Entry]]) -> tuple[list[Path], TarContents]:
    tars, trees = [], []
    for number, entries in enumerate(layers):
        source, tar, tree = (directory / f"{number}.{kind}" for kind in ("source", "tar", "tree"))
        with tarfile.open(source, "w") as archive:
            for name, text in entries:
                add(archive, name, text)
        with open(source, "rb") as file:
            ingest(from_fd(file.fileno()), tar_path=tar, tree_path=tree)
        tars.append(tar)
        trees.append(tree)
    return trees, TarContents(tuple(tars))


def add(archive: tarfile.TarFile, name: str, text: str) -> None:
    header = tarfile.TarInfo(name.rstrip("/"))
    header.mode = 0o755 if name.endswith("/") else 0o644
    if name.endswith("/"):
        header.type = tarfile.DIRTYPE
    elif text.startswith("->"):
        header.type, header.linkname = tarfile.SYMTYPE, text[2:]
    elif text.startswith("="):
        header.type, header.linkname = tarfile.LNKTYPE, text[1:]
    else:
        header.size = len(text)
    archive.addfile(header, io.BytesIO(text.encode()))


def shown(tree: MergedTree, contents: TarContents) -> dict[str, str]:
    found = {}
    for path, node in tree.walk():
        if node.is_regular:
            found[path.decode()] = b"".join(contents.pieces(path, node)).decode()
        else:
            found[path.decode()] = "->" + node.target.decode() if node.is_symlink else "/"
    return found


LAYERS: Sequence[Sequence[Entry]] = (
    [("a/", ""), ("a/kept", "1"), ("a/gone", "2"), ("link", "->a"), ("b/", ""), ("b/x", "3"), ("c", "4"), ("d/", "")],
    [("a/.wh.gone", ""), ("a/new", "new"), ("a/again", "=a/new"), ("temporary", "t"), ("d", "now a file")],
    [(".wh.temporary", ""), ("b/", ""), ("b/.wh..wh..opq", ""), ("b/y", "5"), ("link/through", "6"), (".wh.c", "")],
)


def test_the_upper_layers_as_one_show_what_all_did(tmp_path: Path) -> None:
    trees, contents = stored(tmp_path, LAYERS)
    whole = shown(merge([load(path) for path in trees]), contents)
    for base in range(len(LAYERS)):
        tar, tree = tmp_path / f"flat{base}.tar", tmp_path / f"flat{base}.tree"
        assert flatten(trees, contents, base, tar, tree) is not None
        over = TarContents((*contents.tars[:base], tar))
        assert shown(merge([*map(load, trees[:base]), load(tree)]), over) == whole


def test_all_layers_as_one_are_a_tar_that_hides_nothing(tmp_path: Path) -> None:
    trees, contents = stored(tmp_path, LAYERS)
    tar = tmp_path / "flat.tar"
    flatten(trees, contents, 0, tar, tmp_path / "flat.tree")
    with tarfile.open(tar) as archive:
        names = archive.getnames()
        assert archive.getmember("a/new").islnk(), "a file with two names has its bytes once"
    assert names == ["a", "a/again", "a/kept", "a/new", "a/through", "b", "b/y", "d", "link"]


def test_layers_that_undo_each_other_make_none(tmp_path: Path) -> None:
    trees, contents = stored(tmp_path, [[("a", "1")], [("t", "2")], [(".wh.t", "")]])
    tar = tmp_path / "flat.tar"
    assert flatten(trees, contents, 1, tar, tmp_path / "flat.tree") is None
    assert not tar.exists()
