"""What a client did wrong, in the specification's codes (distribution-spec, "Error Codes")."""

from __future__ import annotations

from lamina.errors import LaminaError


class RegistryError(LaminaError):
    """An answer that is an error: its status, its code, and what it is about."""

    def __init__(self, status: int, code: str, message: str, detail: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail


def name_invalid(name: str) -> RegistryError:
    """A repository cannot have this name."""
    return RegistryError(400, "NAME_INVALID", "invalid repository name", {"name": name[:300]})


def name_unknown(name: str) -> RegistryError:
    """There is no such repository."""
    return RegistryError(404, "NAME_UNKNOWN", "repository name not known to registry", {"name": name})


def blob_unknown(digest: str) -> RegistryError:
    """A repository has no such blob."""
    return RegistryError(404, "BLOB_UNKNOWN", "blob unknown to registry", {"digest": str(digest)[:300]})


def manifest_unknown(reference: str) -> RegistryError:
    """A repository has no manifest under this tag or digest."""
    return RegistryError(404, "MANIFEST_UNKNOWN", "manifest unknown", {"reference": str(reference)[:300]})


def manifest_invalid(reason: str) -> RegistryError:
    """A manifest is not what its specification says."""
    return RegistryError(400, "MANIFEST_INVALID", f"manifest invalid: {reason}")


def manifest_blob_unknown(digest: str) -> RegistryError:
    """A manifest names what its repository has not got."""
    return RegistryError(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", {"digest": str(digest)})


def digest_invalid(reason: str) -> RegistryError:
    """A digest is none, or not that of the bytes."""
    return RegistryError(400, "DIGEST_INVALID", f"provided digest did not match uploaded content: {reason}")


def upload_unknown(upload_id: str) -> RegistryError:
    """There is no such upload, or no more."""
    return RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", {"upload": upload_id[:100]})


def upload_invalid(reason: str) -> RegistryError:
    """A part of an upload is not what it says."""
    return RegistryError(400, "BLOB_UPLOAD_INVALID", f"blob upload invalid: {reason}")


def range_invalid(reason: str) -> RegistryError:
    """A part of an upload does not follow the one before, or a blob has no such part."""
    return RegistryError(416, "RANGE_INVALID", reason)


class PartInvalid(RegistryError):
    """A blob of *size* bytes has no such part."""

    def __init__(self, size: int) -> None:
        super().__init__(416, "RANGE_INVALID", f"the blob has {size} bytes")
        self.size = size


def size_invalid(reason: str) -> RegistryError:
    """A body does not have the length that was told."""
    return RegistryError(400, "SIZE_INVALID", reason)


def too_large(what: str, limit: int) -> RegistryError:
    """More than the server takes."""
    return RegistryError(413, "SIZE_INVALID", f"{what} is larger than {limit} bytes")


def unauthorized(reason: str = "authentication required") -> RegistryError:
    """Who is asking did not say who it is."""
    return RegistryError(401, "UNAUTHORIZED", reason)


def denied(what: str) -> RegistryError:
    """Who is asking may not do this."""
    return RegistryError(403, "DENIED", f"requested access to the resource is denied: {what}")


def unsupported(reason: str) -> RegistryError:
    """What this server does not do."""
    return RegistryError(405, "UNSUPPORTED", reason)


def no_room(reason: str) -> RegistryError:
    """The disk does not take what was sent."""
    return RegistryError(507, "UNAVAILABLE", f"it cannot be stored: {reason}")


def failed(reason: str) -> RegistryError:
    """Something that is no fault of the client's."""
    return RegistryError(503, "UNAVAILABLE", reason)


def upstream_failed(reason: str) -> RegistryError:
    """The registry that something is to be fetched from does not give it."""
    return RegistryError(502, "UNAVAILABLE", f"the upstream registry failed: {reason}")


def no_such_page() -> RegistryError:
    """A path that is about nothing."""
    return RegistryError(404, "UNSUPPORTED", "page not found")
