"""Merge: what a stack of layers shows, exactly as the OCI image specification rules (layer.md, "Applying Changesets").

A whiteout hides what lower layers have, never what its own layer adds. A directory that a layer only implies takes nothing away from
the lower one's attributes; if the lower layer has a symbolic link to a directory there, the entries go where it leads.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina.layer.errors import InvalidLayer
from lamina.layer.headers import printable
from lamina.layer.tree import LayerTree, MergedTree, Node, SymlinkLoop


def merge(trees: Sequence[LayerTree]) -> MergedTree:
    """Stack layers, the lowest first. The trees are used up: their nodes become the result's.

    Raises InvalidLayer if a hard link's target is in no lower layer.
    """
    merged = MergedTree()
    for number, tree in enumerate(trees):
        apply_layer(merged, tree, number)
    return merged


def apply_layer(merged: MergedTree, tree: LayerTree, number: int) -> None:
    """Put one more layer, the *number*-th from below, on top of a merged tree; *tree* is used up.

    Raises InvalidLayer if a hard link's target is in no lower layer.
    """
    _number(tree.root, number)
    links: list[tuple[Node, bytes, Node]] = []
    _apply(merged, merged.root, tree.root, links)
    for parent, name, link in links:
        _resolve_link(merged, parent, name, link)


def _number(node: Node, layer: int) -> None:
    """Write the layer's number into every node."""
    node.layer = layer
    if node.children:
        for child in node.children.values():
            if child.children is not None:
                _number(child, layer)
            else:
                child.layer = layer


def _apply(merged: MergedTree, lower: Node, upper: Node, links: list[tuple[Node, bytes, Node]]) -> None:
    """Put one layer's directory over what is there."""
    assert lower.children is not None
    assert upper.children is not None
    if upper.opaque:
        lower.children.clear()
    for name in upper.whiteouts or ():
        lower.children.pop(name, None)
    if upper.explicit:
        lower.mode, lower.uid, lower.gid = upper.mode, upper.uid, upper.gid
        lower.mtime_ns, lower.xattrs, lower.explicit = upper.mtime_ns, upper.xattrs, True
    for name, node in upper.children.items():
        if node.link is not None:
            links.append((lower, name, node))
        elif node.children is None:
            lower.children[name] = node
        else:
            _apply(merged, _directory_for(merged, lower, name, node), node, links)


def _directory_for(merged: MergedTree, parent: Node, name: bytes, upper: Node) -> Node:
    """The merged directory that an upper layer's directory *name* goes into."""
    assert parent.children is not None
    existing = parent.children.get(name)
    if existing is not None and existing.children is not None:
        return existing
    if existing is not None and existing.is_symlink and not upper.explicit:
        led_to = _follow(merged, parent, existing)
        if led_to is not None:
            return led_to
    made = parent.children[name] = upper.copy_of_directory()
    return made


def _follow(merged: MergedTree, parent: Node, link: Node) -> Node | None:
    """The directory that a symbolic link in *parent* leads to, if it leads to one."""
    if not link.target.startswith(b"/"):
        path = _path_of(merged, parent)
        if path is None:
            return None
        target = path + b"/" + link.target
    else:
        target = link.target
    try:
        node = merged.lookup(target)
    except SymlinkLoop:
        return None
    return node if node is not None and node.children is not None else None


def _path_of(merged: MergedTree, directory: Node) -> bytes | None:
    if directory is merged.root:
        return b""
    return next((path for path, node in merged.walk() if node is directory), None)


def _resolve_link(merged: MergedTree, parent: Node, name: bytes, link: Node) -> None:
    assert link.link is not None
    assert parent.children is not None
    target = merged.lookup(link.link, follow=False)
    if target is None or target.children is not None:
        raise InvalidLayer(f"hard link to {printable(link.link)!r}, which no lower layer has", printable(name))
    parent.children[name] = target
