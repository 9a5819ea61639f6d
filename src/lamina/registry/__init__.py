"""Registries as a client sees them: repositories of blobs and manifests (OCI distribution-spec 1.1, docker registry v2)."""

from lamina.registry.access import Access, Credentials
from lamina.registry.repository import Repository

__all__ = ["Access", "Credentials", "Repository"]
