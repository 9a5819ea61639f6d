"""Who is called what in which network: names in, addresses out."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lamina.resolver.messages import Member, Sandbox
from lamina.resolver.zone import Zone


def _member(network: str, names: list[str], *addresses: str) -> Member:
    """A container's place in a network."""
    return Member(network=f"id of {network}", network_name=network, names=names, addresses=list(addresses))


def _sandbox(pin: str, *members: Member, links: dict[str, str] | None = None) -> Sandbox:
    return Sandbox(pin=pin, container=f"id of {pin}", members=list(members), links=links or {})


def _zone(*sandboxes: Sandbox) -> Zone:
    zone = Zone()
    for sandbox in sandboxes:
        zone.put(sandbox)
    return zone


WEB = _sandbox("web", _member("front", ["web", "www", "0123456789ab"], "10.1.0.2", "fd00:1::2"))
DB = _sandbox("db", _member("back", ["db", "sql"], "10.2.0.2"))
APP = _sandbox(
    "app",
    _member("front", ["app"], "10.1.0.3"),
    _member("back", ["app", "logic"], "10.2.0.3"),
)


@pytest.mark.parametrize("name", ["web", "www", "0123456789ab"])
def test_each_name_of_a_container_leads_to_its_addresses(name: str) -> None:
    assert _zone(WEB, APP).addresses(APP, name) == ["10.1.0.2", "fd00:1::2"]


def test_a_container_knows_its_own_names() -> None:
    assert _zone(WEB).addresses(WEB, "www") == ["10.1.0.2", "fd00:1::2"]


@pytest.mark.parametrize("name", ["WEB", "Web", "web.", "wEb.FRONT", "web.front.", "WWW.Front."])
def test_names_are_the_same_in_capitals_and_with_the_dot_at_the_end(name: str) -> None:
    assert _zone(WEB, APP).addresses(APP, name) == ["10.1.0.2", "fd00:1::2"]


def test_names_that_were_given_in_capitals_are_found() -> None:
    loud = _sandbox("loud", _member("Front", ["LOUD"], "10.1.0.9"))
    zone = _zone(loud)
    for name in ("loud", "LOUD", "loud.front", "Loud.Front"):
        assert zone.addresses(loud, name) == ["10.1.0.9"], name


@pytest.mark.parametrize(
    "name", ["", ".", "we", "webs", "web.back", "web.id of front", "front", "web.front.front", "*"]
)
def test_a_name_that_nobody_has_leads_nowhere(name: str) -> None:
    assert _zone(WEB, APP).addresses(APP, name) is None


def test_the_names_of_other_networks_are_not_seen() -> None:
    zone = _zone(WEB, DB, APP)
    assert zone.addresses(WEB, "db") is None
    assert zone.addresses(WEB, "db.back") is None
    assert zone.addresses(WEB, "logic") is None
    assert zone.addresses(DB, "web") is None
    assert zone.addresses(APP, "db") == ["10.2.0.2"]


def test_of_a_container_in_several_networks_only_shared_ones_are_told() -> None:
    zone = _zone(WEB, DB, APP)
    assert zone.addresses(WEB, "app") == ["10.1.0.3"]
    assert zone.addresses(DB, "app") == ["10.2.0.3"]
    assert zone.addresses(APP, "app") == ["10.1.0.3", "10.2.0.3"]


def test_with_the_networks_name_the_address_there_is_told() -> None:
    zone = _zone(WEB, DB, APP)
    assert zone.addresses(APP, "app.front") == ["10.1.0.3"]
    assert zone.addresses(APP, "app.back") == ["10.2.0.3"]


def test_networks_of_the_same_name_are_not_mistaken_for_each_other() -> None:
    here = _sandbox("here", Member(network="1", network_name="net", names=["a"], addresses=["10.1.0.2"]))
    there = _sandbox("there", Member(network="2", network_name="net", names=["b"], addresses=["10.2.0.2"]))
    zone = _zone(here, there)
    assert zone.addresses(here, "b") is None
    assert zone.addresses(here, "b.net") is None
    assert zone.name_of(here, "10.2.0.2") is None


def test_an_alias_of_several_containers_leads_to_all_of_them() -> None:
    workers = [_sandbox(f"w{i}", _member("front", [f"w{i}", "worker"], f"10.1.0.{i}")) for i in (4, 5, 6)]
    zone = _zone(APP, *workers)
    assert zone.addresses(APP, "worker") == ["10.1.0.4", "10.1.0.5", "10.1.0.6"]
    zone.drop("w5")
    assert zone.addresses(APP, "worker") == ["10.1.0.4", "10.1.0.6"]


