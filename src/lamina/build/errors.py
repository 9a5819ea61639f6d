"""Why a build fails."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

from lamina.errors import Conflict, InvalidArgument, LaminaError
from lamina.oci.platform import Platform

E = TypeVar("E", bound=LaminaError)


def shown_with(error: E, source: str) -> E:
    """The same error, whose message tells the lines of the Dockerfile that it came up with.

    A copy: several stages may wait for the one thing that failed.
    """
    shown = copy.copy(error)
    shown.args = (f"{error.message}\n{source}",)
    return shown


class BuildFailed(LaminaError):
    """A step could not be carried out."""


class CommandFailed(BuildFailed):
    """A RUN's command ended with an exit code other than 0."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {code}")
        self.command = command
        self.code = code
        self.source = ""
        """The instruction in the Dockerfile with the lines around it, once somebody has looked it up."""


class SourceNotFound(InvalidArgument):
    """COPY or ADD names what is not there."""

    def __init__(self, keyword: str, path: str, place: str) -> None:
        where = place or "build context or excluded by .dockerignore"
        super().__init__(f"{keyword} failed: file not found in {where}: stat {path}: file does not exist")
        self.path = path


class DockerfileNotFound(InvalidArgument):
    """The context has no Dockerfile of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"failed to read dockerfile: open {name}: no such file or directory")
        self.name = name


class ContextNotHere(Conflict):
    """A client's directory is not this machine's."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"the build context {directory} is not a directory that the daemon sees")
        self.directory = directory


class TargetNotFound(InvalidArgument):
    """No stage has the name that is to be built."""

    def __init__(self, name: str) -> None:
        super().__init__(f"target stage {name} could not be found")
        self.name = name


class NotEntitled(InvalidArgument):
    """A Dockerfile wants what the build was not told to give."""

    def __init__(self, entitlement: str) -> None:
        super().__init__(f"{entitlement} is not allowed; lamina build --allow {entitlement} allows it")
        self.entitlement = entitlement


class ForeignPlatform(BuildFailed):
    """A RUN's programs are for a platform that this machine has no means to run."""

    def __init__(self, platform: Platform, host: Platform) -> None:
        super().__init__(
            f"cannot run programs for {platform}: this host is {host} and has no binfmt_misc handler for "
            f"{platform.architecture}; Debian's qemu-user-static brings one"
        )
        self.platform = platform
