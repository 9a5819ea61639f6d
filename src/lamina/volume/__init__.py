"""Volumes: directories that outlive containers, or what mount(8) makes of the driver's options."""

from lamina.volume.driver_options import InvalidVolumeOption
from lamina.volume.mounting import VolumeMounts
from lamina.volume.store import (
    Hold,
    InvalidVolumeName,
    Volume,
    VolumeDriverNotFound,
    VolumeInUse,
    VolumeNotFound,
    VolumeStore,
)

__all__ = [
    "Hold",
    "InvalidVolumeName",
    "InvalidVolumeOption",
    "Volume",
    "VolumeDriverNotFound",
    "VolumeInUse",
    "VolumeMounts",
    "VolumeNotFound",
    "VolumeStore",
]
