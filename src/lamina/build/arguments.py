"""Build arguments: those that every Dockerfile has, and those before the first FROM."""

from __future__ import annotations

from lamina.build.request import PREDEFINED_ARGS, BuildRequest
from lamina.dockerfile import Dockerfile, DockerfileError
from lamina.dockerfile.lint import platform_args
from lamina.dockerfile.lint.variables import global_values
from lamina.oci.platform import Platform

NEVER_UNUSED = (*PREDEFINED_ARGS, "SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE")
"""What is meant for the builder, with or without an ARG."""


def predefined_args(request: BuildRequest) -> dict[str, str]:
    """The arguments that every Dockerfile has: the platforms, and the stage that is built."""
    host = Platform.of_host()
    return platform_args(host, request.platform or host, request.targets[-1] if request.targets else "")


def global_args(dockerfile: Dockerfile, request: BuildRequest) -> dict[str, str]:
    """The ARGs before the first FROM, and those that every Dockerfile has. Raises DockerfileError."""
    values = predefined_args(request)
    for instruction in dockerfile.global_args:
        try:
            values = global_values([instruction], values, request.build_args, dockerfile.escape)
        except DockerfileError as error:
            raise dockerfile.error(error, instruction) from None
    return values
