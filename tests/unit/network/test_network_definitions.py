"""A request for a network is completed and checked before the host is touched."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv6Network, ip_network

import pytest

from lamina.errors import Forbidden, InvalidArgument, NotFound, Unavailable
from lamina.network.claims import check_interface_name
from lamina.network.definitions import NetworkRequest, check_name, define
from lamina.network.errors import (
    DriverNotFound,
    InvalidNetwork,
    NoSubnetLeft,
    PredefinedNetwork,
    SubnetOverlaps,
)
from lamina.network.model import BUILT_IN, CHILD_DRIVERS, Network, Subnet
from lamina.network.options import BridgeOptions, ChildOptions
from lamina.network.subnets import DEFAULT_POOLS, SubnetPool

_BRIDGE = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"
_ZONES = ["%eth0", "%x } ; flush ruleset"]
"""What may stand behind an IPv6 address, and would get into a firewall's rules with it."""
_POOLS = (
    SubnetPool(ip_network("10.40.0.0/22"), 24),
    SubnetPool(ip_network("fd12:3456:789a::/48"), 64),
)


def _define(
    request: NetworkRequest, *, networks: Iterable[Network] = (), routes: Iterable[str] = (), pools: int = len(_POOLS)
) -> Network:
    """A network by the first so many of the pools."""
    return define(request, networks=networks, routes=[ip_network(text) for text in routes], pools=_POOLS[:pools])


def _request(
    *subnets: Subnet,
    driver: str = "bridge",
    ipv4: bool | None = None,
    ipv6: bool | None = None,
    internal: bool = False,
    options: dict[str, str] | None = None,
) -> NetworkRequest:
    return NetworkRequest(
        name="shop",
        driver=driver,
        subnets=subnets,
        enable_ipv4=ipv4,
        enable_ipv6=ipv6,
        internal=internal,
        options=options or {},
    )


def _subnet(subnet: str, *, ip_range: str = "", gateway: str = "", aux: dict[str, str] | None = None) -> Subnet:
    return Subnet(subnet=subnet, ip_range=ip_range, gateway=gateway, auxiliary_addresses=aux or {})


def _subnets(network: Network) -> list[str]:
    return [subnet.subnet for subnet in network.subnets]


def _gateways(network: Network) -> list[str]:
    return [subnet.gateway for subnet in network.subnets]


def _refusal(request: NetworkRequest) -> str:
    with pytest.raises(InvalidNetwork) as caught:
        _define(request)
    assert isinstance(caught.value, InvalidArgument)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a", "0", "shop", "Shop_1.dev-x", "bridge2", "hosts", "a" * 200])
def test_a_name_of_letters_digits_and_three_signs_is_taken(name: str) -> None:
    check_name(name)
    assert _define(NetworkRequest(name=name)).name == name


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidNetwork, match=r"^invalid network name: name is empty$"):
        _define(NetworkRequest(name=name))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_name_of_a_built_in_network_is_refused(name: str) -> None:
    with pytest.raises(PredefinedNetwork) as caught:
        _define(NetworkRequest(name=name))
    assert str(caught.value) == f"operation is not permitted on predefined {name} network"
    assert isinstance(caught.value, Forbidden)


@pytest.mark.parametrize(
    "name", ["default", "container", "-shop", ".shop", "_shop", "a b", "a/b", "a:b", "shop\n", "\nshop", "käse", "a\0b"]
)
def test_a_name_that_means_or_could_mean_something_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidNetwork) as caught:
        _define(NetworkRequest(name=name))
    assert str(caught.value) == f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


@pytest.mark.parametrize("driver", ["host", "null"])
def test_a_second_network_of_a_driver_that_has_one_is_refused(driver: str) -> None:
    with pytest.raises(PredefinedNetwork) as caught:
        _define(_request(driver=driver))
    assert str(caught.value) == f'only one instance of "{driver}" network is allowed'


@pytest.mark.parametrize("driver", ["overlay", "Bridge", "none", "bridge "])
def test_a_driver_that_is_not_there_is_refused(driver: str) -> None:
    with pytest.raises(DriverNotFound) as caught:
        _define(_request(driver=driver))
    assert str(caught.value) == f"could not find plugin {driver} in v1 plugin registry: plugin not found"
    assert isinstance(caught.value, NotFound)


