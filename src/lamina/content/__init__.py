"""Blobs by digest: an OCI image layout on disk that skopeo and others can read as it lies."""

from lamina.content.store import BlobDamaged, BlobNotFound, ContentStore, DigestMismatch

__all__ = ["BlobDamaged", "BlobNotFound", "ContentStore", "DigestMismatch"]
