"""What can go wrong with a registry."""

from __future__ import annotations

from pathlib import Path

from lamina.errors import LaminaError, NotFound, Unauthorized, Unavailable, Unsupported


class RegistryUnreachable(Unavailable):
    """A registry, or the server that gives its tokens, does not answer."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"registry {host} does not answer: {reason}")
        self.host = host


class RegistryRefused(LaminaError):
    """A registry answers, but not as was asked."""

    def __init__(self, what: str, status: int, reason: str) -> None:
        super().__init__(f"{what}: the registry answered {status} {reason}".rstrip())
        self.status = status


class AccessDenied(NotFound):
    """A registry does not let who is asking do this; whether there is such a repository, it does not tell."""

    def __init__(self, repository: str, reason: str = "", *, writes: bool = False) -> None:
        detail = f": {reason}" if reason else ""
        what = "push" if writes else "pull"
        super().__init__(
            f"{what} access denied for {repository}, repository does not exist or may require 'docker login'{detail}"
        )
        self.repository = repository
        self.reason = reason


class LoginFailed(Unauthorized):
    """A registry does not know who logs in, or not by this password."""


class NoCapableHost(Unsupported):
    """Of the servers that are configured for a registry none may be pushed to."""

    def __init__(self, domain: str, capability: str) -> None:
        super().__init__(f"registry {domain}: no server of its hosts.toml has the capability {capability}")
        self.domain = domain


class NotInRegistry(NotFound):
    """A repository has no manifest or blob of this name."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: not found")
        self.what = what


class ManifestUnknown(NotInRegistry):
    """A repository has no manifest under this tag or digest; docker's words."""

    def __init__(self, name: str) -> None:
        LaminaError.__init__(self, f"manifest for {name} not found: manifest unknown: manifest unknown")
        self.what = name


class WrongBytes(LaminaError):
    """What a registry sent is not what its digest says."""

    def __init__(self, what: str, digest: str) -> None:
        super().__init__(f"{what}: its bytes do not match {digest}")
        self.digest = digest


class LayoutUnwritable(LaminaError):
    """A directory cannot be made an image layout, or be added to."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"cannot write to {directory}: {reason}")
        self.directory = directory