def test_without_a_driver_it_is_bridge() -> None:
    assert _define(_request(driver="")).driver == "bridge"


def test_an_ipam_driver_that_is_not_there_is_refused() -> None:
    with pytest.raises(DriverNotFound, match="plugin dhcp in"):
        _define(NetworkRequest(name="shop", ipam_driver="dhcp"))


@pytest.mark.parametrize("ipam_driver", ["", "default"])
def test_the_ipam_driver_is_shown_as_default(ipam_driver: str) -> None:
    assert _define(NetworkRequest(name="shop", ipam_driver=ipam_driver)).ipam_driver == "default"


def test_what_was_asked_for_is_kept() -> None:
    network = _define(
        NetworkRequest(
            name="shop",
            internal=True,
            attachable=True,
            ipam_options={"a": "b"},
            options={"example.colour": "red"},
            labels={"tier": "back"},
        )
    )
    assert (network.internal, network.attachable) == (True, True)
    assert network.ipam_options == {"a": "b"}
    assert network.options == {"example.colour": "red"}
    assert network.labels == {"tier": "back"}


def test_each_network_has_an_id_of_its_own_and_a_bridge_named_by_it() -> None:
    networks = [_define(_request()) for _ in range(20)]
    assert len({network.id for network in networks}) == 20
    for network in networks:
        assert len(bytes.fromhex(network.id)) == 32
        assert network.interface == f"br-{network.id[:12]}"


def test_the_time_of_creation_is_told_in_utc() -> None:
    created = _define(_request()).created
    assert created.endswith("Z")
    offset = datetime.fromisoformat(created).utcoffset()
    assert offset is not None and not offset


def test_a_bridge_has_the_name_that_was_asked_for() -> None:
    assert _define(_request(options={f"{_BRIDGE}name": "shop0"})).interface == "shop0"


@pytest.mark.parametrize("name", ["a" * 16, "a/b", "a b", "a:b", ".", "..", 'a"b', "a\\b", "a%d"])
def test_a_bridge_name_that_the_kernel_does_not_take_is_refused(name: str) -> None:
    message = _refusal(_request(options={f"{_BRIDGE}name": name}))
    assert message == f"invalid bridge name {name!r}: an interface's name has at most 15 characters"


@pytest.mark.parametrize("sign", ['"', "\\", "%", "/", ":", " ", "\n", "ä"])
def test_an_interfaces_name_can_stand_between_quotes_in_a_rule(sign: str) -> None:
    for name in (sign, f"{sign}br", f"b{sign}r", f"br{sign}"):
        assert not check_interface_name(name), name
    assert check_interface_name("br-0_x.7")


@pytest.mark.parametrize("driver", CHILD_DRIVERS)
def test_a_network_of_children_has_no_bridge(driver: str) -> None:
    assert _define(_request(driver=driver)).interface == ""


@pytest.mark.parametrize(
    ("subnet", "reason"),
    [
        ("10.1.0.5/24", "invalid subnet 10.1.0.5/24: it should be 10.1.0.0/24"),
        ("fd00::5/64", "invalid subnet fd00::5/64: it should be fd00::/64"),
        ("10.1.0.0/33", "invalid subnet 10.1.0.0/33: invalid CIDR block notation"),
        ("10.1.0/24", "invalid subnet 10.1.0/24: invalid CIDR block notation"),
        ("shop", "invalid subnet shop: invalid CIDR block notation"),
        ("10.1.0.0/24\n", "invalid subnet 10.1.0.0/24\n: invalid CIDR block notation"),
        ("10.1.0.0/31", "invalid subnet 10.1.0.0/31: it leaves no address for a container"),
        ("10.1.0.0/32", "invalid subnet 10.1.0.0/32: it leaves no address for a container"),
        ("fd00::/127", "invalid subnet fd00::/127: it leaves no address for a container"),
    ],
)
def test_a_subnet_that_is_none_is_refused(subnet: str, reason: str) -> None:
    assert _refusal(_request(_subnet(subnet))) == f"invalid network config:\n{reason}"


