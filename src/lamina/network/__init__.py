"""Networks: where a container's packets go.

``bridge``, ``host`` and ``none`` are built in; others are made with the drivers bridge, macvlan and ipvlan. From the request down:
``definitions`` completes and checks it, ``store`` keeps it, ``service`` sets networks up on the host and hands out endpoints.
``segments`` is one network with its addresses (``ipam``, ``subnets``), ``links`` makes interfaces by netlink, ``firewall`` writes
the nftables rules, ``ports`` gives out ports of the host's and ``port_proxy`` relays what the kernel cannot, ``names`` makes the files
by which a container knows itself and others, ``resolver`` answers for the names of a network.
"""

from lamina.network.model import ANYWHERE, Endpoint, Network, Wish
from lamina.network.service import NetworkService

__all__ = ["ANYWHERE", "Endpoint", "Network", "NetworkService", "Wish"]
