"""Who asks which repository: names, credentials, and where a registry is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lamina.oci.reference import DEFAULT_DOMAIN, Reference
from lamina.registry.hosts import HUB_HOST, Host, Settings

_HUBS = ("index.docker.io", DEFAULT_DOMAIN, HUB_HOST)
HUB_KEY = "https://index.docker.io/v1/"
"""What docker's configuration calls the default registry."""


@dataclass(frozen=True)
class Credentials:
    """A name and password, or an identity token in their place (docker's OAuth refresh token)."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    """A token for the registry itself, which needs no other."""


@dataclass(frozen=True)
class Learned:
    """What was found out of a server: the base URL that it answers at, and the Authorization that it took."""

    base: str
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True)
class Access:
    """A repository, whose tag and digest do not matter here, and how it is asked. Can be sent to a worker.

    *hosts* are the servers to ask, in this order; *proxies* are variables such as ``HTTPS_PROXY``; *learned* is what an earlier
    session found out, by the hosts' bases.
    """

    reference: Reference
    hosts: tuple[Host, ...]
    credentials: Credentials | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    learned: Mapping[str, Learned] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        reference: Reference,
        settings: Settings,
        known: Mapping[str, Credentials] | Credentials | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Access:
        """How a reference is reached. *known* are credentials, or all that are known, by registry. Raises InvalidHosts."""
        credentials = credentials_for(reference, known) if isinstance(known, Mapping) else known
        return cls(reference, settings.hosts_of(reference.domain), credentials, proxies or {})

    @property
    def host(self) -> str:
        """The registry itself, with its port if it has one."""
        return self.hosts[-1].name

    def knowing(self, learned: Mapping[str, Learned]) -> Access:
        """The same, with what a session found out."""
        return replace(self, learned=learned)

    def at(self, reference: Reference) -> Access:
        """Another name in the same repository."""
        return replace(self, reference=reference)


def credentials_for(reference: Reference, known: Mapping[str, Credentials]) -> Credentials | None:
    """Those of a reference's registry, by docker's names for registries: a host, or a URL of it."""
    hosts = (HUB_KEY, *_HUBS) if reference.domain == DEFAULT_DOMAIN else (reference.domain,)
    exact = next((known[host] for host in hosts if host in known), None)
    return exact or next((known[name] for name in known if host_in(name) in hosts), None)


def host_in(name: str) -> str:
    """The host of a registry's name, which may be a URL."""
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]