_NO_CIDRS = [
    "10.1.0.0/255.255.255.0",
    "10.1.0.0/0.0.0.255",
    "10.1.0.0",
    "10.1.0.0/",
    "10.1.0.0/+24",
    "10.1.0.0/２４",
    "10.1.0.0/24/24",
    pytest.param("10.1.0.0/" + "9" * 5000, id="5000 digits"),
    "fd00::",
    "fd00::/ffff::",
]


@pytest.mark.parametrize("text", _NO_CIDRS)
def test_a_mask_or_no_length_is_no_cidr(text: str) -> None:
    reason = f"{text}: invalid CIDR block notation"
    assert _refusal(_request(_subnet(text), ipv6=True)) == f"invalid network config:\ninvalid subnet {reason}"
    within = _subnet("10.1.0.0/16", ip_range=text)
    assert _refusal(_request(within)) == f"invalid network config:\ninvalid ip-range {reason}"


@pytest.mark.parametrize("zone", _ZONES)
def test_a_subnet_with_a_zone_is_refused(zone: str) -> None:
    for text in (f"fe80::{zone}/64", f"fe80::/64{zone}", f"fe80::1{zone}/64"):
        reason = f"{text}: invalid CIDR block notation"
        assert _refusal(_request(_subnet(text), ipv6=True)) == f"invalid network config:\ninvalid subnet {reason}"
        within = _subnet("fe80::/16", ip_range=text)
        assert _refusal(_request(within, ipv6=True)) == f"invalid network config:\ninvalid ip-range {reason}"


@pytest.mark.parametrize("zone", _ZONES)
@pytest.mark.parametrize("what", ["gateway", "auxiliary address printer"])
def test_an_address_with_a_zone_is_refused(what: str, zone: str) -> None:
    text = f"fe80::1{zone}"
    fields = _subnet("fe80::/64", gateway=text)
    if what != "gateway":
        fields = _subnet("fe80::/64", aux={"printer": text})
    assert _refusal(_request(fields, ipv6=True)) == f"invalid network config:\ninvalid {what} {text}: invalid address"


@pytest.mark.parametrize("subnet", ["10.1.0.0/30", "fd00::/126"])
def test_the_smallest_subnet_has_a_gateway_and_one_more(subnet: str) -> None:
    network = _define(_request(_subnet(subnet), ipv6=True))
    assert subnet in _subnets(network)


@pytest.mark.parametrize(
    ("ip_range", "reason"),
    [
        ("10.1.1.0/24", "CIDR block must be within subnet 10.1.0.0/24"),
        ("10.1.0.0/23", "CIDR block must be within subnet 10.1.0.0/24"),
        ("fd00::/64", "CIDR block must be within subnet 10.1.0.0/24"),
        ("10.1.0.9/25", "it should be 10.1.0.0/25"),
        ("10.1.0.0-9", "invalid CIDR block notation"),
    ],
)
def test_a_range_that_is_no_part_of_its_subnet_is_refused(ip_range: str, reason: str) -> None:
    message = _refusal(_request(_subnet("10.1.0.0/24", ip_range=ip_range)))
    assert message == f"invalid network config:\ninvalid ip-range {ip_range}: {reason}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.1.1.1", "parent subnet 10.1.0.0/24 doesn't contain this address"),
        ("fd00::1", "parent subnet 10.1.0.0/24 doesn't contain this address"),
        ("10.1.0.1/24", "invalid address"),
        ("first", "invalid address"),
    ],
)
@pytest.mark.parametrize("what", ["gateway", "auxiliary address printer"])
def test_an_address_that_is_not_in_its_subnet_is_refused(what: str, address: str, reason: str) -> None:
    fields = _subnet("10.1.0.0/24", gateway=address)
    if what != "gateway":
        fields = _subnet("10.1.0.0/24", aux={"router": "10.1.0.7", "printer": address})
    assert _refusal(_request(fields)) == f"invalid network config:\ninvalid {what} {address}: {reason}"


@pytest.mark.parametrize(
    "subnet",
    [
        Subnet(ip_range="10.1.0.0/24"),
        Subnet(gateway="10.1.0.1"),
        Subnet(auxiliary_addresses={"printer": "10.1.0.7"}),
    ],
)
def test_what_needs_a_subnet_is_refused_without_one(subnet: Subnet) -> None:
    assert _refusal(_request(subnet)) == (
        "invalid network config:\nno subnet is given for an address range, a gateway or an auxiliary address"
    )


