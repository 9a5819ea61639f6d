"""The one table between kinds of errors and HTTP statuses, for both sides of the wire."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from lamina import errors
from lamina.errors import LaminaError

# a kind's subclasses share its status and its name on the wire unless they have a line of their own
_STATUS: dict[type[LaminaError], int] = {
    errors.LaminaError: 500,
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.ContainerStartError: 500,
    errors.CommandNotFound: 400,
    errors.CommandNotExecutable: 400,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.DataLoss: 500,
}

# what is the host's doing and no bug of ours
_OF_THE_HOST = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)

_BY_NAME = {kind.__name__: kind for kind in _STATUS}

# what a server that names no kind means; dockerd's 500 says nothing
_BY_STATUS: dict[int, type[LaminaError]] = {
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
    return _STATUS[_kind(error)] if isinstance(error, LaminaError) else 500


def error_body(error: BaseException) -> dict[str, Any]:
    """The JSON that tells an error: docker's ``message``, and lamina's ``kind`` and ``hint``, which docker's clients ignore."""
    if isinstance(error, OSError) and error.errno in _OF_THE_HOST:
        place = f": {error.filename}" if error.filename else ""
        return {"message": f"{(error.strerror or '').lower()}{place}"}
    if not isinstance(error, LaminaError):
        return {"message": f"internal error: {type(error).__name__}: {error}"}
    body = {"message": error.message, "kind": kind_of(error)}
    return body | ({"hint": error.hint} if error.hint else {})


def kind_of(error: LaminaError) -> str:
    """The name of the kind that an error belongs to."""
    return _kind(error).__name__


def error_from(status: int, body: Mapping[str, Any]) -> LaminaError:
    """A client's error for a server's answer; its message and hint are the server's."""
    message = str(body.get("message") or f"the daemon answered with status {status}")
    kind = _BY_NAME.get(str(body.get("kind"))) or _BY_STATUS.get(status, LaminaError)
    hint = body.get("hint")
    if not hint:
        return kind(message)
    error = _hinting(kind)(message)
    error.__dict__["told_hint"] = str(hint)
    return error


def _kind(error: LaminaError) -> type[LaminaError]:
    return next(kind for kind in type(error).__mro__ if kind in _STATUS)


def _hinting(kind: type[LaminaError]) -> type[LaminaError]:
    # a hint is a class's to give; here it came with the answer
    return type(kind.__name__, (kind,), {"hint": property(lambda error: error.told_hint), "__doc__": kind.__doc__})
