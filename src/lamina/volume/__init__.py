"""Volumes: directories that outlive containers."""

from lamina.volume.store import Hold, InvalidVolumeName, Volume, VolumeInUse, VolumeNotFound, VolumeStore

__all__ = ["Hold", "InvalidVolumeName", "Volume", "VolumeInUse", "VolumeNotFound", "VolumeStore"]