@pytest.mark.parametrize(
    ("subnet", "gateway"),
    [
        pytest.param(_subnet("10.1.0.0/24"), "10.1.0.1", id="the first address"),
        pytest.param(_subnet("10.1.0.0/24", gateway="10.1.0.254"), "10.1.0.254", id="the one asked for"),
        pytest.param(_subnet("10.1.0.0/24", ip_range="10.1.0.128/25"), "10.1.0.128", id="the first of the range"),
        pytest.param(
            _subnet("10.1.0.0/24", ip_range="10.1.0.0/25"), "10.1.0.1", id="never the network's own, also in a range"
        ),
        pytest.param(
            _subnet("10.1.0.0/24", aux={"a": "10.1.0.1", "b": "10.1.0.2"}), "10.1.0.3", id="no auxiliary address"
        ),
        pytest.param(
            _subnet("10.1.0.0/24", ip_range="10.1.0.64/26", aux={"a": "10.1.0.64"}),
            "10.1.0.65",
            id="no auxiliary address of the range",
        ),
    ],
)
def test_the_gateway_is_the_first_address_that_is_nobodys(subnet: Subnet, gateway: str) -> None:
    network = _define(_request(subnet))
    assert _gateways(network) == [gateway]
    assert network.subnets[0].ip_range == subnet.ip_range
    assert network.subnets[0].auxiliary_addresses == subnet.auxiliary_addresses


def test_the_gateway_of_an_ipv6_subnet_is_its_first_address_after_its_own() -> None:
    network = _define(_request(_subnet("fd00:1::/64"), ipv6=True, ipv4=False))
    assert _gateways(network) == ["fd00:1::1"]


@pytest.mark.parametrize(
    ("subnet", "within"),
    [
        pytest.param(_subnet("10.1.0.0/24", ip_range="10.1.0.0/32"), "10.1.0.0/32", id="the network's own"),
        pytest.param(_subnet("10.1.0.0/24", ip_range="10.1.0.255/32"), "10.1.0.255/32", id="the broadcast's"),
        pytest.param(
            _subnet("10.1.0.0/24", ip_range="10.1.0.9/32", aux={"a": "10.1.0.9"}), "10.1.0.9/32", id="an auxiliary one"
        ),
        pytest.param(
            _subnet("10.1.0.0/24", ip_range="10.1.0.254/31", aux={"a": "10.1.0.254"}),
            "10.1.0.254/31",
            id="an auxiliary one and the broadcast's",
        ),
        pytest.param(
            _subnet("10.1.0.0/30", aux={"a": "10.1.0.1", "b": "10.1.0.2"}), "10.1.0.0/30", id="all of a subnet's"
        ),
        pytest.param(_subnet("fd00:1::/64", ip_range="fd00:1::/128"), "fd00:1::/128", id="the network's own of IPv6"),
    ],
)
def test_where_all_addresses_are_somebodys_there_is_no_gateway(subnet: Subnet, within: str) -> None:
    message = _refusal(_request(subnet, ipv6=True))
    assert message == f"invalid network config:\ninvalid ip-range {within}: it leaves no address for the gateway"


def test_a_range_without_an_address_for_the_gateway_is_fine_with_a_gateway_beside_it() -> None:
    subnet = _subnet("10.1.0.0/24", ip_range="10.1.0.9/32", gateway="10.1.0.1", aux={"a": "10.1.0.9"})
    assert _gateways(_define(_request(subnet))) == ["10.1.0.1"]


