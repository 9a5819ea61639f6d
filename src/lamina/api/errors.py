"""The one table between kinds of errors and HTTP statuses, for both sides of the wire."""

from __future__ import annotations

from typing import Any

from lamina import errors
from lamina.errors import LaminaError

# a kind's subclasses share its status unless they have a line of their own
_STATUS: tuple[tuple[type[LaminaError], int], ...] = (
    (errors.CommandNotFound, 400),
    (errors.CommandNotExecutable, 400),
    (errors.ContainerStartError, 500),
    (errors.InvalidArgument, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.NotModified, 304),
    (errors.Unsupported, 501),
    (errors.Unavailable, 503),
    (errors.DataLoss, 500),
)

_KIND: dict[int, type[LaminaError]] = {
    304: errors.NotModified,
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}


def status_of(error: BaseException) -> int:
    """The status that tells an error; 500 for what is no LaminaError."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(error: BaseException) -> dict[str, Any]:
    """The JSON that tells an error: docker's ``message``, and lamina's ``kind`` and ``hint``, which docker's clients ignore."""
    if not isinstance(error, LaminaError):
        return {"message": f"internal error: {type(error).__name__}: {error}"}
    body = {"message": error.message, "kind": kind_of(error)}
    return body | ({"hint": error.hint} if error.hint else {})


def kind_of(error: LaminaError) -> str:
    """The name of the kind that an error belongs to."""
    lineage = type(error).__mro__
    return lineage[lineage.index(LaminaError) - 1].__name__


def error_from(status: int, body: dict[str, Any]) -> LaminaError:
    """A client's error for a server's answer."""
    message = str(body.get("message") or f"the daemon answered with status {status}")
    kind = getattr(errors, str(body.get("kind", "")), None)
    if isinstance(kind, type) and issubclass(kind, LaminaError):
        return kind(message)
    return _KIND.get(status, LaminaError)(message)
