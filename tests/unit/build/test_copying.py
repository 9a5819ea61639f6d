"""What COPY and ADD write where: plans over plain trees, by BuildKit's rules (fsutil's ``copy``)."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from lamina.build.context.directory import DirectoryContext, scan_directory
from lamina.build.context.source import DirectoryContents, FileSource
from lamina.build.copy.chmod import ModeChange
from lamina.build.copy.finding import find
from lamina.build.copy.plan import CopyPlan, Ownership, plan_digest, write_plan
from lamina.build.errors import BuildFailed, SourceNotFound
from lamina.dockerfile import IgnoreRules
from lamina.layer.tree import MergedTree, Node, load

FILES = {
    "README.md": "readme",
    "hom.go": "go",
    "home.txt": "home",
    "packages/a/package.json": "a",
    "packages/a/src/a.js": "js",
    "packages/a/notes.md": "notes",
    "packages/b/package.json": "b",
    "packages/b/deep/er/package.json": "deep",
    "tools/run.sh": "run",
}
WRITTEN_NS = 7_000_000_000


def directory(mode: int = 0o755, uid: int = 0, **children: Node) -> Node:
    node = Node(stat.S_IFDIR | mode, uid, uid, WRITTEN_NS)
    node.children = {os.fsencode(name): child for name, child in children.items()}
    return node


def holding(name: str, child: Node) -> Node:
    node = directory()
    node.children = {os.fsencode(name): child}
    return node


def file() -> Node:
    return Node(stat.S_IFREG | 0o644)


def link(target: str) -> Node:
    node = Node(stat.S_IFLNK | 0o777)
    node.target = os.fsencode(target)
    return node


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory to build from."""
    root = tmp_path / "context"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def context(files: Path) -> DirectoryContext:
    return scanned(files)


def scanned(root: Path) -> DirectoryContext:
    return scan_directory(root, root.parent / "digests")


class Stage:
    """A stage's root, and what one COPY writes over it."""

    def __init__(self, root: Node | None = None, ownership: Ownership | None = None) -> None:
        self.plan = CopyPlan(MergedTree(root or directory()), ownership or Ownership(), now_ns=0)

    def copy(
        self,
        source: FileSource,
        sources: str,
        destination: str,
        *,
        exclude: Sequence[str] = (),
        keep_owner: bool = False,
    ) -> Stage:
        for name in sources.split():
            found = find(source, name, "COPY")
            several = " " in sources
            self.plan.add_from(
                source, found, destination, into_directory=several, keep_owner=keep_owner, exclude=exclude
            )
        return self

    def copy_parents(self, source: FileSource, name: str, destination: str, exclude: Sequence[str] = ()) -> Stage:
        self.plan.add_with_parents(source, name, destination, keyword="COPY", keep_owner=False, exclude=exclude)
        return self

    @property
    def names(self) -> list[str]:
        """What is written that is no directory."""
        return sorted(os.fsdecode(item.path) for item in self.plan.items if item.node.children is None)

    @property
    def texts(self) -> dict[str, str]:
        return {
            os.fsdecode(item.path): b"".join(item.pieces()).decode() for item in self.plan.items if item.node.is_regular
        }

    def at(self, path: str) -> Node:
        return next(item.node for item in self.plan.items if item.path == os.fsencode(path))


# where things go


@pytest.mark.parametrize(
    ("sources", "destination", "written"),
    [
        ("README.md", "/x", ["x"]),
        ("README.md", "/x/", ["x/README.md"]),
        ("README.md", "/there", ["there/README.md"]),
        ("README.md", "/new/deep/name", ["new/deep/name"]),
        ("README.md hom.go", "/x/", ["x/README.md", "x/hom.go"]),
        ("tools", "/x", ["x/run.sh"]),
        ("tools", "/x/", ["x/run.sh"]),
        ("tools/", "/there", ["there/run.sh"]),
        ("tools", "/", ["run.sh"]),
        ("./tools/../README.md", "/x", ["x"]),
        ("../../README.md", "/x", ["x"]),
        ("/README.md", "/x", ["x"]),
        ("packages/a", "/p", ["p/notes.md", "p/package.json", "p/src/a.js"]),
    ],
)
def test_a_file_goes_into_a_directory_and_a_directory_gives_what_is_in_it(
    context: DirectoryContext, sources: str, destination: str, written: list[str]
) -> None:
    assert Stage(directory(there=directory())).copy(context, sources, destination).names == written