@pytest.mark.parametrize(
    "subnet",
    [
        pytest.param(_subnet("10.1.0.0/24", gateway="10.1.0.0"), id="the network's own"),
        pytest.param(_subnet("10.1.0.0/24", gateway="10.1.0.255"), id="the broadcast's"),
        pytest.param(_subnet("10.1.0.0/24", gateway="10.1.0.9", aux={"a": "10.1.0.9"}), id="an auxiliary one"),
        pytest.param(_subnet("fd00:1::/64", gateway="fd00:1::"), id="the network's own of IPv6"),
        pytest.param(
            _subnet("fd00:1::/64", gateway="fd00:1::9", aux={"a": "FD00:1:0::0009"}), id="an auxiliary one of IPv6"
        ),
    ],
)
def test_a_gateway_that_is_somebodys_is_refused(subnet: Subnet) -> None:
    message = _refusal(_request(subnet, ipv6=True))
    assert message == f"failed to allocate gateway ({subnet.gateway}): Address already in use"


def test_the_last_address_of_ipv6_is_one_like_others() -> None:
    subnet = _subnet("fd00:1::/126", gateway="fd00:1::3")
    assert _gateways(_define(_request(subnet, ipv6=True, ipv4=False))) == ["fd00:1::3"]


@pytest.mark.parametrize("driver", CHILD_DRIVERS)
def test_an_internal_network_of_children_has_no_gateway(driver: str) -> None:
    assert _gateways(_define(_request(driver=driver, internal=True))) == [""]
    assert _gateways(_define(_request(driver=driver))) == ["10.40.0.1"]


def test_an_internal_bridge_has_an_address() -> None:
    assert _gateways(_define(_request(internal=True))) == ["10.40.0.1"]


@pytest.mark.parametrize("subnet", ["10.1.0.0/24", "10.1.0.0/16", "10.1.0.64/26", "10.0.0.0/8"])
def test_a_subnet_that_another_network_has_a_part_of_is_refused(subnet: str) -> None:
    other = _define(_request(_subnet("10.1.0.0/24")))
    with pytest.raises(SubnetOverlaps) as caught:
        _define(_request(_subnet(subnet)), networks=[other])
    assert str(caught.value) == "invalid pool request: Pool overlaps with other one on this address space"
    assert isinstance(caught.value, Forbidden)


def test_an_ipv6_subnet_that_another_network_has_a_part_of_is_refused() -> None:
    other = _define(_request(_subnet("fd00:1::/64"), ipv6=True))
    with pytest.raises(SubnetOverlaps):
        _define(_request(_subnet("fd00::/16"), ipv6=True), networks=[other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.1.0.0/24", "10.1.0.0/24"),
        ("10.1.0.0/24", "10.1.0.128/25"),
        ("10.1.0.128/25", "10.1.0.0/24"),
        ("fd00:1::/64", "fd00::/16"),
    ],
)
def test_two_subnets_of_one_network_are_apart(one: str, other: str) -> None:
    with pytest.raises(SubnetOverlaps) as caught:
        _define(_request(_subnet(one), _subnet(other), ipv6=True))
    assert str(caught.value) == "invalid pool request: Pool overlaps with other one on this address space"
    beside = _define(_request(_subnet("10.1.0.0/24"), _subnet("10.1.1.0/24")))
    assert _subnets(beside) == ["10.1.0.0/24", "10.1.1.0/24"]


def test_a_subnet_beside_another_networks_is_taken() -> None:
    other = _define(_request(_subnet("10.1.0.0/24")))
    assert _subnets(_define(_request(_subnet("10.1.1.0/24")), networks=[other])) == ["10.1.1.0/24"]


def test_a_subnet_that_was_asked_for_may_be_one_that_the_host_has_a_route_to() -> None:
    assert _subnets(_define(_request(_subnet("10.1.0.0/24")), routes=["10.0.0.0/8"])) == ["10.1.0.0/24"]


@pytest.mark.parametrize("driver", CHILD_DRIVERS)
def test_networks_of_children_may_share_a_subnet(driver: str) -> None:
    other = _define(_request(_subnet("10.1.0.0/24"), driver=driver))
    network = _define(_request(_subnet("10.1.0.0/24"), driver=driver), networks=[other])
    assert _subnets(network) == ["10.1.0.0/24"]


def test_a_default_subnet_avoids_other_networks_and_the_hosts_routes() -> None:
    other = _define(_request())
    network = _define(_request(), networks=[other], routes=["10.40.1.128/25", "192.0.2.0/24"])
    assert (_subnets(other), _subnets(network)) == (["10.40.0.0/24"], ["10.40.2.0/24"])


