"""What can go wrong with containers, in docker's words."""

from __future__ import annotations

from lamina.errors import Conflict, Forbidden, InvalidArgument, LaminaError, NotFound, NotModified, Unsupported


class ContainerNotFound(NotFound):
    """No container has this name or ID."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No such container: {name}")
        self.name = name


class AmbiguousContainerID(InvalidArgument):
    """Several containers' IDs begin like this."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"multiple IDs found with provided prefix: {prefix}")
        self.prefix = prefix


class InvalidContainerName(InvalidArgument):
    """A name has characters that no container may have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        self.name = name


class NameInUse(Conflict):
    """Another container has the name."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )
        self.name = name
        self.owner = owner


class ContainerNotRunning(Conflict):
    """The container has no process."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"container {container_id} is not running")
        self.container_id = container_id


class LinkedNotRunning(Conflict):
    """A container is linked to one that has no process, and so no address."""

    def __init__(self, container_id: str, link: str) -> None:
        super().__init__(f"Cannot link to a non running container: {container_id} AS {link}")
        self.container_id = container_id


class LinkNotFound(NotFound):
    """A container has no link of this name."""

    def __init__(self, container: str, alias: str) -> None:
        super().__init__(f"No such link: /{container}/{alias}")
        self.alias = alias


class CannotKill(Conflict):
    """A signal has nobody to go to."""

    def __init__(self, name: str, reason: ContainerNotRunning) -> None:
        super().__init__(f"cannot kill container: {name}: {reason}")
        self.name = name


class NotShareable(Conflict):
    """The container's shared memory is its own."""

    def __init__(self, container_id: str) -> None:
        super().__init__(
            f"can't join IPC of container {container_id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
        self.container_id = container_id


class ContainerRunning(Conflict):
    """A running container cannot be removed without force."""

    def __init__(self, name: str, status: str = "running") -> None:
        first = "unpause and then stop" if status == "paused" else "stop"
        super().__init__(
            f'cannot remove container "/{name}": container is {status}: {first} the container before removing or force remove'
        )
        self.name = name


class ContainerDoesNotEnd(LaminaError):
    """The process was killed and is still there: the kernel holds it, as in a read from a dead disk."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"container {container_id}: tried to kill container, but did not receive an exit event")
        self.container_id = container_id


class ContainerBeingRemoved(Conflict):
    """The container is on its way out."""

    def __init__(self, name: str) -> None:
        super().__init__(f"removal of container {name} is already in progress")
        self.name = name


class LogsNotKept(Unsupported):
    """Nothing that the container said was kept."""

    def __init__(self) -> None:
        super().__init__("configured logging driver does not support reading")


class FileNotInContainer(NotFound):
    """A path leads nowhere in a container."""

    def __init__(self, path: str, container: str) -> None:
        super().__init__(f"Could not find the file {path} in container {container}")
        self.path = path


class CannotExtract(InvalidArgument):
    """A tar cannot be unpacked into a container."""


class CannotWrite(Forbidden):
    """A container's root, or a volume in it, is read-only."""


class UpdateConflict(Conflict):
    """A container's other settings forbid the change."""


class CannotUpdate(LaminaError):
    """The kernel, or the runtime, does not take other limits for a container."""

    def __init__(self, container_id: str, reason: str) -> None:
        super().__init__(f"Cannot update container {container_id}: {reason}")
        self.container_id = container_id


class AlreadyStarted(NotModified):
    """The container runs already."""


class AlreadyStopped(NotModified):
    """The container has stopped already."""


class UnsupportedOption(Unsupported):
    """An option that lamina knows and cannot honour yet; it is never ignored in silence."""

    def __init__(self, option: str, reason: str = "lamina does not support it yet") -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option


class ContainerIsPaused(Conflict):
    """Nothing can be run in a container that is frozen, and nobody be joined to it."""

    def __init__(self, container_id: str, what: str = "exec") -> None:
        super().__init__(f"container {container_id} is paused, unpause the container before {what}")
        self.container_id = container_id


class ContainerIsRestarting(Conflict):
    """Nothing can be done to the process of a container that is between two of them."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"Container {container_id} is restarting, wait until the container is running")
        self.container_id = container_id


class ExecNotFound(NotFound):
    """No exec session has this ID."""

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"No such exec instance: {exec_id}")
        self.exec_id = exec_id


class ExecAlreadyRuns(Conflict):
    """A session's process is started once."""

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"exec session {exec_id} has been started already")
        self.exec_id = exec_id


class PauseConflict(Conflict):
    """A container is paused already, or is not paused."""

    def __init__(self, container_id: str, reason: str) -> None:
        super().__init__(f"Container {container_id} is {reason}")
        self.container_id = container_id