def test_every_directory_above_a_file_is_written_before_it_once(context: DirectoryContext) -> None:
    stage = Stage(directory(there=directory())).copy(context, "tools README.md", "/there/new/")
    assert [os.fsdecode(item.path) for item in stage.plan.items] == [
        "there",
        "there/new",
        "there/new/run.sh",
        "there/new/README.md",
    ]


def test_a_directory_that_is_made_is_roots_and_one_that_exists_stays_as_it_is(
    files: Path, context: DirectoryContext
) -> None:
    stage = Stage(directory(home=directory(0o700, 5))).copy(context, "README.md", "/home/new/x")
    assert (stage.at("home").mode, stage.at("home").uid, stage.at("home").mtime_ns) == (0o40700, 5, WRITTEN_NS)
    assert (stage.at("home/new").mode, stage.at("home/new").uid) == (0o40755, 0)


def test_directories_below_the_destination_become_what_the_source_says(files: Path) -> None:
    (files / "packages" / "a").chmod(0o711)
    stage = Stage(directory(p=directory(0o700, 5, a=directory(0o750, 6)))).copy(scanned(files), "packages", "/p")
    assert (stage.at("p").mode, stage.at("p").uid) == (0o40700, 5)
    assert (stage.at("p/a").mode, stage.at("p/a").uid) == (0o40711, 0)


def test_a_destination_is_resolved_inside_the_root(context: DirectoryContext) -> None:
    root = directory(real=directory(), up=link("../../../real"), loop=link("loop"), gone=link("/not/there"))
    assert Stage(root).copy(context, "README.md", "/up/x").names == ["real/x"]
    assert Stage(root).copy(context, "README.md", "/up").names == ["real/README.md"]
    assert Stage(root).copy(context, "tools", "/up/../real/").names == ["real/run.sh"]
    assert Stage(root).copy(context, "README.md", "/gone/x").names == ["not/there/x"]
    with pytest.raises(BuildFailed, match="too many links"):
        Stage(root).copy(context, "README.md", "/loop/x")


def test_a_file_that_is_there_is_replaced_and_a_link_in_a_directory_too(context: DirectoryContext) -> None:
    root = directory(d=holding("README.md", link("/elsewhere")), elsewhere=file(), l=link("elsewhere"))
    assert Stage(root).copy(context, "README.md", "/d/").names == ["d/README.md"]
    assert Stage(root).copy(context, "README.md", "/l").names == ["elsewhere"]
    assert Stage(root).copy(context, "README.md", "/elsewhere").names == ["elsewhere"]


@pytest.mark.parametrize(
    ("root", "sources", "destination"),
    [
        (directory(f=file()), "README.md", "/f/x"),
        (directory(f=file()), "tools", "/f"),
        (directory(d=holding("run.sh", directory())), "tools", "/d/"),
        (directory(d=directory(a=file())), "packages", "/d/"),
        (directory(d=directory(a=link("/other")), other=directory()), "packages", "/d/"),
    ],
)
def test_nothing_but_a_directory_takes_a_directorys_place(
    context: DirectoryContext, root: Node, sources: str, destination: str
) -> None:
    with pytest.raises(BuildFailed, match="cannot copy to"):
        Stage(root).copy(context, sources, destination)


def test_of_two_files_of_one_path_the_later_one_is_written(files: Path) -> None:
    (files / "tools" / "README.md").write_text("other")
    stage = Stage().copy(scanned(files), "README.md tools/README.md", "/x/")
    assert stage.texts == {"x/README.md": "other"}


# what is named


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("hom*", ["x/hom.go", "x/home.txt"]),
        ("hom?.txt", ["x/home.txt"]),
        ("[a-h]*.go", ["x/hom.go"]),
        ("packages/*/package.json", ["x/package.json"]),
        ("packages/?", ["x/deep/er/package.json", "x/notes.md", "x/package.json", "x/src/a.js"]),
        ("*/run.sh", ["x/run.sh"]),
        ("packages/**/package.json", ["x/package.json"]),
        ("none*", []),
        ("none/*", []),
    ],
)
def test_a_wildcard_names_files_of_one_depth(context: DirectoryContext, pattern: str, written: list[str]) -> None:
    assert Stage().copy(context, pattern, "/x/").names == written


