"""Which subnet a network gets when nobody names one."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import InvalidArgument
from lamina.network.errors import InvalidNetwork, NoSubnetLeft, SubnetOverlaps
from lamina.network.ipam import IPNetwork
from lamina.network.subnets import DEFAULT_POOLS, SubnetPool, check_free, free_subnet, with_own_prefix

_POOL = SubnetPool(IPv4Network("10.40.0.0/20"), 24)


def _networks(*texts: str) -> list[IPNetwork]:
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "base", "size"),
    [
        ("base=10.10.0.0/16,size=24", "10.10.0.0/16", 24),
        ("size=24,base=10.10.0.0/16", "10.10.0.0/16", 24),
        ("base=10.10.0.0/16,size=16", "10.10.0.0/16", 16),
        ("base=10.10.0.0/16,size=30", "10.10.0.0/16", 30),
        ("base=fd00:1::/56,size=64", "fd00:1::/56", 64),
        ("base=fd00:1::/56,size=126", "fd00:1::/56", 126),
    ],
)
def test_a_pool_is_read(text: str, base: str, size: int) -> None:
    assert SubnetPool.parse(text) == SubnetPool(ip_network(base), size)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.10.0.0/16",
        "base=10.10.0.0/16",
        "size=24",
        "base=10.10.0.0/16,size=",
        "base=10.10.0.0/16,size=-1",
        "base=10.10.0.0/16,size=²",
        "base=10.10.0.0/16,size=２４",
        pytest.param("base=10.10.0.0/16,size=" + "9" * 5000, id="5000 digits"),
        "base=10.10.0.0/16,size=24,",
        "base=10.10.0.0/16,size=24,scope=local",
        "Base=10.10.0.0/16,size=24",
        "base=10.10.0.0/16 size=24",
    ],
)
def test_what_is_no_pool_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidNetwork) as caught:
        SubnetPool.parse(text)
    assert str(caught.value) == f"invalid default address pool: {text!r}: write it as base=10.10.0.0/16,size=24"
    assert isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base=10.10.0.1/16,size=24", "10.10.0.1/16 has host bits set"),
        ("base=here,size=24", "'here' does not appear to be an IPv4 or IPv6 network"),
        ("base=10.10.0.0/16,size=15", "size 15 does not fit into 10.10.0.0/16"),
        ("base=10.10.0.0/16,size=31", "size 31 does not fit into 10.10.0.0/16"),
        ("base=10.10.0.0/31,size=31", "size 31 does not fit into 10.10.0.0/31"),
        ("base=fd00::/48,size=24", "size 24 does not fit into fd00::/48"),
        ("base=fd00::/48,size=127", "size 127 does not fit into fd00::/48"),
    ],
)
def test_a_pool_that_cannot_be_cut_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidNetwork) as caught:
        SubnetPool.parse(text)
    assert str(caught.value) == f"invalid default address pool: {reason}"


def test_a_pool_is_cut_into_subnets_of_its_size() -> None:
    assert list(SubnetPool(IPv4Network("10.40.0.0/22"), 24).subnets()) == _networks(
        "10.40.0.0/24", "10.40.1.0/24", "10.40.2.0/24", "10.40.3.0/24"
    )


def test_a_pool_without_end_is_not_looked_through_to_its_end() -> None:
    pool = SubnetPool(IPv6Network("fd00::/8"), 126)
    with pytest.raises(NoSubnetLeft):
        free_subnet(6, [pool], [IPv6Network("fd00::/8")])


def test_the_default_pools_are_private_and_apart_from_one_another() -> None:
    bases = [pool.base for pool in DEFAULT_POOLS]
    assert all(base.is_private for base in bases)
    assert not any(a.overlaps(b) for i, a in enumerate(bases) for b in bases[:i])


def test_the_default_pools_are_asked_from_172_30_downwards() -> None:
    order = [str(pool.base) for pool in DEFAULT_POOLS]
    assert order[0] == "172.30.0.0/16"
    assert order[-3:] == ["172.17.0.0/16", "172.31.0.0/16", "192.168.0.0/16"]


def test_the_hosts_own_prefix_is_drawn_once(tmp_path: Path) -> None:
    path = tmp_path / "prefix6"
    first = with_own_prefix(DEFAULT_POOLS, path)
    assert first[:-1] == DEFAULT_POOLS
    assert path.read_text() == f"{first[-1].base}\n"
    assert with_own_prefix(DEFAULT_POOLS, path) == first


def test_the_hosts_own_prefix_is_a_unique_local_one_for_many_networks(tmp_path: Path) -> None:
    own = with_own_prefix([], tmp_path / "prefix6")[-1]
    assert own.base.version == 6
    assert own.base.subnet_of(IPv6Network("fd00::/8"))
    assert (own.base.prefixlen, own.prefix_len) == (48, 64)


def test_hosts_have_different_prefixes(tmp_path: Path) -> None:
    prefixes = {with_own_prefix([], tmp_path / str(number))[-1].base for number in range(8)}
    assert len(prefixes) == 8


def test_the_prefix_in_the_file_is_kept_whoever_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "prefix6"
    path.write_text("fd12:3456:789a::/48")
    assert with_own_prefix([_POOL], path) == (_POOL, SubnetPool(IPv6Network("fd12:3456:789a::/48"), 64))
    assert path.read_text() == "fd12:3456:789a::/48"


def test_where_there_is_a_pool_for_ipv6_no_prefix_is_drawn(tmp_path: Path) -> None:
    pools = [_POOL, SubnetPool(IPv6Network("fd00:1::/56"), 64)]
    assert with_own_prefix(pools, tmp_path / "prefix6") == tuple(pools)
    assert list(tmp_path.iterdir()) == []


def test_the_first_free_subnet_is_taken() -> None:
    assert free_subnet(4, [_POOL], []) == IPv4Network("10.40.0.0/24")
    assert free_subnet(4, [_POOL], _networks("10.40.0.0/23", "10.40.2.7/32")) == IPv4Network("10.40.3.0/24")


def test_the_next_pool_is_asked_when_one_is_full() -> None:
    pools = [SubnetPool(IPv4Network("10.40.0.0/24"), 24), SubnetPool(IPv4Network("10.50.0.0/16"), 20)]
    assert free_subnet(4, pools, _networks("10.40.0.0/24")) == IPv4Network("10.50.0.0/20")


def test_pools_and_networks_of_the_other_version_do_not_matter() -> None:
    pools = [SubnetPool(IPv6Network("fd00:1::/48"), 64), _POOL]
    taken = _networks("::/0", "10.40.0.0/24")
    assert free_subnet(4, pools, taken) == IPv4Network("10.40.1.0/24")
    assert free_subnet(6, pools, _networks("0.0.0.0/0")) == IPv6Network("fd00:1::/64")


@pytest.mark.parametrize("version", [4, 6])
def test_an_end_of_the_subnets_is_told(version: int) -> None:
    with pytest.raises(NoSubnetLeft) as caught:
        free_subnet(version, [_POOL], _networks("10.0.0.0/8"))
    assert str(caught.value) == f"all predefined address pools have been fully subnetted (IPv{version})"
    assert caught.value.version == version


_SMALL = st.builds(
    lambda offset, prefix_len: IPv4Network((int(_POOL.base.network_address) + offset, prefix_len), strict=False),
    st.integers(min_value=-256, max_value=_POOL.base.num_addresses + 256),
    st.integers(min_value=21, max_value=32),
)


@given(st.lists(_SMALL, max_size=24))
@settings(deadline=None)
def test_a_free_subnet_is_the_first_that_overlaps_nothing_taken(taken: list[IPv4Network]) -> None:
    free = [s for s in IPv4Network("10.40.0.0/20").subnets(new_prefix=24) if not any(s.overlaps(t) for t in taken)]
    if free:
        assert free_subnet(4, [_POOL], taken) == free[0]
    else:
        with pytest.raises(NoSubnetLeft):
            free_subnet(4, [_POOL], taken)


@pytest.mark.parametrize("other", ["10.1.0.0/24", "10.1.0.0/16", "10.1.0.255/32"])
def test_an_overlap_is_refused(other: str) -> None:
    with pytest.raises(SubnetOverlaps):
        check_free(IPv4Network("10.1.0.0/24"), _networks("192.0.2.0/24", other))


def test_what_touches_nothing_is_free() -> None:
    check_free(IPv4Network("10.1.0.0/24"), _networks("10.0.255.0/24", "10.1.1.0/24", "::/0"))
