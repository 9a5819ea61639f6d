"""What a user is told about a request that is taken all the same: parts of it that have no effect, or one that he may not want."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lamina.container.config import ContainerConfig, HostConfig
from lamina.linux.cgroups import Hierarchies

_OOM = "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
_WEIGHT_DEVICE = (
    "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
)
_WEIGHT = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."


_MAC = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."


def without_effectless(host: HostConfig, hierarchies: Hierarchies) -> HostConfig:
    """The request without what this kernel does not know."""
    if has_block_weights(hierarchies):
        return host
    return msgspec.structs.replace(host, blkio_weight=0, blkio_weight_device=None)


def has_block_weights(hierarchies: Hierarchies) -> bool:
    """Whether the kernel shares a block device's time by weights."""
    directory = hierarchies.directory("/", "blkio")
    return directory is not None and (hierarchies.layout == "v2" or (directory / "blkio.weight").exists())


def warnings(config: ContainerConfig, host: HostConfig, hierarchies: Hierarchies) -> Iterator[str]:
    """docker's warnings about a request, which is complete but for ``without_effectless``."""
    if host.oom_kill_disable and not host.memory:
        yield _OOM
    if host.blkio_weight and not has_block_weights(hierarchies):
        yield _WEIGHT
    if host.blkio_weight_device and not has_block_weights(hierarchies):
        yield _WEIGHT_DEVICE
    if config.mac_address:
        yield _MAC
