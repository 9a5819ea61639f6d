"""``build --output``: what was built, as files, as an archive or as an image; the words are BuildKit's.

The daemon sends a tar in every case, and all that is written is written here, by whoever asked for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lamina.cli.grammar import CommandFailed
from lamina.cli.values import csv_fields
from lamina.client.client import Client, quoted

_KINDS = ("local", "tar", "oci", "docker", "image", "registry", "cacheonly")
_STDOUT = "-"


class Output:
    """One ``--output``: its kind, where it goes (``-`` for standard output), and the names that the image gets.

    Without *as_tar* an archive's files are wanted, below *dest*.
    """

    __slots__ = ("as_tar", "dest", "kind", "names", "push")

    def __init__(
        self, kind: str, dest: str = "", names: tuple[str, ...] = (), *, push: bool = False, as_tar: bool = True
    ) -> None:
        self.kind = kind
        self.dest = dest
        self.names = names
        self.push = push
        self.as_tar = as_tar

    @property
    def is_image(self) -> bool:
        """Whether the daemon's keeping the image is all that is asked for."""
        return self.kind == "image"

    @property
    def is_directory(self) -> bool:
        """Whether files are written below the destination."""
        return self.kind == "local" or not self.as_tar

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
    as_tar = _as_tar(values, kind, dest)
    if values:
        raise ValueError(f"output option {next(iter(values))} is not supported by lamina")
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
    return Output(kind, dest, names, push=push, as_tar=as_tar)


def _as_tar(values: dict[str, str], kind: str, dest: str) -> bool:
    """Whether an archive is wanted as one file. Raises ValueError."""
    as_tar = values.pop("tar", "true").lower() not in ("false", "f", "0") or kind not in ("oci", "docker")
    if not as_tar and dest in ("", _STDOUT):
        raise ValueError(f"dest is required for {kind} output with tar=false, and is a directory")
    return as_tar


def check(output: Output) -> None:
    """Refuse what cannot be written, before anything is built. Raises CommandFailed."""
    if output.is_directory:
        if os.path.exists(output.dest) and not os.path.isdir(output.dest):
            raise CommandFailed(f"output directory {output.dest} is a file")
    elif output.kind in ("tar", "oci", "docker"):
        from lamina.cli.archives import check_output

        check_output(None if output.takes_stdout else output.dest, "failed to write the output")


def write(client: Client, output: Output, image_id: str, names: list[str]) -> None:
    """Get what was built and write it. *names* are those that an archive has the image under."""
    if output.kind in ("local", "tar"):
        response = client.request("GET", f"/lamina/images/{quoted(image_id)}/root")
    elif output.kind in ("oci", "docker"):
        response = client.request("GET", "/images/get", {"names": names or [image_id]})
    else:
        return
    if output.is_directory:
        from lamina.cli.unpacking import unpack

        unpack(response, Path(output.dest))
    else:
        from lamina.cli.archives import write_archive

        write_archive(response, None if output.takes_stdout else output.dest)


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
