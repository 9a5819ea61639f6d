"""Merge: what a stack of layers shows, exactly as the OCI image specification rules (layer.md, "Applying Changesets").

A whiteout hides what lower layers have, never what its own layer adds. A directory that a layer only implies takes nothing away from
the lower one's attributes; if the lower layer has a symbolic link to a directory there, the entries go where it leads. ``difference``
says the same layer again as what it did to the tree below it: without links on any path, which is what overlayfs can stack.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from lamina.layer.errors import InvalidLayer
from lamina.layer.headers import printable
from lamina.layer.tree import FileTree, LayerTree, MergedTree, Node, SymlinkLoop, directories

_OPAQUE = b"trusted.overlay.opaque"


def merge(trees: Sequence[LayerTree]) -> MergedTree:
    """Stack layers, the lowest first. The trees are used up: their nodes become the result's.

    Raises InvalidLayer if a hard link's target is nowhere.
    """
    merged = MergedTree()
    for number, tree in enumerate(trees):
        apply_layer(merged, tree, number)
    return merged


def apply_layer(merged: MergedTree, tree: LayerTree, number: int) -> None:
    """Put one more layer, the *number*-th from below, on top of a merged tree; *tree* is used up.

    Nodes that the merged tree had are changed only if they are directories. Raises InvalidLayer if a hard link's target is nowhere.
    """
    targets = _HardLinks(merged, _number(tree, number))
    additions = _merge_directories(merged, tree)
    for parent, name, node in additions:
        _children(parent)[name] = node
    for parent, name, node in additions:
        if node.link is not None:
            _children(parent)[name] = targets.of(name, node)


def copy_of_directories(tree: FileTree) -> FileTree:
    """The same tree with directories of its own, so that it stays what it is while layers are put on the other."""
    copies = {id(tree.root): tree.root.copy_of_directory()}
    for directory in directories(tree.root):
        children = _children(copies[id(directory)])
        for name, child in _children(directory).items():
            if child.children is not None:
                copies[id(child)] = child.copy_of_directory()
            children[name] = copies.get(id(child), child)
    return FileTree(copies[id(tree.root)])


def difference(below: FileTree, above: FileTree) -> LayerTree:
    """The layer that makes *above* of *below*, every directory in it explicit and none opaque.

    Files that are the same node in both count as unchanged, so *below* is best a ``copy_of_directories`` of what became *above*.
    """
    result = LayerTree(above.root.copy_of_directory())
    result.root.explicit = True
    nothing = Node.implicit_directory()
    pairs = [(below.root, above.root, result.root)]
    nested: list[tuple[Node, bytes]] = [(result.root, b"")]
    for old_directory, directory, made in pairs:
        old = _children(old_directory)
        made.whiteouts = {name for name in old if name not in _children(directory)} or None
        for name, node in _children(directory).items():
            before = old.get(name)
            if node.children is None:
                if node is not before:
                    _children(made)[name] = node
                continue
            child = _children(made)[name] = node.copy_of_directory()
            child.explicit = True
            pairs.append((before if before is not None and before.children is not None else nothing, node, child))
            nested.append((made, name))
    for (old_directory, directory, made), (parent, name) in zip(pairs[:0:-1], nested[:0:-1], strict=True):
        is_empty = not made.children and not made.whiteouts
        if is_empty and old_directory is not nothing and directory.has_attributes_of(old_directory):
            del _children(parent)[name]
    return result


def stackable(tree: LayerTree) -> MergedTree | None:
    """One layer as a tree that overlayfs stacks as it is, or None if only a merge gives what it means.

    Overlayfs has words for what a layer takes away, a 0:0 device and a mark on a directory, but none for a directory whose attributes
    the layer does not say, nor for a hard link to a lower layer's file. *tree* is used up.
    """
    for directory in directories(tree.root):
        if not directory.explicit and directory is not tree.root:
            return None
        children = _children(directory)
        if any(child.link is not None for child in children.values()):
            return None
        for name in directory.whiteouts or ():
            children.setdefault(name, Node(stat.S_IFCHR))
        if directory.opaque:
            directory.xattrs = {**(directory.xattrs or {}), _OPAQUE: b"y"}
    return MergedTree(tree.root)


class _HardLinks:
    """What a layer's hard links to files outside it mean: a lower layer's file, even one that this layer hides, else one that the
    layer itself has further on, through any number of links."""

    def __init__(self, merged: MergedTree, links: Sequence[Node]) -> None:
        self._merged = merged
        self._found: dict[bytes, Node] = {}
        for link in links:
            assert link.link is not None
            node = self._look_up(link.link)
            if node is not None:
                self._found[link.link] = node

    def of(self, name: bytes, link: Node) -> Node:
        """The file that a link named *name* is another name of. Raises InvalidLayer."""
        passed: dict[bytes, None] = {}
        node: Node | None = link
        while node is not None and node.link is not None:
            path = node.link
            node = None if path in passed else self._found.get(path) or self._look_up(path)
            passed[path] = None
        if node is None:
            reason = f"hard link to {printable(link.link or b'')!r}, which neither this nor a lower layer has"
            raise InvalidLayer(reason, printable(name))
        self._found.update(dict.fromkeys(passed, node))
        return node

    def _look_up(self, path: bytes) -> Node | None:
        try:
            node = self._merged.lookup(path, follow=False)
        except SymlinkLoop:
            return None
        return node if node is not None and node.children is None else None


def _number(tree: LayerTree, layer: int) -> list[Node]:
    """Write the layer's number into every node; returns the hard links whose targets are elsewhere."""
    links = []
    for directory in directories(tree.root):
        directory.layer = layer
        for child in _children(directory).values():
            child.layer = layer
            if child.link is not None:
                links.append(child)
    return links


