"""The images that a Dockerfile names: of their registries, credential helpers are asked before the daemon wants to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lamina.dockerfile import Dockerfile, DockerfileError, parse
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.lint import platform_args
from lamina.dockerfile.lint.variables import global_values
from lamina.oci.platform import Platform
from lamina.oci.reference import InvalidReference, Reference


def registries_of(text: bytes, build_args: Mapping[str, str]) -> set[str]:
    """The registries of what FROM, COPY --from and RUN --mount=from name, as far as it can be told without the daemon."""
    try:
        dockerfile = parse(text)
        names = set(_names(dockerfile, build_args))
    except DockerfileError:
        return set()  # the daemon will say what is wrong
    stages = {"scratch", *(stage.name for stage in dockerfile.stages)}
    found = set()
    for name in names:
        if name.lower() not in stages and not name.isdigit():
            try:
                found.add(Reference.parse(name).domain)
            except InvalidReference:
                continue
    return found


def _names(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> Iterator[str]:
    host = Platform.of_host()
    values = global_values(dockerfile.global_args, platform_args(host, host), build_args, dockerfile.escape)
    for stage in dockerfile.stages:
        yield stage.base.expanded(values, dockerfile.escape).image
        for instruction in stage.instructions:
            if isinstance(instruction, ins.Copy):
                yield instruction.from_
            elif isinstance(instruction, ins.Run):
                yield from (value for mount in instruction.mounts for key, value in mount if key == "from" and value)
