"""Who asks which repository: names, credentials, and where a registry is."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.oci.reference import DEFAULT_DOMAIN, Reference

_HUB = "registry-1.docker.io"
_HUBS = ("index.docker.io", DEFAULT_DOMAIN, _HUB)
HUB_KEY = "https://index.docker.io/v1/"
"""What docker's configuration calls the default registry."""


@dataclass(frozen=True)
class Credentials:
    """A name and password, or an identity token in their place (docker's OAuth refresh token)."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Access:
    """A repository, whose tag and digest do not matter here, and how it is asked. Can be sent to a worker.

    *proxies* are variables such as ``HTTPS_PROXY``.
    """

    reference: Reference
    credentials: Credentials | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Where the registry is, with its port if it has one."""
        return _HUB if self.reference.domain == DEFAULT_DOMAIN else self.reference.domain

    @property
    def may_be_insecure(self) -> bool:
        """Whether the registry may speak HTTP, or HTTPS with a certificate that nobody signed: this machine's own may, as with docker."""
        name = self.host.rpartition(":")[0] if not self.host.endswith("]") and ":" in self.host else self.host
        if name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False


def credentials_for(reference: Reference, known: Mapping[str, Credentials]) -> Credentials | None:
    """Those of a reference's registry, by docker's names for registries: a host, or a URL of it."""
    hosts = (HUB_KEY, *_HUBS) if reference.domain == DEFAULT_DOMAIN else (reference.domain,)
    exact = next((known[host] for host in hosts if host in known), None)
    return exact or next((known[name] for name in known if _host_of(name) in hosts), None)


def _host_of(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]
