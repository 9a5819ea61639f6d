"""A request for a network, completed and checked: options, subnets, gateways (Engine API, NetworkCreate)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import msgspec

from lamina.network.claims import check_interface_name
from lamina.network.errors import DriverNotFound, InvalidNetwork, PredefinedNetwork
from lamina.network.ipam import IPNetwork
from lamina.network.model import BUILT_IN, CHILD_DRIVERS, Network, Subnet, plain_address
from lamina.network.options import BridgeOptions, ChildOptions, boolean
from lamina.network.subnets import SubnetPool, check_free, free_subnet

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LONGEST_PREFIX = {4: 30, 6: 126}


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for; None is for the default to decide."""

    name: str
    driver: str = "bridge"
    subnets: Sequence[Subnet] = ()
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    internal: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


def check_name(name: str) -> None:
    """Raises InvalidNetwork or PredefinedNetwork."""
    if not name.strip():
        raise InvalidNetwork("invalid network name: name is empty")
    if name in BUILT_IN:
        raise PredefinedNetwork(f"operation is not permitted on predefined {name} network")
    if name in ("default", "container") or not _NAME.fullmatch(name):
        raise InvalidNetwork(f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


def define(
    request: NetworkRequest,
    *,
    networks: Iterable[Network],
    routes: Iterable[IPNetwork],
    pools: Sequence[SubnetPool],
) -> Network:
    """The network that a request stands for, with subnets that nobody else has.

    *networks* are those that there are, *routes* the host's: a subnet that nobody named avoids them too. Raises InvalidNetwork,
    PredefinedNetwork, DriverNotFound, SubnetOverlaps or NoSubnetLeft.
    """
    check_name(request.name)
    driver = request.driver or "bridge"
    if driver in ("host", "null"):
        raise PredefinedNetwork(f'only one instance of "{driver}" network is allowed')
    if driver not in ("bridge", *CHILD_DRIVERS):
        raise DriverNotFound(driver)
    if request.ipam_driver not in ("", "default"):
        raise DriverNotFound(request.ipam_driver)
    networks = list(networks)
    _check_options(driver, request)
    network_id = secrets.token_hex(32)
    interface = _interface(driver, request.options, network_id)
    if interface and any(n.interface == interface for n in networks):
        raise InvalidNetwork(f"bridge name {interface} is in use by another network")
    asked = [_checked(subnet) for subnet in request.subnets if subnet != Subnet()]
    versions = _versions(request, asked)
    # several children of an interface may share the host's own network
    others = [] if driver in CHILD_DRIVERS else networks
    taken = [ip_network(s.subnet) for n in others for s in n.subnets]
    for subnet in asked:
        check_free(ip_network(subnet.subnet), taken)
        taken.append(ip_network(subnet.subnet))
    missing = [v for v in versions if not any(s.version == v for s in asked)]
    found = [free_subnet(v, pools, [*taken, *routes]) for v in missing]
    subnets = [*asked, *(Subnet(subnet=str(network)) for network in found)]
    has_gateway = driver not in CHILD_DRIVERS or not request.internal
    return Network(
        id=network_id,
        name=request.name,
        driver=driver,
        created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        subnets=[_with_gateway(s) if has_gateway else s for s in subnets if s.version in versions],
        enable_ipv4=4 in versions,
        enable_ipv6=6 in versions,
        internal=request.internal,
        attachable=request.attachable,
        ipam_driver=request.ipam_driver or "default",
        ipam_options=request.ipam_options,
        options=request.options,
        labels=request.labels,
        interface=interface,
        chosen=not asked,
    )


def _versions(request: NetworkRequest, asked: Sequence[Subnet]) -> list[int]:
    by_option = {v: boolean(request.options, f"com.docker.network.enable_ipv{v}", default=v == 4) for v in (4, 6)}
    with_6 = request.enable_ipv6 if request.enable_ipv6 is not None else by_option[6]
    with_4 = request.enable_ipv4 is not False and by_option[4]
    if (
        any(s.version == 6 for s in asked)
        and not with_6
        and request.enable_ipv6 is False
        and not any(s.version == 4 for s in asked)
    ):
        raise InvalidNetwork("invalid network config:\nan IPv6 subnet needs --ipv6")
    versions = [v for v, wanted in ((4, with_4), (6, with_6)) if wanted]
    if not versions:
        raise InvalidNetwork("IPv4 or IPv6 must be enabled")
    return versions


def _check_options(driver: str, request: NetworkRequest) -> None:
    if driver == "bridge":
        BridgeOptions.parse(request.options)
    else:
        ChildOptions.parse(driver, request.options)


def _interface(driver: str, options: Mapping[str, str], network_id: str) -> str:
    if driver != "bridge":
        return ""
    name = options.get("com.docker.network.bridge.name") or f"br-{network_id[:12]}"
    if not check_interface_name(name):
        raise InvalidNetwork(f"invalid bridge name {name!r}: an interface's name has at most 15 characters")
    return name


def _checked(subnet: Subnet) -> Subnet:
    """Raises InvalidNetwork, in docker's words (daemon/network, ValidateIPAM)."""
    if not subnet.subnet:
        raise InvalidNetwork(
            "invalid network config:\nno subnet is given for an address range, a gateway or an auxiliary address"
        )
    network = _network(subnet.subnet, "subnet")
    if network.prefixlen > _LONGEST_PREFIX[network.version]:
        raise InvalidNetwork(
            f"invalid network config:\ninvalid subnet {subnet.subnet}: it leaves no address for a container"
        )
    if subnet.ip_range:
        within = _network(subnet.ip_range, "ip-range")
        if within.version != network.version or not _contains(network, within):
            raise InvalidNetwork(
                f"invalid network config:\ninvalid ip-range {subnet.ip_range}: CIDR block must be within subnet {network}"
            )
    addresses = {
        "gateway": subnet.gateway,
        **{f"auxiliary address {n}": a for n, a in subnet.auxiliary_addresses.items()},
    }
    for what, text in addresses.items():
        if text:
            _check_within(what, text, network)
    _check_gateway(subnet, network)
    return subnet


def _check_gateway(subnet: Subnet, network: IPNetwork) -> None:
    """A gateway that somebody names is an address of its own. Raises InvalidNetwork."""
    taken = {plain_address(text) for text in subnet.auxiliary_addresses.values()} | {network.network_address}
    if network.version == 4:
        taken.add(network.broadcast_address)
    if subnet.gateway and plain_address(subnet.gateway) in taken:
        raise InvalidNetwork(f"failed to allocate gateway ({subnet.gateway}): Address already in use")


def _network(text: str, what: str) -> IPNetwork:
    _, slash, length = text.partition("/")
    try:
        right = ip_network(text, strict=False)
    except ValueError:
        right = None
    if right is None or not slash or str(right.prefixlen) != length or "%" in text:
        raise InvalidNetwork(f"invalid network config:\ninvalid {what} {text}: invalid CIDR block notation")
    try:
        return ip_network(text)
    except ValueError:
        pass
    raise InvalidNetwork(f"invalid network config:\ninvalid {what} {text}: it should be {right}")


def _contains(network: IPNetwork, within: IPNetwork) -> bool:
    return within.network_address in network and within.broadcast_address in network


def _check_within(what: str, text: str, network: IPNetwork) -> None:
    try:
        address = plain_address(text)
    except ValueError:
        raise InvalidNetwork(f"invalid network config:\ninvalid {what} {text}: invalid address") from None
    if address not in network:
        raise InvalidNetwork(
            f"invalid network config:\ninvalid {what} {text}: parent subnet {network} doesn't contain this address"
        )


def _with_gateway(subnet: Subnet) -> Subnet:
    """A subnet with a gateway: the first address of what is given out that is nobody's."""
    if subnet.gateway:
        return subnet
    whole = ip_network(subnet.subnet)
    others = {ip_address(text) for text in subnet.auxiliary_addresses.values()} | {whole.network_address}
    within = ip_network(subnet.ip_range) if subnet.ip_range else whole
    if whole.version == 4:
        others.add(whole.broadcast_address)
    first = next((address for address in within if address not in others), None)
    if first is None:
        raise InvalidNetwork(
            f"invalid network config:\ninvalid ip-range {within}: it leaves no address for the gateway"
        )
    return msgspec.structs.replace(subnet, gateway=str(first))