def _merge_directories(merged: MergedTree, tree: LayerTree) -> list[tuple[Node, bytes, Node]]:
    """Take away what the layer hides and put its directories in; returns what is to be added: (directory, name, file)."""
    additions: list[tuple[Node, bytes, Node]] = []
    todo: list[tuple[Node, bytes, Node]] = [(merged.root, b"", tree.root)]
    while todo:
        lower, path, upper = todo.pop()
        children = _children(lower)
        if upper.opaque:
            children.clear()
        for name in upper.whiteouts or ():
            children.pop(name, None)
        if upper.explicit:
            lower.mode, lower.uid, lower.gid = upper.mode, upper.uid, upper.gid
            lower.mtime_ns, lower.xattrs, lower.explicit = upper.mtime_ns, upper.xattrs, True
        below = []
        for name, node in _children(upper).items():
            if node.children is None:
                additions.append((lower, name, node))
            else:
                below.append((*_directory_for(merged, lower, path, name, node), node))
        todo += below[::-1]
    return additions


def _directory_for(merged: MergedTree, parent: Node, path: bytes, name: bytes, upper: Node) -> tuple[Node, bytes]:
    """The merged directory that an upper layer's directory *name* goes into, and its path."""
    here = path + b"/" + name
    existing = _children(parent).get(name)
    if existing is not None and existing.children is not None:
        return existing, here
    if existing is not None and existing.is_symlink and not upper.explicit:
        led_to = _follow(merged, path, existing)
        if led_to is not None:
            return led_to
    made = _children(parent)[name] = upper.copy_of_directory()
    return made, here


def _follow(merged: MergedTree, path: bytes, link: Node) -> tuple[Node, bytes] | None:
    """The directory that a symbolic link in the directory at *path* leads to, if it leads to one, and its path."""
    try:
        parts, node = merged.resolve(link.target if link.target.startswith(b"/") else path + b"/" + link.target)
    except SymlinkLoop:
        return None
    return (node, b"/".join(parts)) if node is not None and node.children is not None else None


def _children(directory: Node) -> dict[bytes, Node]:
    assert directory.children is not None
    return directory.children