def test_an_alias_in_several_networks_leads_to_its_holders_in_all_of_the_askers() -> None:
    one = _sandbox("one", _member("front", ["one", "service"], "10.1.0.7"))
    two = _sandbox("two", _member("back", ["two", "service"], "10.2.0.7"))
    zone = _zone(one, two, APP)
    assert zone.addresses(APP, "service") == ["10.1.0.7", "10.2.0.7"]
    assert zone.addresses(one, "service") == ["10.1.0.7"]


def test_an_address_is_told_once() -> None:
    twin = _sandbox("twin", _member("front", ["twin"], "10.1.0.2"), _member("back", ["twin"], "10.1.0.2"))
    assert _zone(twin).addresses(twin, "twin") == ["10.1.0.2"]


def test_a_container_without_an_address_has_its_name() -> None:
    bare = _sandbox("bare", _member("front", ["bare"]))
    assert _zone(bare, APP).addresses(APP, "bare") == []


def test_one_who_is_in_no_network_finds_nobody() -> None:
    assert _zone(WEB, DB).addresses(_sandbox("lonely"), "web") is None


def test_one_who_is_not_known_yet_finds_the_others() -> None:
    assert _zone(WEB).addresses(APP, "web") == ["10.1.0.2", "fd00:1::2"]


@pytest.mark.parametrize("name", ["site", "SITE", "site."])
def test_a_link_is_another_name_that_one_container_alone_knows(name: str) -> None:
    linked = _sandbox("linked", _member("front", ["linked"], "10.1.0.8"), links={"site": "WEB"})
    zone = _zone(WEB, APP, linked)
    assert zone.addresses(linked, name) == ["10.1.0.2", "fd00:1::2"]
    assert zone.addresses(linked, "web") == ["10.1.0.2", "fd00:1::2"]
    assert zone.addresses(APP, name) is None


def test_a_link_hides_the_container_that_has_its_name() -> None:
    linked = _sandbox("linked", _member("front", ["linked"], "10.1.0.8"), links={"app": "web"})
    assert _zone(WEB, APP, linked).addresses(linked, "app") == ["10.1.0.2", "fd00:1::2"]


def test_a_link_to_nobody_leads_nowhere_until_somebody_comes() -> None:
    linked = _sandbox("linked", _member("front", ["linked"], "10.1.0.8"), links={"site": "web"})
    zone = _zone(linked)
    assert zone.addresses(linked, "site") is None
    zone.put(WEB)
    assert zone.addresses(linked, "site") == ["10.1.0.2", "fd00:1::2"]


def test_a_link_does_not_lead_into_a_network_that_is_not_the_askers() -> None:
    linked = _sandbox("linked", _member("front", ["linked"], "10.1.0.8"), links={"store": "db"})
    assert _zone(DB, linked).addresses(linked, "store") is None


def test_what_was_dropped_is_known_no_more() -> None:
    zone = _zone(WEB, APP)
    zone.drop("web")
    assert zone.get("web") is None
    assert zone.pins() == ["app"]
    assert zone.addresses(APP, "web") is None
    assert zone.addresses(APP, "web.front") is None
    assert zone.name_of(APP, "10.1.0.2") is None


def test_dropping_what_is_not_there_changes_nothing() -> None:
    zone = _zone(WEB)
    zone.drop("app")
    assert zone.addresses(WEB, "web") == ["10.1.0.2", "fd00:1::2"]


def test_what_is_put_again_has_what_it_has_now_and_nothing_else() -> None:
    zone = _zone(WEB, APP)
    changed = _sandbox("web", _member("front", ["shop"], "10.1.0.99"))
    zone.put(changed)
    assert zone.get("web") == changed
    assert zone.addresses(APP, "shop") == ["10.1.0.99"]
    assert zone.addresses(APP, "web") is None
    assert zone.name_of(APP, "10.1.0.2") is None
    assert zone.name_of(APP, "10.1.0.99") == "shop.front"


def test_an_address_that_has_a_new_owner_stays_its_when_the_old_one_goes() -> None:
    zone = _zone(
        APP,
        _sandbox("old", _member("front", ["old"], "10.1.0.9", "fd00:1::9")),
        _sandbox("new", _member("front", ["new"], "10.1.0.9", "fd00:1::9")),
    )
    for address in ("10.1.0.9", "fd00:1::9"):
        assert zone.name_of(APP, address) == "new.front"
    zone.drop("old")
    for address in ("10.1.0.9", "fd00:1::9"):
        assert zone.name_of(APP, address) == "new.front"
    zone.drop("new")
    for address in ("10.1.0.9", "fd00:1::9"):
        assert zone.name_of(APP, address) is None


