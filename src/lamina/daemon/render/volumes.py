"""Volumes as the API tells them (Engine API: Volume)."""

from __future__ import annotations

from typing import Any

from lamina.engine.disk_use import VolumeUse
from lamina.volume import Volume


def volume(volume: Volume) -> dict[str, Any]:
    """A volume without what it takes, which nobody measures for a list."""
    labels = dict(volume.labels)
    if volume.anonymous:
        labels["com.docker.volume.anonymous"] = ""
    return {
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": labels or None,
        "Mountpoint": str(volume.path),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


def summary(use: VolumeUse) -> dict[str, Any]:
    """A volume with what it takes."""
    return volume(use.volume) | {"UsageData": {"Size": use.size, "RefCount": use.containers}}
