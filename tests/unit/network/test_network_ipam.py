"""Addresses of a subnet: each is given to one endpoint at a time."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lamina.errors import Conflict, Unavailable
from lamina.network.errors import AddressInUse, NoAddressLeft
from lamina.network.ipam import AddressPool
from lamina.network.model import Address

GATEWAY = IPv4Interface("10.219.7.1/28")


def _pool(gateway: str = "10.219.7.1/28") -> AddressPool:
    return AddressPool("bridge (abc)", IPv4Interface(gateway))


def test_addresses_are_given_from_the_lowest_upwards() -> None:
    pool = _pool()
    assert [str(pool.allocate()) for _ in range(3)] == ["10.219.7.2", "10.219.7.3", "10.219.7.4"]


def test_an_address_just_freed_is_not_the_next_one_given() -> None:
    pool = _pool()
    first = pool.allocate()
    pool.release(first)
    assert pool.allocate() != first


def test_after_the_end_of_the_subnet_the_search_begins_anew() -> None:
    pool = _pool("10.219.7.1/29")
    given = [pool.allocate() for _ in range(5)]
    pool.release(given[1])
    assert pool.allocate() == given[1]


def test_a_gateway_in_the_middle_of_the_subnet_is_left_out() -> None:
    pool = _pool("10.219.7.3/29")
    assert [int(pool.allocate()) & 7 for _ in range(5)] == [1, 2, 4, 5, 6]


def test_an_exhausted_subnet_is_told_in_dockers_words() -> None:
    pool = _pool("10.219.7.1/30")
    pool.allocate()
    with pytest.raises(NoAddressLeft) as caught:
        pool.allocate()
    assert str(caught.value) == "no available IPv4 addresses on this network's address pools: bridge (abc)"
    assert isinstance(caught.value, Unavailable)


def test_a_freed_address_ends_the_exhaustion() -> None:
    pool = _pool("10.219.7.1/30")
    only = pool.allocate()
    pool.release(only)
    assert pool.allocate() == only


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("10.219.7.0", id="the network's own address"),
        pytest.param("10.219.7.15", id="the broadcast address"),
        pytest.param("10.219.7.1", id="the gateway"),
        pytest.param("10.219.7.16", id="outside the subnet"),
    ],
)
def test_an_address_that_is_no_endpoints_cannot_be_reserved(address: str) -> None:
    with pytest.raises(AddressInUse, match=address) as caught:
        _pool().reserve(IPv4Address(address))
    assert isinstance(caught.value, Conflict)


@pytest.mark.parametrize("address", ["10.219.7.0", "10.219.7.1", "10.219.7.15"])
def test_releasing_what_is_no_endpoints_does_not_make_it_one(address: str) -> None:
    pool = _pool()
    pool.release(IPv4Address(address))
    with pytest.raises(AddressInUse):
        pool.reserve(IPv4Address(address))


class AddressPoolLife(RuleBasedStateMachine):
    """Any sequence of allocations, reservations and releases: no address is held twice."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool("bridge", GATEWAY)
        self.held: set[Address] = set()

    @property
    def _all(self) -> set[IPv4Address]:
        return set(GATEWAY.network.hosts()) - {GATEWAY.ip}

    @rule()
    def allocate(self) -> None:
        if self.held == self._all:
            with pytest.raises(NoAddressLeft):
                self.pool.allocate()
            return
        address = self.pool.allocate()
        assert address not in self.held
        self.held.add(address)

    @rule(offset=st.integers(min_value=0, max_value=15))
    def reserve(self, offset: int) -> None:
        address = GATEWAY.network.network_address + offset
        if address in self._all - self.held:
            self.pool.reserve(address)
            self.held.add(address)
        else:
            with pytest.raises(AddressInUse):
                self.pool.reserve(address)

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.held, key=int)))
        self.pool.release(address)
        self.held.discard(address)

    @invariant()
    def only_endpoints_addresses_are_held(self) -> None:
        assert self.held <= self._all


AddressPoolLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAddressPoolLife = AddressPoolLife.TestCase