@pytest.mark.parametrize("name", ["none", "tools/none", "README.md/none", "dangling", "hidden"])
def test_a_path_that_is_not_there_is_named(files: Path, name: str) -> None:
    (files / "dangling").symlink_to("none")
    (files / "hidden").write_text("")
    (files / ".dockerignore").write_text("hidden\n")
    with pytest.raises(SourceNotFound, match=f"stat {name}: file does not exist"):
        Stage().copy(scanned(files), name, "/x/")


def test_a_link_that_is_named_is_followed_and_gives_the_name(files: Path) -> None:
    (files / "to-file").symlink_to("tools/run.sh")
    (files / "to-dir").symlink_to("packages/b/../../tools")
    (files / "to-root").symlink_to("/")
    context = scanned(files)
    assert Stage().copy(context, "to-file", "/x/").texts == {"x/to-file": "run"}
    assert Stage().copy(context, "to-*e", "/x/").texts == {"x/to-file": "run"}
    assert Stage().copy(context, "to-dir", "/x/").texts == {"x/run.sh": "run"}
    assert Stage().copy(context, "to-dir/run.sh", "/x/").texts == {"x/run.sh": "run"}
    assert Stage().copy(context, "to-dir/r*", "/x/").texts == {"x/run.sh": "run"}
    assert Stage().copy(context, "to-di[r]", "/x/").texts == {"x/run.sh": "run"}
    assert Stage().copy(context, "to-root/../hom.go", "/x/").texts == {"x/hom.go": "go"}


def test_a_link_inside_a_directory_stays_a_link(files: Path) -> None:
    (files / "tools" / "again").symlink_to("../hom.go")
    stage = Stage().copy(scanned(files), "tools", "/x")
    assert stage.at("x/again").target == b"../hom.go"


def test_a_loop_of_links_is_told(files: Path) -> None:
    (files / "loop").symlink_to("loop")
    with pytest.raises(BuildFailed, match="loop: too many links"):
        Stage().copy(scanned(files), "loop", "/x")


# .dockerignore and --exclude


class SentContext(FileSource):
    """A context to which .dockerignore is still to be applied, as to a tar."""

    def __init__(self, root: Path, rules: str) -> None:
        whole = scan_directory(root, root.parent / "digests", rules=IgnoreRules(()))
        super().__init__(whole.tree, DirectoryContents(root), ignore=IgnoreRules.parse(rules))


@pytest.mark.parametrize(
    ("rules", "written"),
    [
        ("**/*.md\n!README.md", ["README.md", "hom.go", "home.txt"]),
        ("*\n!hom*", ["hom.go", "home.txt"]),
        ("*\n!packages/*/src", ["packages/a/src/a.js"]),
        ("*\n!packages/a\npackages/a/*.md", ["packages/a/package.json", "packages/a/src/a.js"]),
    ],
)
@pytest.mark.parametrize("is_sent", [True, False])
def test_what_dockerignore_leaves_out_is_not_there(files: Path, rules: str, written: list[str], is_sent: bool) -> None:
    (files / ".dockerignore").write_text(rules)
    source = SentContext(files, rules) if is_sent else scanned(files)
    names = [n for n in Stage().copy(source, ".", "/").names if n != ".dockerignore"]
    if rules.startswith("*\n"):
        assert names == written
    else:
        assert names[:3] == written
        assert not any(n.endswith(".md") for n in names[3:])


@pytest.mark.parametrize(
    ("sources", "exclude", "written"),
    [
        ("hom*", ["*.txt"], ["x/hom.go"]),
        ("hom*", ["*"], []),
        ("packages", ["**/*.json"], ["x/a/notes.md", "x/a/src/a.js"]),
        ("packages", ["**/package.json", "!b/package.json"], ["x/a/notes.md", "x/a/src/a.js", "x/b/package.json"]),
        ("packages", ["a", "b/deep"], ["x/b/package.json"]),
        ("packages", ["*", "!b/deep/er"], ["x/b/deep/er/package.json"]),
        ("packages/*", ["src", "deep"], ["x/notes.md", "x/package.json"]),
        ("packages/a", ["#none", "/src/", ""], ["x/notes.md", "x/package.json"]),
        ("packages/a README.md", ["*.md"], ["x/package.json", "x/src/a.js"]),
    ],
)
def test_exclude_leaves_out_what_it_matches(
    context: DirectoryContext, sources: str, exclude: list[str], written: list[str]
) -> None:
    assert Stage().copy(context, sources, "/x/", exclude=exclude).names == written


