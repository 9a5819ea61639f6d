"""What a question asks, and the answer to it, as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.resolver import answers
from lamina.resolver.messages import Member, Sandbox
from lamina.resolver.zone import Zone


def _sandbox(pin: str, names: list[str], addresses: Iterable[str], network: str = "shop") -> Sandbox:
    member = Member(network=f"id of {network}", network_name=network, names=names, addresses=list(addresses))
    return Sandbox(pin=pin, container=f"id of {pin}", members=[member])


WEB = _sandbox("web", ["web", "www"], ["10.1.0.2", "fd00:1::2"])
DB = _sandbox("db", ["db"], ["10.1.0.3"])
FAR = _sandbox("far", ["far"], ["10.9.0.2"], network="elsewhere")
MANY = _sandbox("many", ["many"], [f"10.1.1.{number}" for number in range(100)])


@pytest.fixture
def zone() -> Zone:
    found = Zone()
    for sandbox in (WEB, DB, FAR, MANY):
        found.put(sandbox)
    return found


def _wire(name: str, kind: str = "A", *, payload: int | None = None) -> bytes:
    message = dns.message.make_query(name, kind, use_edns=None if payload is None else 0, payload=payload)
    message.id = 4711
    return message.to_wire()


def _question(name: str, kind: str = "A", *, payload: int | None = None) -> answers.Question:
    question = answers.read(_wire(name, kind, payload=payload))
    assert question is not None
    return question


def _answer(zone: Zone, name: str, kind: str = "A", asker: Sandbox = DB) -> dns.message.Message:
    """The answer as the asker reads it."""
    response = answers.from_zone(_question(name, kind), asker, zone)
    assert response is not None
    read = dns.message.from_wire(answers.to_wire(response, most=65535))
    assert dns.message.from_wire(_wire(name, kind)).is_response(read)
    return read


def _texts(message: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for records in message.answer for record in records)


@pytest.mark.parametrize("name", ["web", "WEB", "www", "web.", "web.shop", "Web.Shop."])
def test_the_address_of_a_container_is_answered(zone: Zone, name: str) -> None:
    response = _answer(zone, name)
    assert _texts(response) == ["10.1.0.2"]
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.RA
    assert response.flags & dns.flags.RD
    assert not response.flags & dns.flags.TC


def test_the_answer_names_what_was_asked_for_as_it_was_written(zone: Zone) -> None:
    [records] = _answer(zone, "WeB.shop").answer
    assert records.name.to_text() == "WeB.shop."
    assert 0 < records.ttl <= 600


def test_an_ipv6_address_is_answered_where_one_is_asked_for(zone: Zone) -> None:
    assert _texts(_answer(zone, "web", "AAAA")) == ["fd00:1::2"]


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV", "NS", "HTTPS"])
def test_what_a_container_does_not_have_is_answered_with_nothing_as_its_name_is_there(zone: Zone, kind: str) -> None:
    response = _answer(zone, "db", kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert (response.answer, response.authority) == ([], [])


def test_all_addresses_of_a_name_are_answered(zone: Zone) -> None:
    assert _texts(_answer(zone, "many")) == sorted(MANY.members[0].addresses)


@pytest.mark.parametrize("name", ["far", "far.elsewhere", "nobody", "web.elsewhere", "example.org", "."])
def test_for_a_name_that_no_neighbour_has_somebody_else_is_to_be_asked(zone: Zone, name: str) -> None:
    for kind in ("A", "AAAA", "PTR"):
        assert answers.from_zone(_question(name, kind), DB, zone) is None


@pytest.mark.parametrize(
    ("address", "name"), [("10.1.0.2", "web.shop."), ("fd00:1::2", "web.shop."), ("10.1.0.3", "db.shop.")]
)
def test_the_name_of_an_address_is_answered(zone: Zone, address: str, name: str) -> None:
    response = _answer(zone, dns.reversename.from_address(address).to_text(), "PTR")
    assert _texts(response) == [name]
    assert response.rcode() == dns.rcode.NOERROR


def test_the_name_of_an_address_is_answered_in_capitals_too(zone: Zone) -> None:
    assert _texts(_answer(zone, "2.0.1.10.IN-ADDR.ARPA", "PTR")) == ["web.shop."]


@pytest.mark.parametrize("address", ["10.9.0.2", "192.0.2.1", "fd00:9::9"])
def test_for_an_address_that_no_neighbour_has_somebody_else_is_to_be_asked(zone: Zone, address: str) -> None:
    name = dns.reversename.from_address(address).to_text()
    assert answers.from_zone(_question(name, "PTR"), DB, zone) is None


@pytest.mark.parametrize(
    "name",
    [
        "in-addr.arpa",
        "ip6.arpa",
        "0.1.10.in-addr.arpa",
        "1.2.0.1.10.in-addr.arpa",
        "256.0.1.10.in-addr.arpa",
        "02.0.1.10.in-addr.arpa",
        "x.0.1.10.in-addr.arpa",
        "\\200.0.1.10.in-addr.arpa",
        "1.0.ip6.arpa",
        ".".join(["x"] * 32) + ".ip6.arpa",
        ".".join(["\\200"] * 32) + ".ip6.arpa",
    ],
)
def test_what_is_no_address_is_nobodys(zone: Zone, name: str) -> None:
    assert answers.from_zone(_question(name, "PTR"), DB, zone) is None


@pytest.mark.parametrize(
    ("name", "network"),
    [
        pytest.param("a" * 64, "shop", id="a label that is too long"),
        pytest.param("web", "n" * 64, id="a network that is too long"),
        pytest.param(".".join(["a" * 60] * 5), "shop", id="a name that is too long"),
        pytest.param("x..y", "shop", id="a label that is empty"),
        pytest.param(".x", "shop", id="a first label that is empty"),
        pytest.param("x y", "shop", id="two words"),
    ],
)
def test_for_an_address_of_a_name_that_dns_has_not_somebody_else_is_to_be_asked(
    zone: Zone, name: str, network: str
) -> None:
    odd = _sandbox("odd", [name], ["10.8.0.2", "fd00:8::2"], network)
    zone.put(odd)
    for address in ("10.8.0.2", "fd00:8::2"):
        assert zone.name_of(odd, address) == f"{name}.{network}"
        question = _question(dns.reversename.from_address(address).to_text(), "PTR")
        assert answers.from_zone(question, odd, zone) is None


def test_the_longest_label_is_answered(zone: Zone) -> None:
    longest = _sandbox("longest", ["a" * 63], ["10.8.0.3"])
    zone.put(longest)
    assert _texts(_answer(zone, "3.0.8.10.in-addr.arpa", "PTR", longest)) == [f"{'a' * 63}.shop."]


def test_a_question_is_read() -> None:
    question = _question("Web.Shop.", "AAAA")
    assert (question.name, question.kind) == ("Web.Shop", dns.rdatatype.AAAA)
    assert question.message.id == 4711


@pytest.mark.parametrize(("name", "has_dots"), [("web", False), ("web.", False), ("web.shop", True), ("a.b.c.", True)])
def test_a_name_with_a_domain_is_told_from_one_without(name: str, has_dots: bool) -> None:
    assert _question(name).has_dots is has_dots


def _with(data: bytes, at: int, value: int) -> bytes:
    """A question with another 16-bit field of its header."""
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(_wire("web")[:11], id="half a header"),
        pytest.param(_wire("web")[:-1], id="cut off"),
        pytest.param(_wire("web") + b"\0", id="something behind it"),
        pytest.param(_with(_wire("web"), 4, 0)[:12], id="no question"),
        pytest.param(_with(_wire("web"), 4, 2) + _wire("db")[12:], id="two questions"),
        pytest.param(_with(_wire("web"), 4, 2), id="fewer questions than it says"),
        pytest.param(_with(_wire("web"), 2, 0x8100), id="an answer"),
        pytest.param(_wire("web")[:12] + b"\xc0\x0c\0\1\0\1", id="a name that points at itself"),
        pytest.param(_wire("web")[:12] + b"\x3fweb\0\0\1\0\1", id="a label longer than the message"),
        pytest.param(_wire("web")[:12] + b"\x80web\0\0\1\0\1", id="a label of no known kind"),
    ],
)
def test_what_is_no_question_is_none(data: bytes) -> None:
    assert answers.read(data) is None


@given(st.binary(max_size=80), st.data())
@settings(deadline=None)
def test_whatever_bytes_come_they_are_a_question_that_can_be_answered_or_none(junk: bytes, data: st.DataObject) -> None:
    whole = _wire("2.0.1.10.in-addr.arpa", "PTR", payload=1232)
    at = data.draw(st.integers(min_value=0, max_value=len(whole)))
    zone = Zone()
    zone.put(WEB)
    for bytes_ in (junk, whole[:at] + junk, whole[:at] + junk + whole[at + len(junk) :]):
        question = answers.read(bytes_)
        if question is None:
            continue
        response = answers.from_zone(question, WEB, zone)
        told = [answers.failure(question, exists=True), answers.failure(question, exists=False)]
        if response is not None:
            told.append(answers.to_wire(response, most=answers.room(question)))
        assert {wire[:2] for wire in told} == {bytes_[:2]}


@pytest.mark.parametrize(("exists", "rcode"), [(False, dns.rcode.NXDOMAIN), (True, dns.rcode.SERVFAIL)])
def test_a_failure_tells_whether_the_name_may_be_there(exists: bool, rcode: dns.rcode.Rcode) -> None:
    response = dns.message.from_wire(answers.failure(_question("nobody"), exists=exists))
    assert response.rcode() == rcode
    assert dns.message.from_wire(_wire("nobody")).is_response(response)
    assert response.answer == []
    assert response.flags & dns.flags.RA


def test_an_answer_that_is_too_long_is_to_be_asked_for_by_tcp(zone: Zone) -> None:
    response = answers.from_zone(_question("many"), DB, zone)
    assert response is not None
    wire = answers.to_wire(response, most=512)
    assert len(wire) <= 512
    short = dns.message.from_wire(wire)
    assert short.flags & dns.flags.TC
    assert short.flags & dns.flags.RA
    assert short.rcode() == dns.rcode.NOERROR
    assert short.answer == []
    assert dns.message.from_wire(_wire("many")).is_response(short)


def test_an_answer_that_just_fits_is_told_whole(zone: Zone) -> None:
    response = answers.from_zone(_question("many"), DB, zone)
    assert response is not None
    length = len(answers.to_wire(response, most=65535))
    whole = dns.message.from_wire(answers.to_wire(response, most=length))
    assert _texts(whole) == sorted(MANY.members[0].addresses)
    assert not whole.flags & dns.flags.TC
    assert dns.message.from_wire(answers.to_wire(response, most=length - 1)).flags & dns.flags.TC


@pytest.mark.parametrize(("payload", "room"), [(None, 512), (0, 512), (511, 512), (1232, 1232), (65535, 65535)])
def test_an_asker_takes_what_it_says_and_never_less_than_the_least(payload: int | None, room: int) -> None:
    assert answers.room(_question("web", payload=payload)) == room


def test_an_answer_that_fits_the_askers_room_is_told_by_udp(zone: Zone) -> None:
    question = _question("many", payload=4096)
    response = answers.from_zone(question, DB, zone)
    assert response is not None
    told = dns.message.from_wire(answers.to_wire(response, most=answers.room(question)))
    assert len(_texts(told)) == 100
    assert not told.flags & dns.flags.TC
    assert told.edns == 0