def test_default_subnets_are_told_to_be_at_an_end() -> None:
    with pytest.raises(NoSubnetLeft) as caught:
        _define(_request(), routes=["10.40.0.0/16"])
    assert str(caught.value) == "all predefined address pools have been fully subnetted (IPv4)"
    assert isinstance(caught.value, Unavailable)
    assert "--default-address-pool" in caught.value.hint


def test_as_many_networks_as_a_pool_has_subnets_are_all_apart() -> None:
    networks: list[Network] = []
    for _ in range(4):
        networks.append(_define(_request(), networks=networks))
    assert {s for n in networks for s in _subnets(n)} == {f"10.40.{i}.0/24" for i in range(4)}
    with pytest.raises(NoSubnetLeft):
        _define(_request(), networks=networks)


def test_dockers_own_pools_do_for_thirty_networks() -> None:
    networks: list[Network] = []
    for _ in range(30):
        networks.append(define(_request(), networks=networks, routes=[], pools=DEFAULT_POOLS))
    subnets = [ip_network(text) for network in networks for text in _subnets(network)]
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[:i])
    assert all(subnet.is_private for subnet in subnets)


def test_by_default_a_network_has_ipv4_alone() -> None:
    network = _define(_request())
    assert (network.enable_ipv4, network.enable_ipv6) == (True, False)
    assert _subnets(network) == ["10.40.0.0/24"]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_request(ipv6=True), id="by the field"),
        pytest.param(_request(options={"com.docker.network.enable_ipv6": "true"}), id="by the option"),
    ],
)
def test_with_ipv6_a_network_has_a_subnet_of_the_hosts_own_prefix_too(request_: NetworkRequest) -> None:
    network = _define(request_)
    assert (network.enable_ipv4, network.enable_ipv6) == (True, True)
    assert _subnets(network) == ["10.40.0.0/24", "fd12:3456:789a::/64"]
    assert _gateways(network) == ["10.40.0.1", "fd12:3456:789a::1"]


def test_the_next_network_with_ipv6_has_the_next_subnet_of_the_prefix() -> None:
    first = _define(_request(ipv6=True))
    second = _define(_request(ipv6=True), networks=[first])
    subnet = second.subnet(6)
    assert subnet is not None and subnet.subnet == "fd12:3456:789a:1::/64"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_request(ipv4=False, ipv6=True), id="by the field"),
        pytest.param(_request(ipv6=True, options={"com.docker.network.enable_ipv4": "false"}), id="by the option"),
    ],
)
def test_without_ipv4_a_network_has_ipv6_alone(request_: NetworkRequest) -> None:
    network = _define(request_)
    assert (network.enable_ipv4, network.enable_ipv6) == (False, True)
    assert [IPv6Network(text).prefixlen for text in _subnets(network)] == [64]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_request(ipv4=False), id="by the field"),
        pytest.param(_request(ipv6=False, options={"com.docker.network.enable_ipv4": "false"}), id="by the option"),
    ],
)
def test_a_network_of_neither_version_is_refused(request_: NetworkRequest) -> None:
    assert _refusal(request_) == "IPv4 or IPv6 must be enabled"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "t", "T", "TRUE", "true", "True")),
        *((text, False) for text in ("", "0", "f", "F", "FALSE", "false", "False")),
    ],
)
@pytest.mark.parametrize("driver", ["bridge", *CHILD_DRIVERS])
def test_the_option_for_ipv6_is_what_go_takes_for_true(driver: str, text: str, value: bool) -> None:
    network = _define(_request(driver=driver, options={"com.docker.network.enable_ipv6": text}))
    assert network.enable_ipv6 is value


@pytest.mark.parametrize("ipv6", [None, True, False])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("driver", ["bridge", *CHILD_DRIVERS])
def test_the_option_for_a_version_is_true_or_false(driver: str, version: int, ipv6: bool | None) -> None:
    name = f"com.docker.network.enable_ipv{version}"
    message = _refusal(_request(driver=driver, ipv6=ipv6, options={name: "banana"}))
    assert message == f'strconv.ParseBool: parsing "banana": invalid syntax ({name})'


