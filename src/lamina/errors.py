"""The error kinds of lamina.

    LaminaError
    ├── InvalidArgument       the request is wrong; the same request will fail again
    ├── Unauthorized          who is asking is not known
    ├── Forbidden             who is asking may not do this
    ├── NotFound              the thing named does not exist
    ├── Conflict              the thing's present state does not allow it
    ├── NotModified           the thing is already as asked
    ├── ContainerStartError   the container's process could not be started
    │   ├── CommandNotFound
    │   └── CommandNotExecutable
    ├── Unsupported           this host, or this version of lamina, cannot do it
    ├── Unavailable           something outside lamina does not answer
    └── DataLoss              stored bytes are not what they were

A direct child of LaminaError is a *kind*: it tells the caller what can be done about the failure. Leaves name the thing, live with
the package that raises them and build their message from typed fields. Domain code knows no HTTP: `lamina.api.errors` holds the one
table from kind to status. An exception that is no LaminaError is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LaminaError(Exception):
    """Any failure that lamina foresees. ``str(error)`` is a complete message: *what failed: on what: why*."""

    def __reduce__(self) -> tuple[Any, ...]:
        # leaves have constructors of their own, so pickle (worker processes send errors back) must not call them with args
        return _restore, (type(self), self.args, self.__dict__)

    @property
    def message(self) -> str:
        """The text for the user."""
        return str(self)

    @property
    def hint(self) -> str | None:
        """What the user can do about it, where that is known."""
        return None


def _restore(kind: type[LaminaError], args: tuple[Any, ...], state: Mapping[str, Any]) -> LaminaError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidArgument(LaminaError):
    """The request is wrong in itself; the same request will fail again."""


class Unauthorized(LaminaError):
    """The caller did not prove who it is."""


class Forbidden(LaminaError):
    """The caller is known and may not do this."""


class NotFound(LaminaError):
    """The thing that the request names does not exist."""


class Conflict(LaminaError):
    """The request clashes with the present state of the thing it names."""


class NotModified(LaminaError):
    """Nothing was done, as the thing already is in the state asked for."""


class ContainerStartError(LaminaError):
    """The container's process could not be started; the container exists and keeps this as its error."""

    exit_code = 128


class CommandNotFound(ContainerStartError):
    """The container's command does not exist in its root file system."""

    exit_code = 127


class CommandNotExecutable(ContainerStartError):
    """The container's command exists but cannot be executed."""

    exit_code = 126


class Unsupported(LaminaError):
    """This host or this version of lamina cannot do what was asked."""


class Unavailable(LaminaError):
    """Something outside lamina, a registry or a tool, does not answer."""


class DataLoss(LaminaError):
    """Stored bytes are damaged or gone."""
