"""What can go wrong with images, in docker's words where docker has some."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import Conflict, DataLoss, InvalidArgument, NotFound
from lamina.oci.platform import Platform


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


class ImageDamaged(DataLoss):
    """An image's config or manifest is lost."""

    def __init__(self, image_id: str) -> None:
        super().__init__(f"image {image_id} is damaged: its config or manifest is lost")
        self.image_id = image_id

    @property
    def hint(self) -> str:
        """What can be done."""
        return "load it again, or remove it with rmi; lamina image verify says what is lost"


class ImageHeld(Conflict):
    """An image cannot be removed while a build, or the creation of a container, is at work with it."""

    def __init__(self, image_id: str) -> None:
        super().__init__(f"conflict: image {image_id} is being used by a build")
        self.image_id = image_id


class ImageInUse(Conflict):
    """An image cannot be deleted while something needs it."""

    def __init__(self, image: str, reason: str, *, forceable: bool) -> None:
        kind = "must be forced" if forceable else "cannot be forced"
        super().__init__(f"conflict: unable to delete {image} ({kind}) - {reason}")
        self.image = image
        self.reason = reason


class LastNameInUse(Conflict):
    """An image's last name cannot be taken away without force while a container stands on it."""

    def __init__(self, name: str, container_id: str, image: str) -> None:
        using = f"container {container_id} is using its referenced image {image}"
        super().__init__(f'conflict: unable to remove repository reference "{name}" (must force) - {using}')
        self.name = name


class InvalidArchive(InvalidArgument):
    """An archive to load is no image archive, or one of its parts is wrong."""

    def __init__(self, reason: str, entries: Sequence[str] = ()) -> None:
        names = f": {', '.join(entries)}" if entries else ""
        super().__init__(f"invalid image archive: {reason}{names}")
        self.reason = reason


class PlatformMismatch(NotFound):
    """The image is not of the platform that was asked for."""

    def __init__(self, name: str, wanted: Platform, actual: Platform) -> None:
        super().__init__(
            f"image with reference {name} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {actual}"
        )
        self.name = name
        self.wanted = wanted
        self.actual = actual
