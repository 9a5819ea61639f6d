"""``build --output``: what was built, as files, as an archive or as an image; the words are BuildKit's.

The daemon sends a tar in every case, and all that is written is written here, by whoever asked for it.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.cli.grammar import CommandFailed
from lamina.cli.values import csv_fields
from lamina.client.client import Client, Response, quoted

_KINDS = ("local", "tar", "oci", "docker", "image", "registry", "cacheonly")
_STDOUT = "-"
_MODE = 0o7777


class Output:
    """One ``--output``: its kind, where it goes (``-`` for standard output), and the names that the image gets."""

    __slots__ = ("dest", "kind", "names", "push")

    def __init__(self, kind: str, dest: str = "", names: tuple[str, ...] = (), *, push: bool = False) -> None:
        self.kind = kind
        self.dest = dest
        self.names = names
        self.push = push

    @property
    def is_image(self) -> bool:
        """Whether the daemon's keeping the image is all that is asked for."""
        return self.kind == "image"

    @property
    def takes_stdout(self) -> bool:
        """Whether standard output is not for messages."""
        return self.dest == _STDOUT


def read_output(text: str) -> Output:
    """``DIR``, ``-``, or ``type=KIND,dest=PATH,…``. Raises ValueError."""
    fields = csv_fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        return Output("tar", _STDOUT) if text == _STDOUT else Output("local", fields[0])
    values: dict[str, str] = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"invalid value {field}")
        values[name.strip().lower()] = value
    return _checked(values)


def _checked(values: dict[str, str]) -> Output:
    kind = values.pop("type", "")
    dest = values.pop("dest", "")
    names = tuple(name for name in values.pop("name", "").split(",") if name)
    if not kind:
        raise ValueError("type is required for output")
    push = values.pop("push", "false").lower() in ("true", "1") or kind == "registry"
    if kind == "registry":
        kind = "image"
    if kind not in _KINDS:
        raise ValueError(f"unknown output type {kind}: it must be one of {', '.join(_KINDS)}")
    unknown = [name for name in values if name != "tar"]
    if unknown:
        raise ValueError(f"output option {unknown[0]} is not supported by lamina")
    if kind == "docker" and not dest:
        kind = "image"  # BuildKit loads it into docker then, and here it is there already
    if kind == "local" and not dest:
        raise ValueError("dest is required for local output")
    if kind in ("image", "cacheonly") and dest:
        raise ValueError(f"dest cannot be used with output type {kind}")
    if kind in ("tar", "oci"):
        dest = dest or _STDOUT
    if push and kind != "image":
        raise ValueError(f"push cannot be used with output type {kind}")
    return Output(kind, dest, names, push=push)


def check(output: Output) -> None:
    """Refuse what cannot be written, before anything is built. Raises CommandFailed."""
    if output.kind == "local" and os.path.exists(output.dest) and not os.path.isdir(output.dest):
        raise CommandFailed(f"output directory {output.dest} is a file")
    if output.kind in ("tar", "oci", "docker"):
        from lamina.cli.containers import check_output

        check_output(None if output.takes_stdout else output.dest, "failed to write the output")


def write(client: Client, output: Output, image_id: str, names: list[str]) -> None:
    """Get what was built and write it. *names* are those that an archive has the image under."""
    from lamina.cli.containers import write_archive

    if output.kind == "local":
        unpack(client.request("GET", f"/lamina/images/{quoted(image_id)}/root"), Path(output.dest))
    elif output.kind == "tar":
        response = client.request("GET", f"/lamina/images/{quoted(image_id)}/root")
        write_archive(response, None if output.takes_stdout else output.dest)
    elif output.kind in ("oci", "docker"):
        response = client.request("GET", "/images/get", {"names": names or [image_id]})
        write_archive(response, None if output.takes_stdout else output.dest)


def unpack(response: Response, directory: Path) -> None:
    """Write a tar's files below a directory, over what is there; they are the caller's own, as with BuildKit.

    No path may lead out of the directory, whatever links the tar or the directory has. Raises CommandFailed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    root = os.path.realpath(directory)
    directories: list[tuple[str, tarfile.TarInfo]] = []
    stream: Any = _Stream(iter(response))
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = _place(root, member.name)
            if member.isdir():
                _make_directory(path)
                directories.append((path, member))
            else:
                _make_file(archive, member, path, root)
    for path, member in reversed(directories):
        os.chmod(path, member.mode & _MODE)
        os.utime(path, (member.mtime, member.mtime))


def _place(root: str, name: str) -> str:
    path = os.path.join(root, name.lstrip("/"))
    parent = os.path.realpath(os.path.dirname(path))
    if os.path.basename(path) in ("", ".", "..") or os.path.commonpath((root, parent)) != root:
        raise CommandFailed(f"{name} leads out of {root}")
    return os.path.join(parent, os.path.basename(path))


def _make_directory(path: str) -> None:
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
        os.unlink(path)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o700)


def _make_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, root: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        raise CommandFailed(f"cannot replace the directory {path} by a file")
    if os.path.lexists(path):
        os.unlink(path)
    if member.issym():
        os.symlink(member.linkname, path)
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
    elif member.islnk():
        os.link(_place(root, member.linkname), path, follow_symlinks=False)
    elif member.isreg():
        _write_file(archive, member, path)
    elif os.geteuid() == 0:  # a device or a pipe
        kind = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}.get(member.type, stat.S_IFIFO)
        os.mknod(path, kind | member.mode & _MODE, os.makedev(member.devmajor, member.devminor))


def _write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    import shutil

    source: Any = archive.extractfile(member)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        os.fchmod(file.fileno(), member.mode & _MODE)
    os.utime(path, (member.mtime, member.mtime))


class _Stream:
    """A body in pieces as a file that can be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to *size* bytes; fewer only at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def metadata(client: Client, image_id: str, names: list[str], pushed: str) -> dict[str, Any]:
    """What ``--metadata-file`` has, under BuildKit's keys; *pushed* is the manifest's digest in a registry, if the image went to one."""
    descriptor = client.request("GET", f"/images/{quoted(image_id)}/json").json()["Descriptor"]
    found: dict[str, Any] = {
        "containerimage.config.digest": image_id,
        "containerimage.digest": pushed or descriptor["digest"],
    }
    if not pushed:
        found["containerimage.descriptor"] = descriptor
    if names:
        found["image.name"] = ",".join(names)
    return found


def read_each(texts: list[str]) -> list[Output]:
    """All outputs; at most one may go to standard output. Raises CommandFailed."""
    outputs = []
    for text in texts:
        try:
            outputs.append(read_output(text))
        except ValueError as error:
            raise CommandFailed(f'invalid argument "{text}" for "-o, --output" flag: {error}') from None
    if sum(output.takes_stdout for output in outputs) > 1:
        raise CommandFailed("only one output can be standard output")
    for output in outputs:
        check(output)
    return outputs