def test_an_address_that_has_a_new_owner_stays_its_when_the_old_one_gets_another() -> None:
    old = _sandbox("old", _member("front", ["old"], "10.1.0.9"))
    zone = _zone(APP, old, _sandbox("new", _member("front", ["new"], "10.1.0.9")))
    zone.put(_sandbox("old", _member("front", ["old"], "10.1.0.10")))
    assert zone.name_of(APP, "10.1.0.9") == "new.front"
    assert zone.name_of(APP, "10.1.0.10") == "old.front"


def test_one_who_leaves_a_network_is_seen_there_no_more() -> None:
    zone = _zone(WEB, DB, APP)
    zone.put(_sandbox("app", _member("front", ["app"], "10.1.0.3")))
    assert zone.addresses(DB, "app") is None
    assert zone.addresses(WEB, "app") == ["10.1.0.3"]


def test_all_that_are_known_are_told() -> None:
    assert sorted(_zone(WEB, DB, APP).pins()) == ["app", "db", "web"]
    assert _zone(WEB, DB, APP).get("db") == DB


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.1.0.2", "web.front"), ("fd00:1::2", "web.front"), ("10.1.0.3", "app.front"), ("10.2.0.3", "app.back")],
)
def test_an_address_is_told_to_be_the_first_names(address: str, name: str) -> None:
    assert _zone(WEB, DB, APP).name_of(APP, address) == name


def test_the_addresses_of_other_networks_are_nobodys() -> None:
    zone = _zone(WEB, DB, APP)
    assert zone.name_of(WEB, "10.2.0.2") is None
    assert zone.name_of(WEB, "10.2.0.3") is None
    assert zone.name_of(WEB, "192.0.2.1") is None


def test_the_address_of_one_without_a_name_is_nobodys() -> None:
    assert _zone(APP, _sandbox("mute", _member("front", [], "10.1.0.6"))).name_of(APP, "10.1.0.6") is None


_NETWORKS = ("front", "back")
_NAMES = ("a", "b", "c", "A")
_PINS = ("p0", "p1", "p2", "p3")


class ZoneLife(RuleBasedStateMachine):
    """Any sequence of puts and drops: what is known is what is there, and nothing of what was before."""

    def __init__(self) -> None:
        super().__init__()
        self.zone = Zone()
        self.there: dict[str, Sandbox] = {}

    @rule(
        number=st.integers(min_value=0, max_value=len(_PINS) - 1),
        names=st.dictionaries(
            st.sampled_from(_NETWORKS), st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3, unique=True)
        ),
    )
    def put(self, number: int, names: dict[str, list[str]]) -> None:
        members = [_member(n, found, f"10.{_NETWORKS.index(n)}.0.{number}") for n, found in names.items()]
        sandbox = _sandbox(_PINS[number], *members)
        self.zone.put(sandbox)
        self.there[sandbox.pin] = sandbox

    @rule(pin=st.sampled_from(_PINS))
    def drop(self, pin: str) -> None:
        self.zone.drop(pin)
        self.there.pop(pin, None)

    @invariant()
    def names_are_those_of_who_is_there(self) -> None:
        asker = _sandbox("asker", *(_member(network, []) for network in _NETWORKS))
        assert sorted(self.zone.pins()) == sorted(self.there)
        members = [member for sandbox in self.there.values() for member in sandbox.members]
        for name in ("a", "b", "c"):
            for suffix in ("", *_NETWORKS):
                wanted = {
                    address
                    for member in members
                    if suffix in ("", member.network_name) and name in [n.lower() for n in member.names]
                    for address in member.addresses
                }
                found = self.zone.addresses(asker, f"{name}.{suffix}")
                assert set(found or ()) == wanted
                assert (found is None) == (not wanted)

    @invariant()
    def addresses_are_those_of_who_is_there(self) -> None:
        asker = _sandbox("asker", *(_member(network, []) for network in _NETWORKS))
        known = {
            member.addresses[0]: f"{member.names[0]}.{member.network_name}"
            for sandbox in self.there.values()
            for member in sandbox.members
        }
        for net in range(len(_NETWORKS)):
            for number in range(len(_PINS)):
                address = f"10.{net}.0.{number}"
                assert self.zone.name_of(asker, address) == known.get(address)


ZoneLife.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestZoneLife = ZoneLife.TestCase
