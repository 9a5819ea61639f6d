"""What can go wrong with images, in docker's words where docker has some."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import Conflict, InvalidArgument, NotFound


class ImageNotFound(NotFound):
    """No image has this name, ID or digest."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No such image: {name}")
        self.name = name


class AmbiguousImageID(InvalidArgument):
    """Several images' IDs begin like this."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"multiple IDs found with provided prefix: {prefix}")
        self.prefix = prefix


class ImageInUse(Conflict):
    """An image cannot be deleted while something needs it."""

    def __init__(self, image: str, reason: str, *, forceable: bool) -> None:
        kind = "must be forced" if forceable else "cannot be forced"
        super().__init__(f"conflict: unable to delete {image} ({kind}) - {reason}")
        self.image = image
        self.reason = reason


class InvalidArchive(InvalidArgument):
    """An archive to load is no image archive, or one of its parts is wrong."""

    def __init__(self, reason: str, entries: Sequence[str] = ()) -> None:
        names = f": {', '.join(entries)}" if entries else ""
        super().__init__(f"invalid image archive: {reason}{names}")
        self.reason = reason
