"""Volumes: directories that outlive containers."""

from lamina.volume.store import InvalidVolumeName, Volume, VolumeInUse, VolumeNotFound, VolumeStore

__all__ = ["InvalidVolumeName", "Volume", "VolumeInUse", "VolumeNotFound", "VolumeStore"]