def test_a_name_that_looks_like_a_comment_can_be_excluded(files: Path) -> None:
    (files / "tools" / "#x").write_text("")
    assert Stage().copy(scanned(files), "tools", "/x/", exclude=["#x"]).names == ["x/run.sh"]


def test_a_directory_that_is_left_out_comes_as_it_is_for_what_is_taken_in_again(files: Path) -> None:
    (files / "packages" / "b").chmod(0o711)
    stage = Stage().copy(scanned(files), "packages", "/x", exclude=["*", "!b/deep/er"])
    assert [os.fsdecode(item.path) for item in stage.plan.items][:3] == ["x", "x/b", "x/b/deep"]
    assert stage.at("x/b").mode == 0o40711


# --parents


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("tools/run.sh", ["x/tools/run.sh"]),
        ("./tools/run.sh", ["x/tools/run.sh"]),
        ("/tools/../tools/run.sh", ["x/tools/run.sh"]),
        ("tools", ["x/tools/run.sh"]),
        ("packages/./a/src", ["x/a/src/a.js"]),
        ("packages/a/./src/a.js", ["x/src/a.js"]),
        ("packages/a/./", ["x/notes.md", "x/package.json", "x/src/a.js"]),
        ("packages/./a/./src", ["x/a/src/a.js"]),
        ("packages/*/package.json", ["x/packages/a/package.json", "x/packages/b/package.json"]),
        ("./packages/*/./package.json", ["x/package.json"]),
        ("packages/*/./src", ["x/src/a.js"]),
        (
            "packages/./**/package.json",
            ["x/a/package.json", "x/b/deep/er/package.json", "x/b/package.json"],
        ),
        ("packages/?/*.md", ["x/packages/a/notes.md"]),
        ("hom*", ["x/hom.go", "x/home.txt"]),
        ("packages/none*", []),
        ("none*/./x", []),
    ],
)
def test_parents_keeps_the_directories_above_what_is_named_behind_the_pivot(
    context: DirectoryContext, name: str, written: list[str]
) -> None:
    assert Stage().copy_parents(context, name, "/x").names == written


@pytest.mark.parametrize("name", ["none", "tools/none", "tools/./none", "none/./run.sh"])
def test_parents_names_a_plain_path_that_is_not_there(context: DirectoryContext, name: str) -> None:
    with pytest.raises(SourceNotFound, match="file does not exist"):
        Stage().copy_parents(context, name, "/x/")


def test_nothing_is_written_for_parents_that_lead_nowhere(context: DirectoryContext) -> None:
    assert Stage().copy_parents(context, "packages/*/none", "/x/").plan.items == []


def test_parents_makes_directories_as_the_source_has_them_with_the_owner_that_is_asked_for(files: Path) -> None:
    (files / "packages").chmod(0o711)
    (files / "packages" / "a").chmod(0o750)
    stage = Stage(ownership=Ownership(7, 8)).copy_parents(scanned(files), "packages/a/*.json", "/x")
    assert {os.fsdecode(i.path): (oct(i.node.mode), i.node.uid, i.node.gid) for i in stage.plan.items} == {
        "x": ("0o40755", 7, 8),
        "x/packages": ("0o40711", 7, 8),
        "x/packages/a": ("0o40750", 7, 8),
        "x/packages/a/package.json": (oct((files / "packages/a/package.json").stat().st_mode), 7, 8),
    }


def test_parents_leaves_a_directory_that_exists_its_owner(files: Path) -> None:
    (files / "packages").chmod(0o711)
    root = directory(x=directory(0o700, 5, packages=directory(0o700, 6)))
    stage = Stage(root).copy_parents(scanned(files), "packages/a/package.json", "/x")
    assert (stage.at("x").mode, stage.at("x").uid) == (0o40700, 5)
    assert (stage.at("x/packages").mode, stage.at("x/packages").uid) == (0o40711, 6)


def test_parents_excludes_by_the_path_behind_the_pivot(context: DirectoryContext) -> None:
    stage = Stage().copy_parents(context, "packages/./*", "/x", exclude=["**/*.json", "a/*.md"])
    assert stage.names == ["x/a/src/a.js"]


