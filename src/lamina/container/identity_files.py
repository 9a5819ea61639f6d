"""The files by which a container knows itself and others: /etc/hostname, /etc/hosts and /etc/resolv.conf.

They lie in the container's own directory and are mounted into its root. Who joins another container's network is known by that one's
names, and has the same files: hard links, which outlive whichever of the two goes first.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path

from lamina.container.record import Joined, Record
from lamina.linux import paths
from lamina.network import names
from lamina.resolver.messages import ADDRESS
from lamina.runtime.settings import Mount

_NAMES = ("hostname", "hosts", "resolv.conf")


def write(
    directory: Path,
    record: Record,
    joined: Joined | None,
    more_hosts: Sequence[str] = (),
    *,
    gateway: str,
    is_resolved: bool,
) -> None:
    """Write a container's own; *joined* tells where it is, *more_hosts* are lines for /etc/hosts.

    *gateway* is the host's address for containers; with *is_resolved* the resolver is asked for names.

    The files keep their identity, so that a container that has them mounted sees what is new.
    """
    config, host = record.config, record.host_config
    own_network = host.network_mode != "host"
    texts = {
        "hostname": f"{config.hostname}\n",
        "hosts": names.hosts(
            addresses=[a for e in (joined.endpoints.values() if joined else ()) for a in (e.ip, e.ip6) if a],
            hostname=config.hostname,
            domainname=config.domainname,
            extra=host.extra_hosts or [],
            gateway=gateway or "127.0.0.1",
            own_network=own_network,
            lines=more_hosts,
        ),
        "resolv.conf": names.resolv_conf(
            servers=[ADDRESS] if is_resolved else host.dns or [],
            search=host.dns_search or [],
            options=host.dns_options or [],
            own_network=own_network,
            ndots="0" if is_resolved else None,
        ),
    }
    for name, text in texts.items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        if record.idmap is not None:
            os.chown(path, *record.idmap.root)


def share(directory: Path, donor: Path) -> None:
    """Give the files in *donor*, another container's directory, to the container of *directory*."""
    for name in _NAMES:
        (directory / name).unlink(missing_ok=True)
        (directory / name).hardlink_to(donor / name)


def mounts(directory: Path, rootfs: Path, taken: Container[str], *, read_only: bool) -> list[Mount]:
    """Their mounts, but for those whose place is *taken* by the container's own or in the image is no file."""
    result = []
    for name in _NAMES:
        destination = f"/etc/{name}"
        if destination not in taken and not paths.is_directory_in_root(rootfs, destination):
            access = ["ro"] if read_only else []
            result.append(Mount(destination, "bind", str(directory / name), ["rbind", "rprivate", *access]))
    return result