def test_the_field_is_stronger_than_the_option() -> None:
    network = _define(_request(ipv6=False, options={"com.docker.network.enable_ipv6": "true"}))
    assert network.enable_ipv6 is False


def test_an_ipv6_subnet_alone_is_refused_where_ipv6_is_not_to_be() -> None:
    message = _refusal(_request(_subnet("fd00:1::/64"), ipv6=False))
    assert message == "invalid network config:\nan IPv6 subnet needs --ipv6"


def test_an_ipv6_subnet_beside_an_ipv4_one_is_left_out_without_ipv6() -> None:
    network = _define(_request(_subnet("10.1.0.0/24"), _subnet("fd00:1::/64")))
    assert _subnets(network) == ["10.1.0.0/24"]


def test_ipv6_without_a_pool_for_it_is_told() -> None:
    with pytest.raises(NoSubnetLeft, match=r"\(IPv6\)"):
        _define(_request(ipv6=True), pools=1)


@pytest.mark.parametrize(
    ("subnets", "chosen"),
    [
        pytest.param([], True, id="no subnet"),
        pytest.param([Subnet()], True, id="an empty one, as clients send"),
        pytest.param([_subnet("10.1.0.0/24")], False, id="a subnet"),
    ],
)
def test_whether_somebody_named_the_subnet_is_noted(subnets: list[Subnet], chosen: bool) -> None:
    assert _define(_request(*subnets)).chosen is chosen


def test_a_bridge_is_told_nothing_by_default() -> None:
    assert BridgeOptions.parse({}) == BridgeOptions(
        icc=True,
        masquerade=True,
        host_binding="",
        mtu=0,
        interface_prefix="eth",
        gateway_mode4="nat",
        gateway_mode6="nat",
    )


def test_a_bridges_options_are_read() -> None:
    options = BridgeOptions.parse(
        {
            f"{_BRIDGE}name": "shop0",
            f"{_BRIDGE}enable_icc": "false",
            f"{_BRIDGE}enable_ip_masquerade": "0",
            f"{_BRIDGE}host_binding_ipv4": "127.0.0.1",
            f"{_BRIDGE}gateway_mode_ipv4": "routed",
            f"{_BRIDGE}gateway_mode_ipv6": "nat-unprotected",
            "com.docker.network.container_iface_prefix": "lan",
            _MTU: "1400",
        }
    )
    assert options == BridgeOptions(
        icc=False,
        masquerade=False,
        host_binding="127.0.0.1",
        mtu=1400,
        interface_prefix="lan",
        gateway_mode4="routed",
        gateway_mode6="nat-unprotected",
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "t", "T", "TRUE", "true", "True", "")),
        *((text, False) for text in ("0", "f", "F", "FALSE", "false", "False")),
    ],
)
def test_what_is_true_is_what_go_takes_for_true(text: str, value: bool) -> None:
    assert BridgeOptions.parse({f"{_BRIDGE}enable_icc": text}).icc is value


@pytest.mark.parametrize("text", ["0", "68", "1500", "65535"])
def test_an_mtu_that_ip_can_do_with_is_taken(text: str) -> None:
    assert BridgeOptions.parse({_MTU: text}).mtu == int(text)
    assert ChildOptions.parse("macvlan", {_MTU: text}).mtu == int(text)


