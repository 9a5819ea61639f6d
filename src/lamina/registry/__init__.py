"""Registries as a client sees them: repositories of blobs and manifests (OCI distribution-spec 1.1, docker registry v2)."""

from lamina.registry.access import Access, Credentials

__all__ = ["Access", "Credentials"]
