"""The networks that always are there: ``bridge``, ``host`` and ``none``. Their IDs are made once for a state root."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from lamina.linux.files import write_atomically
from lamina.network.ipam import AddressPool
from lamina.network.model import BUILT_IN, Network, Subnet

_EPOCH = "1970-01-01T00:00:00Z"


def load_ids(path: Path) -> dict[str, str]:
    """The networks' IDs by their names."""
    try:
        ids: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        ids = {name: secrets.token_hex(32) for name in BUILT_IN}
        write_atomically(path, json.dumps(ids).encode())
    return ids


def definitions(ids: dict[str, str], bridge: str, pool: AddressPool | None) -> list[Network]:
    """The networks as ``inspect`` shows them; *pool* is None if the bridge could not be set up."""
    subnets = [Subnet(subnet=str(pool.subnet), gateway=str(pool.gateway.ip))] if pool is not None else []
    options = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104
        "com.docker.network.bridge.name": bridge,
    }
    return [
        Network(
            id=ids["bridge"],
            name="bridge",
            driver="bridge",
            created=_EPOCH,
            subnets=subnets,
            options=options,
            interface=bridge,
        ),
        Network(id=ids["host"], name="host", driver="host", created=_EPOCH),
        Network(id=ids["none"], name="none", driver="null", created=_EPOCH),
    ]
