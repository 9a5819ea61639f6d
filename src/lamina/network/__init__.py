"""Networks: where a container's packets go.

Three networks exist: ``bridge`` (a bridge of the host's with NAT to the world), ``host`` and ``none``. ``service`` hands out endpoints,
``links`` makes interfaces by netlink, ``ipam`` gives addresses, ``firewall`` writes the nftables rules, ``names`` makes the files
by which a container knows itself and others.
"""

from lamina.network.service import Endpoint, NetworkService

__all__ = ["Endpoint", "NetworkService"]
