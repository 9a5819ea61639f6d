"""Build arguments: those that every Dockerfile has, and those before the first FROM."""

from __future__ import annotations

from lamina.build.request import PREDEFINED_ARGS, BuildRequest
from lamina.dockerfile import Dockerfile
from lamina.dockerfile.lint import platform_args
from lamina.dockerfile.words import expand_word
from lamina.oci.platform import Platform

NEVER_UNUSED = (*PREDEFINED_ARGS, "SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE")
"""What is meant for the builder, with or without an ARG."""


def predefined_args(request: BuildRequest) -> dict[str, str]:
    """The arguments that every Dockerfile has: the platforms, and the stage that is built."""
    host = Platform.of_host()
    return platform_args(host, request.platform or host, request.targets[-1] if request.targets else "")


def global_args(dockerfile: Dockerfile, request: BuildRequest) -> dict[str, str]:
    """The ARGs before the first FROM, and those that every Dockerfile has."""
    values = predefined_args(request)
    for instruction in dockerfile.global_args:
        for name, default in instruction.pairs:
            given = request.build_args.get(name)
            if given is not None or default is not None:
                text = expand_word(default or "", values, dockerfile.escape)
                values[name] = given if given is not None else text
    return values