def test_parents_follows_no_link_behind_the_pivot(files: Path) -> None:
    (files / "to-dir").symlink_to("tools")
    (files / "packages" / "again").symlink_to("../hom.go")
    context = scanned(files)
    assert Stage().copy_parents(context, "to-dir/./run.sh", "/x").texts == {"x/run.sh": "run"}
    assert Stage().copy_parents(context, "packages/again", "/x").at("x/packages/again").target == b"../hom.go"
    with pytest.raises(SourceNotFound):
        Stage().copy_parents(context, "to-dir/run.sh", "/x")


def test_parents_sees_what_dockerignore_leaves_in(files: Path) -> None:
    source = SentContext(files, "packages\n!packages/b/deep\n")
    assert Stage().copy_parents(source, "packages/**/package.json", "/").names == ["packages/b/deep/er/package.json"]
    with pytest.raises(SourceNotFound):
        Stage().copy_parents(source, "packages/a/package.json", "/")


# owners and modes


def test_files_of_a_context_are_roots_and_those_of_a_stage_keep_their_owner(files: Path) -> None:
    os.chown(files / "README.md", 7, 8)
    source = scanned(files)
    node = source.tree.lookup(b"README.md")
    assert node is not None
    node.uid, node.gid = 7, 8
    copied = Stage().copy(source, "README.md", "/x").at("x")
    kept = Stage().copy(source, "README.md", "/x", keep_owner=True).at("x")
    assert (copied.uid, copied.gid, kept.uid, kept.gid) == (0, 0, 7, 8)


def test_the_owner_and_mode_that_are_asked_for_are_those_of_all_that_is_new(files: Path) -> None:
    (files / "tools" / "link").symlink_to("run.sh")
    ownership = Ownership(7, 8, ModeChange.parse("u=rwX,go=rX"))
    stage = Stage(directory(there=directory(0o700, 5)), ownership).copy(scanned(files), "packages tools", "/there/new/")
    assert (stage.at("there").mode, stage.at("there").uid) == (0o40700, 5)
    for path, mode in [("there/new", 0o40755), ("there/new/a/package.json", 0o100644), ("there/new/link", 0o120777)]:
        assert (stage.at(path).mode, stage.at(path).uid, stage.at(path).gid) == (mode, 7, 8)


# the layer


def test_a_plan_is_written_as_a_layer_that_says_the_same(
    files: Path, context: DirectoryContext, tmp_path: Path
) -> None:
    stage = Stage(directory(there=directory())).copy(context, "packages", "/there/")
    layer = write_plan(stage.plan.items, tmp_path / "tar", tmp_path / "tree")
    assert layer is not None
    written = {os.fsdecode(path): node.mode for path, node in load(tmp_path / "tree").walk() if path}
    assert written == {os.fsdecode(item.path): item.node.mode for item in stage.plan.items}


def test_two_names_of_one_file_stay_one_but_what_is_copied_twice_is_two(context: DirectoryContext) -> None:
    one = file()
    source = FileSource(MergedTree(directory(a=one, b=one)), context.contents)

    def identities(stage: Stage) -> list[int | None]:
        return [item.identity for item in stage.plan.items if item.node.is_regular]

    together, apart = identities(Stage().copy(source, "/", "/x/")), identities(Stage().copy(source, "a b", "/x/"))
    assert (len(together), len(set(together)), len(apart), len(set(apart))) == (2, 1, 2, 2)


def test_files_of_sources_that_are_gone_are_not_taken_for_each_other(context: DirectoryContext) -> None:
    stage = Stage()
    for number in range(50):
        stage.plan.add_tree(FileSource(MergedTree(directory(f=file())), context.contents), f"/{number}")
    identities = [item.identity for item in stage.plan.items if item.node.is_regular]
    assert len(set(identities)) == 50


def test_a_plans_digest_tells_bytes_names_and_modes_but_not_times(files: Path) -> None:
    def digest() -> str:
        return plan_digest(Stage().copy(scanned(files), "tools", "/x").plan.items)

    first = digest()
    os.utime(files / "tools" / "run.sh", (1, 1))
    (files / "README.md").write_text("not copied")
    assert digest() == first
    (files / "tools" / "run.sh").chmod(0o700)
    second = digest()
    (files / "tools" / "run.sh").write_text("changed")
    third = digest()
    (files / "tools" / "run.sh").rename(files / "tools" / "ran.sh")
    assert len({first, second, third, digest()}) == 4
