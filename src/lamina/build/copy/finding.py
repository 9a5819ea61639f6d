"""What COPY and ADD name in a source: paths, wildcards and links, and which files of a directory are meant."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lamina.build.context.source import FileSource
from lamina.build.errors import BuildFailed, SourceNotFound
from lamina.dockerfile.ignore import IgnoreRules, has_wildcard, match_wildcard
from lamina.layer.tree import Node, SymlinkLoop


@dataclass(frozen=True)
class Found:
    """A file of a source: where it lies (no leading slash, no link in it), and the *name* it was asked for by."""

    path: bytes
    node: Node
    name: bytes = b""


def find(source: FileSource, pattern: str, keyword: str) -> list[Found]:
    """The files that a source of COPY or ADD names, in order of their paths; links are followed.

    A wildcard may match nothing. Raises SourceNotFound for a path that is not there, or that .dockerignore leaves out.
    """
    parts = _cleaned(pattern).split("/")
    plain = next((i for i, part in enumerate(parts) if has_wildcard(part)), len(parts))
    if plain == len(parts):
        return [find_path(source, pattern, keyword)]
    with _no_loop(pattern, keyword):
        start = _follow(source, os.fsencode("/".join(parts[:plain])))
        return [] if start is None else list(_match(source, start, parts[plain:]))


def find_path(source: FileSource, path: str, keyword: str) -> Found:
    """The file that a path leads to, in which no character is special; links are followed. Raises SourceNotFound."""
    with _no_loop(path, keyword):
        found = _follow(source, os.fsencode(_cleaned(path)))
    if found is None:
        raise SourceNotFound(keyword, path, source.place)
    return found


def select(source: FileSource, directory: Found, rules: Sequence[IgnoreRules]) -> Iterator[tuple[bytes, Node]]:
    """What lies below a directory, by its path from there, parents first: all that the source shows and no rules leave out.

    A directory that is left out itself comes right before the first thing in it that is not, if there is any (fsutil's ``copy``).
    """
    rules = [rule for rule in rules if rule]
    passed: dict[bytes, Node] = {}
    todo = _entries_backwards(directory.node, b"")
    while todo:
        below, node = todo.pop()
        path = joined(directory.path, below)
        hiding = [rule for rule in rules if rule.excludes(os.fsdecode(below))] if rules else rules
        if not hiding and source.is_visible(path):
            if passed:
                yield from _taken_above(passed, below)
            yield below, node
        elif node.children is not None and _may_show_below(source, path, hiding, below):
            passed[below] = node
        else:
            continue
        todo += _entries_backwards(node, below)


def joined(directory: bytes, name: bytes) -> bytes:
    """A path below a directory; the root is empty."""
    return directory + b"/" + name if directory and name else directory or name


def _cleaned(path: str) -> str:
    """A path from the source's root, without a leading slash."""
    return posixpath.normpath("/" + path).lstrip("/")


@contextmanager
def _no_loop(path: str, keyword: str) -> Iterator[None]:
    try:
        yield
    except SymlinkLoop:
        raise BuildFailed(f"{keyword} failed: {path}: too many links") from None


def _follow(source: FileSource, path: bytes) -> Found | None:
    """The file that a path leads to, links followed; None if there is none, or .dockerignore leaves out the file or the link to it."""
    _, named = source.tree.resolve(path, follow=False)
    parts, node = source.tree.resolve(path)
    real = b"/".join(parts)
    if named is None or node is None:
        return None
    if (path and not source.is_present(path, named)) or (real and not source.is_present(real, node)):
        return None
    return Found(real, node, path.rpartition(b"/")[2])


def _match(source: FileSource, start: Found, patterns: Sequence[str]) -> Iterator[Found]:
    level = [(start.path, start.node)]
    for pattern in patterns:
        level = [
            (joined(path, name), child)
            for path, node in level
            for name, child in sorted((node.children or {}).items())
            if match_wildcard(pattern, os.fsdecode(name))
        ]
    for path, _ in level:
        found = _follow(source, path)
        if found is not None:
            yield found


def _may_show_below(source: FileSource, path: bytes, hiding: Sequence[IgnoreRules], below: bytes) -> bool:
    """Whether a directory that is left out may hold something that is not."""
    return source.may_show_below(path) and all(rule.may_contain_included(os.fsdecode(below)) for rule in hiding)


def _taken_above(passed: dict[bytes, Node], path: bytes) -> Iterator[tuple[bytes, Node]]:
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        above = b"/".join(parts[:depth])
        node = passed.pop(above, None)
        if node is not None:
            yield above, node


def _entries_backwards(directory: Node, prefix: bytes) -> list[tuple[bytes, Node]]:
    children = directory.children or {}
    return [(joined(prefix, name), children[name]) for name in sorted(children, reverse=True)]