@pytest.mark.parametrize(
    "text", ["67", "65536", "-1", "1500 ", "many", "1e3", "１５００", "²", pytest.param("9" * 5000, id="5000 digits")]
)
@pytest.mark.parametrize("driver", ["bridge", *CHILD_DRIVERS])
def test_an_mtu_that_is_none_is_refused(driver: str, text: str) -> None:
    message = _refusal(_request(driver=driver, options={_MTU: text}))
    assert message == f"invalid MTU {text!r}: it must be a number from 68 to 65535"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            f"{_BRIDGE}enable_icc",
            "yes",
            'strconv.ParseBool: parsing "yes": invalid syntax (com.docker.network.bridge.enable_icc)',
        ),
        (
            f"{_BRIDGE}enable_ip_masquerade",
            "TrUe",
            'strconv.ParseBool: parsing "TrUe": invalid syntax (com.docker.network.bridge.enable_ip_masquerade)',
        ),
        (
            f"{_BRIDGE}host_binding_ipv4",
            "here",
            "invalid address 'here' for com.docker.network.bridge.host_binding_ipv4",
        ),
        (
            f"{_BRIDGE}host_binding_ipv4",
            "fe80::1%x } ; flush ruleset",
            "invalid address 'fe80::1%x } ; flush ruleset' for com.docker.network.bridge.host_binding_ipv4",
        ),
        (f"{_BRIDGE}gateway_mode_ipv4", "open", "unknown gateway mode open"),
        (f"{_BRIDGE}gateway_mode_ipv6", "Routed", "unknown gateway mode Routed"),
        (f"{_BRIDGE}colour", "red", "unknown option 'com.docker.network.bridge.colour' for the bridge driver"),
        (
            "com.docker.network.enable_ipv5",
            "true",
            "unknown option 'com.docker.network.enable_ipv5' for the bridge driver",
        ),
        (f"{_BRIDGE}inhibit_ipv4", "true", "option 'com.docker.network.bridge.inhibit_ipv4' is not supported"),
        (
            f"{_BRIDGE}trusted_host_interfaces",
            "eth0",
            "option 'com.docker.network.bridge.trusted_host_interfaces' is not supported",
        ),
        ("com.docker.network.host_ipv4", "192.0.2.1", "option 'com.docker.network.host_ipv4' is not supported"),
        ("com.docker.network.host_ipv6", "fd00::1", "option 'com.docker.network.host_ipv6' is not supported"),
    ],
)
def test_an_option_that_a_bridge_cannot_follow_is_refused(name: str, text: str, message: str) -> None:
    assert _refusal(_request(options={name: text})) == message


def test_others_options_are_kept() -> None:
    assert _define(_request(options={"com.example.colour": "red", "parent": "eth0"})).options == {
        "com.example.colour": "red",
        "parent": "eth0",
    }


@pytest.mark.parametrize(
    "name", ["example.host_ipv4", "com.example.host_ipv6", "com.example.bridge.inhibit_ipv4", "host_ipv4"]
)
def test_others_options_are_kept_though_they_end_as_an_unsupported_one_does(name: str) -> None:
    assert _define(_request(options={name: "192.0.2.1"})).options == {name: "192.0.2.1"}


@pytest.mark.parametrize(("driver", "mode"), [("macvlan", "bridge"), ("ipvlan", "l2")])
def test_children_have_their_drivers_mode_by_default(driver: str, mode: str) -> None:
    assert ChildOptions.parse(driver, {}) == ChildOptions(parent="", mode=mode, mtu=0)


@pytest.mark.parametrize(
    ("driver", "mode"),
    [
        *(("macvlan", mode) for mode in ("bridge", "private", "vepa", "passthru")),
        *(("ipvlan", mode) for mode in ("l2", "l3", "l3s")),
    ],
)
def test_children_have_the_mode_and_the_parent_that_were_asked_for(driver: str, mode: str) -> None:
    options = ChildOptions.parse(driver, {"parent": "eth0.7", f"{driver}_mode": mode, _MTU: "1400"})
    assert options == ChildOptions(parent="eth0.7", mode=mode, mtu=1400)


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        (
            "macvlan",
            {"macvlan_mode": "l2"},
            "requested macvlan mode 'l2' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            "ipvlan",
            {"ipvlan_mode": "bridge"},
            "requested ipvlan mode 'bridge' is not valid, 'l2' mode is the ipvlan driver default",
        ),
        ("macvlan", {"ipvlan_mode": "l2"}, "unknown option 'ipvlan_mode' for the macvlan driver"),
        ("ipvlan", {"macvlan_mode": "bridge"}, "unknown option 'macvlan_mode' for the ipvlan driver"),
        ("macvlan", {"com.example.colour": "red"}, "unknown option 'com.example.colour' for the macvlan driver"),
        (
            "ipvlan",
            {f"{_BRIDGE}enable_icc": "true"},
            "unknown option 'com.docker.network.bridge.enable_icc' for the ipvlan driver",
        ),
    ],
)
def test_an_option_that_children_cannot_follow_is_refused(driver: str, options: dict[str, str], message: str) -> None:
    assert _refusal(_request(driver=driver, options=options)) == message
