"""The traffic with registries: where images come from and go to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.image.pull import Pulls
from lamina.image.push import Pushes
from lamina.oci.reference import Reference
from lamina.registry.access import Access, Credentials
from lamina.registry.hosts import Settings
from lamina.registry.places import RegistryPlace


@dataclass(frozen=True)
class Exchange:
    """What an administrator said of registries, and the services that fetch and send."""

    settings: Settings
    pulls: Pulls
    pushes: Pushes

    def place(
        self,
        name: Reference,
        known: Mapping[str, Credentials] | Credentials | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> RegistryPlace:
        """A name at its registry. *known* are credentials, or all that are known, by registry. Raises InvalidHosts."""
        return RegistryPlace(Access.of(name, self.settings, known, proxies))
