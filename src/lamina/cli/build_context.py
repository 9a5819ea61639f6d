"""The context of ``lamina build``: a directory, a tar or a Dockerfile on standard input, or what the daemon fetches.

A daemon of this machine reads a directory where it lies; to any other it is sent as a tar.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.cli.grammar import UsageError
from lamina.cli.packing import END, entries, entry, gathered
from lamina.dockerfile.ignore import IgnoreRules

_READ_BYTES = 1 << 20
_OUTSIDE = ".dockerfile.outside-the-context"
_IGNORE = ".dockerignore"
_STDIN = "-"


class Context:
    """A context, and the Dockerfile: the *dockerfile* of this name in it, or its *text*, with what stands beside it to be ignored.

    One of *directory*, *remote* and *tar* is given, or none for no files at all.
    """

    __slots__ = ("directory", "dockerfile", "ignore_text", "remote", "tar", "text")

    def __init__(
        self,
        dockerfile: str,
        *,
        text: bytes | None = None,
        ignore_text: bytes | None = None,
        directory: Path | None = None,
        remote: str = "",
        tar: Iterator[bytes] | None = None,
    ) -> None:
        self.dockerfile = dockerfile
        self.text = text
        self.ignore_text = ignore_text
        self.directory = directory
        self.remote = remote
        self.tar = tar

    def fields(self) -> dict[str, Any]:
        """What lamina's own build request says of the Dockerfile."""
        texts = {"dockerfile_text": self.text, "dockerignore_text": self.ignore_text}
        return {
            "dockerfile": self.dockerfile,
            "remote": self.remote,
            **{name: data.decode("utf-8", "surrogateescape") for name, data in texts.items() if data is not None},
        }

    def dockerfile_bytes(self) -> bytes:
        """The Dockerfile, as far as it is at hand; nothing else of what the daemon fetches or standard input brings."""
        if self.text is not None or self.directory is None:
            return self.text or b""
        try:
            return (self.directory / self.dockerfile).read_bytes()
        except OSError:
            return b""

    def files(self) -> Iterator[bytes]:
        """The files as a tar in pieces; nothing for what the daemon fetches."""
        if self.tar is not None:
            yield from self.tar
        elif self.directory is not None:
            yield from _tar(self.directory, _rules(self.directory, self.dockerfile, self.ignore_text), None)

    def classic(self) -> tuple[str, Iterator[bytes]]:
        """What docker's own request takes: the Dockerfile's name, and a tar that a Dockerfile from elsewhere is a part of.

        Such a one comes along under a name that the .dockerignore is made to leave out.
        """
        if self.text is None:
            return self.dockerfile, self.files()
        if self.directory is None:
            return _OUTSIDE, iter([entry(_OUTSIDE, self.text), END])
        rules = _rules(self.directory, self.dockerfile, self.ignore_text)
        return _OUTSIDE, _tar(self.directory, rules, self.text)


def read_context(path: str, dockerfile: str | None) -> Context:
    """The context that a command names. Raises UsageError."""
    if path == _STDIN:
        if dockerfile == _STDIN:
            raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
        return _from_stdin(dockerfile)
    if is_remote(path):
        return Context(dockerfile or "Dockerfile", remote=path) if dockerfile != _STDIN else _typed(remote=path)
    if not os.path.isdir(path):
        raise UsageError(f'unable to prepare context: path "{path}" not found')
    root = Path(path).resolve()
    if dockerfile == _STDIN:
        return _typed(directory=root)
    file = _dockerfile_path(root, dockerfile)
    try:
        return Context(str(file.resolve().relative_to(root)), directory=root)
    except ValueError:
        beside = file.with_name(file.name + _IGNORE)
        ignore_text = beside.read_bytes() if beside.is_file() else None
        return Context(file.name, text=_read(file), ignore_text=ignore_text, directory=root)


def is_remote(path: str) -> bool:
    """Whether a context is fetched by the daemon: a URL, or what looks like a repository and is no directory."""
    return "://" in path or (path.startswith(("git@", "github.com/")) and not os.path.exists(path))


def _typed(*, directory: Path | None = None, remote: str = "") -> Context:
    """A context whose Dockerfile comes on standard input."""
    return Context("Dockerfile", text=sys.stdin.buffer.read(), directory=directory, remote=remote)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"failed to read dockerfile: open {file}: {(error.strerror or '').lower()}") from None


def _dockerfile_path(root: Path, dockerfile: str | None) -> Path:
    file = Path(dockerfile) if dockerfile else root / "Dockerfile"
    if not dockerfile and not file.exists() and (root / "dockerfile").exists():
        file = root / "dockerfile"
    if not file.exists():
        raise UsageError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {file}: no such file"
        )
    return file


def _from_stdin(dockerfile: str | None) -> Context:
    """Standard input is a context's tar, or a Dockerfile alone."""
    head = sys.stdin.buffer.read(512)
    is_tar = (
        head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd" or head[:3] == b"BZh"
    )
    if is_tar or head[:6] == b"\xfd7zXZ\x00":
        return Context(dockerfile or "Dockerfile", tar=_prefixed(head))
    return Context("Dockerfile", text=head + sys.stdin.buffer.read())


def _prefixed(head: bytes) -> Iterator[bytes]:
    yield head
    yield from iter(lambda: sys.stdin.buffer.read(_READ_BYTES), b"")


def _rules(root: Path, dockerfile: str, outside: bytes | None) -> bytes:
    """The text of what is to be ignored: that beside the Dockerfile, else the directory's."""
    if outside is not None:
        return outside
    for path in (root / f"{dockerfile}{_IGNORE}", root / _IGNORE):
        if path.is_file():
            return path.read_bytes()
    return b""


def _tar(root: Path, rules: bytes, outside_dockerfile: bytes | None) -> Iterator[bytes]:
    """The directory's tar, *rules* applied; owners are root's, as docker sends them."""
    files = _files(root, IgnoreRules.parse(rules.decode("utf-8", "replace")))
    if outside_dockerfile is None:
        yield from gathered(entries(files, _as_root))
    else:
        yield from gathered(entries((file for file in files if file[1] != _IGNORE), _as_root))
        yield entry(_IGNORE, (rules or _IGNORE.encode()) + f"\n{_OUTSIDE}\n".encode())
        yield entry(_OUTSIDE, outside_dockerfile)
    yield END


def _as_root(header: tarfile.TarInfo, _: str) -> None:
    header.uid = header.gid = 0


def _files(root: Path, rules: IgnoreRules) -> Iterator[tuple[str, str]]:
    """(path, name in the context) of everything that the rules leave in, parents first, in order.

    What the daemon reads of a context itself is never left out.
    """
    for directory, names, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        prefix = "" if relative == "." else relative + "/"
        names.sort()
        links = [n for n in names if os.path.islink(os.path.join(directory, n))]
        for name in sorted([*files, *links]):
            always = name.endswith(_IGNORE) or name.lower().endswith("dockerfile")
            if (always and not prefix) or not rules.excludes(prefix + name):
                yield os.path.join(directory, name), prefix + name
        names[:] = [n for n in names if n not in links]
        kept = []
        for name in names:
            excluded = bool(rules) and rules.excludes(prefix + name)
            if not excluded:
                yield os.path.join(directory, name), prefix + name
            if not excluded or rules.may_contain_included(prefix + name):
                kept.append(name)
        names[:] = kept
