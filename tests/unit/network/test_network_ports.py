"""Ports of the host's: what is asked for, and that each is held by one container at a time, by a socket."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import Conflict, InvalidArgument
from lamina.network import ports
from lamina.network.errors import InvalidPort, PortAllocated
from lamina.network.ports import Holding, HostPorts, PortBinding, PortRequest, read_ports, read_requests

_HOST = "127.0.0.1"
_OTHER = "127.0.0.2"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_KERNELS = ["tcp", "udp"]
_ENDLESS = [
    pytest.param("9" * 5000, id="5000 digits"),
    pytest.param("0" * 5000, id="5000 zeros"),
    pytest.param(f"1-{'9' * 5000}", id="to 5000 digits"),
    pytest.param(f"{'9' * 5000}-80", id="from 5000 digits"),
]
"""More digits than Python makes a number of."""


@dataclass
class _Place:
    """Where a port is wanted, as the API says it."""

    host_ip: str = ""
    host_port: str = ""


def _requests(
    bindings: Mapping[str, Sequence[_Place] | None], *exposed: str, publish_all: bool = False
) -> list[PortRequest]:
    return read_requests(exposed, bindings, publish_all=publish_all)


def _program(port: int, protocol: str = "tcp", address: str = _HOST) -> socket.socket:
    """What another program would do with a port. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, _KINDS[protocol])
    try:
        if protocol == "tcp":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        if protocol == "tcp":
            one.listen()
    except OSError:
        one.close()
        raise
    return one


def _is_free(port: int, protocol: str = "tcp", address: str = _HOST) -> bool:
    try:
        _program(port, protocol, address).close()
    except OSError as error:
        assert error.errno == errno.EADDRINUSE
        return False
    return True


def _has_ipv6() -> bool:
    try:
        _program(0, address="::1").close()
    except OSError:
        return False
    return True


def _needs_ipv6() -> None:
    if not _has_ipv6():
        pytest.skip("this host has no IPv6 on its loopback")


def _free_range(count: int) -> int:
    """The first of so many ports in a row that nobody has on the addresses used here."""
    addresses = [_HOST, _OTHER, "::1"] if _has_ipv6() else [_HOST, _OTHER]
    for _ in range(100):
        with _program(0) as one:
            first: int = one.getsockname()[1]
        places = [(p, kind, a) for p in range(first, first + count) for kind in _KERNELS for a in addresses]
        if first + count <= 65536 and all(_is_free(*place) for place in places):
            return first
    pytest.fail(f"there are no {count} free ports in a row")


@pytest.fixture
def port() -> int:
    return _free_range(1)


@pytest.fixture
def host() -> Iterator[Host]:
    with ExitStack() as stack:
        yield Host(stack)


class Host:
    """The ports of a host, whose sockets are closed when the test ends."""

    def __init__(self, stack: ExitStack) -> None:
        self.ports = HostPorts()
        self._stack = stack

    def bind(self, holder: str, *requests: PortRequest, default_ip: str = _HOST) -> Holding:
        holding = self.ports.bind(holder, requests, default_ip=default_ip)
        self._stack.callback(holding.let_go)
        return holding

    def program(self, port: int, protocol: str = "tcp", address: str = _HOST) -> None:
        self._stack.enter_context(_program(port, protocol, address))

    def refusal(self, holder: str, *requests: PortRequest, default_ip: str = _HOST) -> str:
        with pytest.raises(PortAllocated) as caught:
            self.bind(holder, *requests, default_ip=default_ip)
        assert isinstance(caught.value, Conflict)
        return str(caught.value)


def _at(port: int, address: str = "", *, protocol: str = "tcp", last: int | None = None) -> PortRequest:
    return PortRequest(protocol, 80, address, port, port if last is None else last)


@pytest.mark.parametrize(
    ("text", "protocol", "found"),
    [
        ("80", "tcp", [80]),
        ("80/", "tcp", [80]),
        ("80/tcp", "tcp", [80]),
        ("53/udp", "udp", [53]),
        ("53/UDP", "udp", [53]),
        ("9/sctp", "sctp", [9]),
        ("8000-8002", "tcp", [8000, 8001, 8002]),
        ("8000-8001/udp", "udp", [8000, 8001]),
        ("80-80", "tcp", [80]),
        ("1", "tcp", [1]),
        ("65535", "tcp", [65535]),
    ],
)
def test_ports_are_read(text: str, protocol: str, found: list[int]) -> None:
    read_protocol, read_range = read_ports(text)
    assert (read_protocol, list(read_range)) == (protocol, found)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/tcp",
            "0",
            "65536",
            "-1",
            "80-",
            "-80",
            "81-80",
            "1-2-3",
            "0-5",
            "http",
            "80 ",
            "8e1",
            "²",
            "８０",
            "80:80",
        ),
        *_ENDLESS,
    ],
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidPort) as caught:
        read_ports(text)
    assert str(caught.value) == f"invalid port specification: {text!r}"
    assert isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize(("text", "protocol"), [("80/icmp", "icmp"), ("80/tcp/udp", "tcp/udp"), ("80/ tcp", " tcp")])
def test_what_is_no_protocol_is_refused(text: str, protocol: str) -> None:
    with pytest.raises(InvalidPort) as caught:
        read_ports(text)
    assert str(caught.value) == f"invalid proto: {protocol}"


@given(st.text(alphabet="0123456789-/tcpud ²８", max_size=12))
@settings(deadline=None)
def test_any_text_is_ports_or_refused(text: str) -> None:
    try:
        protocol, found = read_ports(text)
    except InvalidPort:
        return
    assert protocol in ("tcp", "udp")
    assert found and 0 < found[0] <= found[-1] <= 65535


@pytest.mark.parametrize(
    ("place", "request_"),
    [
        (_Place(), PortRequest("tcp", 80)),
        (_Place(host_port="0"), PortRequest("tcp", 80)),
        (_Place(host_port="8080"), PortRequest("tcp", 80, "", 8080, 8080)),
        (_Place("127.0.0.1", "8080"), PortRequest("tcp", 80, "127.0.0.1", 8080, 8080)),
        (_Place("::1", ""), PortRequest("tcp", 80, "::1")),
        (_Place("", "8080-8090"), PortRequest("tcp", 80, "", 8080, 8090)),
    ],
)
def test_a_port_is_wanted_where_the_binding_says(place: _Place, request_: PortRequest) -> None:
    assert _requests({"80/tcp": [place]}) == [request_]


def test_a_port_may_be_wanted_at_several_places() -> None:
    assert _requests({"53/udp": [_Place("127.0.0.1", "53"), _Place("::1", "5353")], "80": [_Place()]}) == [
        PortRequest("udp", 53, "127.0.0.1", 53, 53),
        PortRequest("udp", 53, "::1", 5353, 5353),
        PortRequest("tcp", 80),
    ]


def test_a_range_leads_to_a_range_port_by_port() -> None:
    assert _requests({"80-82/tcp": [_Place("", "8080-8082")]}) == [
        PortRequest("tcp", 80, "", 8080, 8080),
        PortRequest("tcp", 81, "", 8081, 8081),
        PortRequest("tcp", 82, "", 8082, 8082),
    ]


def test_each_port_of_a_range_without_a_wish_has_any_port() -> None:
    assert _requests({"80-81/tcp": [_Place("127.0.0.1", "")]}) == [
        PortRequest("tcp", 80, "127.0.0.1"),
        PortRequest("tcp", 81, "127.0.0.1"),
    ]


@pytest.mark.parametrize("host_port", ["8080", "8080-8083", "8080-8081"])
def test_ranges_of_different_lengths_are_refused(host_port: str) -> None:
    with pytest.raises(InvalidPort) as caught:
        _requests({"80-82/tcp": [_Place("", host_port)]})
    assert str(caught.value) == f"invalid ranges specified for container and host Ports: 80-82/tcp and {host_port}"


@pytest.mark.parametrize(
    "host_port",
    ["65536", "-1", "x", "80-", "-80", "90-80", "0-80", "1-2-3", " 80", "²", *_ENDLESS],
)
def test_a_port_of_the_hosts_that_is_none_is_refused(host_port: str) -> None:
    with pytest.raises(InvalidPort) as caught:
        _requests({"80/tcp": [_Place("", host_port)]})
    assert str(caught.value) == f"invalid port specification: {host_port!r}"


@pytest.mark.parametrize(
    "host_ip", ["here", "127.0.0.1:80", "127.1", "[::1]", "127.0.0.1/8", "fe80::1%eth0", "fe80::1%x } ; flush ruleset"]
)
def test_an_address_of_the_hosts_that_is_none_is_refused(host_ip: str) -> None:
    with pytest.raises(InvalidPort) as caught:
        _requests({"80/tcp": [_Place(host_ip, "80")]})
    assert str(caught.value) == f"invalid IP address: {host_ip}"


@pytest.mark.parametrize("text", ["0/tcp", "80/icmp"])
def test_a_container_port_that_is_none_is_refused_wherever_it_is_named(text: str) -> None:
    with pytest.raises(InvalidPort):
        _requests({text: [_Place()]})
    with pytest.raises(InvalidPort):
        _requests({}, text, publish_all=True)


@pytest.mark.parametrize("places", [[], None])
def test_a_port_that_is_wanted_nowhere_is_not_published(places: list[_Place] | None) -> None:
    assert _requests({"80/tcp": places}) == []


def test_an_exposed_port_is_not_published_unless_all_are() -> None:
    assert _requests({}, "80/tcp", "53/udp") == []
    assert _requests({}, "80/tcp", "53/udp", publish_all=True) == [PortRequest("tcp", 80), PortRequest("udp", 53)]


def test_each_port_of_an_exposed_range_is_published() -> None:
    assert _requests({}, "80-82", publish_all=True) == [PortRequest("tcp", port) for port in (80, 81, 82)]


def test_an_exposed_port_that_has_a_place_gets_no_second_one() -> None:
    found = _requests({"80/tcp": [_Place("", "8080")]}, "80/tcp", "80/udp", "79-81/tcp", publish_all=True)
    assert found == [
        PortRequest("tcp", 80, "", 8080, 8080),
        PortRequest("udp", 80),
        PortRequest("tcp", 79),
        PortRequest("tcp", 81),
    ]


def test_a_port_that_is_exposed_twice_is_published_once() -> None:
    found = _requests({}, "80/tcp", "80", "79-81/TCP", "80/udp", "80/tcp", publish_all=True)
    assert found == [
        PortRequest("tcp", 80),
        PortRequest("tcp", 79),
        PortRequest("tcp", 81),
        PortRequest("udp", 80),
    ]


def test_an_exposed_port_without_a_place_is_published_with_all() -> None:
    assert _requests({"80/tcp": None}, "80/tcp", publish_all=True) == [PortRequest("tcp", 80)]


def test_a_port_of_tcp_is_listened_on(host: Host, port: int) -> None:
    holding = host.bind("a", _at(port))
    assert holding.bindings == [PortBinding("tcp", 80, _HOST, port)]
    [(one, binding)] = holding.sockets
    assert binding == holding.bindings[0]
    with socket.create_connection((_HOST, port)) as client:
        server, peer = one.accept()
        with server:
            assert peer == client.getsockname()


def test_a_port_of_udp_takes_what_is_sent(host: Host, port: int) -> None:
    [(one, _)] = host.bind("a", _at(port, protocol="udp")).sockets
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"question", (_HOST, port))
    one.settimeout(30)
    assert one.recv(100) == b"question"


@pytest.mark.parametrize("protocol", _KERNELS)
def test_no_other_program_gets_a_port_that_is_held(host: Host, port: int, protocol: str) -> None:
    holding = host.bind("a", _at(port, protocol=protocol))
    assert not _is_free(port, protocol)
    holding.let_go()
    assert holding.sockets == []
    assert _is_free(port, protocol)


def test_the_kernels_own_port_of_sctp_has_no_socket_and_is_held_all_the_same(host: Host, port: int) -> None:
    holding = host.bind("a", _at(port, protocol="sctp"))
    assert holding.sockets == []
    assert holding.bindings == [PortBinding("sctp", 80, _HOST, port)]
    assert host.refusal("b", _at(port, protocol="sctp")) == f"Bind for {_HOST}:{port} failed: port is already allocated"


@pytest.mark.parametrize("protocol", _KERNELS)
def test_a_port_that_another_container_has_is_refused(host: Host, port: int, protocol: str) -> None:
    host.bind("a", _at(port, protocol=protocol))
    message = host.refusal("b", _at(port, protocol=protocol))
    assert message == f"Bind for {_HOST}:{port} failed: port is already allocated"


def test_a_container_cannot_have_a_port_twice(host: Host, port: int) -> None:
    message = host.refusal("a", _at(port), _at(port))
    assert message == f"Bind for {_HOST}:{port} failed: port is already allocated"
    assert _is_free(port)


@pytest.mark.parametrize("protocol", _KERNELS)
def test_a_port_that_another_program_has_is_refused(host: Host, port: int, protocol: str) -> None:
    host.program(port, protocol)
    message = host.refusal("a", _at(port, protocol=protocol))
    assert message == f"Bind for {_HOST}:{port} failed: address already in use"


def test_an_address_that_the_host_does_not_have_is_refused(host: Host) -> None:
    message = host.refusal("a", _at(8080, "192.0.2.1"))
    assert message == "Bind for 192.0.2.1:8080 failed: cannot assign requested address"


@pytest.mark.parametrize(("first", "last"), [(8080, 8090), (0, 0)])
def test_on_an_address_that_the_host_does_not_have_no_other_port_is_tried(
    host: Host, monkeypatch: pytest.MonkeyPatch, first: int, last: int
) -> None:
    tried: list[int] = []
    opened = ports._open

    def note(protocol: str, address: str, port: int) -> list[socket.socket]:
        tried.append(port)
        return opened(protocol, address, port)

    monkeypatch.setattr(ports, "_open", note)
    with pytest.raises(PortAllocated) as caught:
        host.bind("a", PortRequest("tcp", 80, "192.0.2.1", first, last))
    assert not caught.value.is_taken
    assert str(caught.value) == f"Bind for 192.0.2.1:{tried[0]} failed: cannot assign requested address"
    assert len(tried) == 1


def test_an_ipv6_address_is_told_in_brackets(host: Host, port: int) -> None:
    host.ports.take_over("a", [PortBinding("tcp", 80, "::1", port)])
    assert host.refusal("b", _at(port, "::1")) == f"Bind for [::1]:{port} failed: port is already allocated"


@pytest.mark.parametrize(("held", "wanted"), [("0.0.0.0", _HOST), (_HOST, "0.0.0.0"), ("::", "::1"), ("::1", "::")])
def test_all_addresses_and_one_of_them_are_in_each_others_way(host: Host, port: int, held: str, wanted: str) -> None:
    host.ports.take_over("a", [PortBinding("tcp", 80, held, port)])
    assert "port is already allocated" in host.refusal("b", _at(port, wanted))


def test_a_port_of_different_addresses_can_be_held_by_different_containers(host: Host, port: int) -> None:
    host.bind("a", _at(port, _HOST))
    assert host.bind("b", _at(port, _OTHER)).bindings == [PortBinding("tcp", 80, _OTHER, port)]


def test_tcp_and_udp_are_not_in_each_others_way(host: Host, port: int) -> None:
    host.bind("a", _at(port))
    assert host.bind("b", _at(port, protocol="udp")).bindings == [PortBinding("udp", 80, _HOST, port)]


def test_ipv4_and_ipv6_are_not_in_each_others_way(host: Host, port: int) -> None:
    _needs_ipv6()
    host.ports.take_over("all of IPv4", [PortBinding("tcp", 80, "0.0.0.0", port)])
    assert host.bind("b", _at(port, "::1")).bindings == [PortBinding("tcp", 80, "::1", port)]
    assert "port is already allocated" in host.refusal("c", _at(port, "::1"))


def test_the_address_is_kept_in_its_shortest_form(host: Host, port: int) -> None:
    _needs_ipv6()
    assert host.bind("a", _at(port, "0:0::0001")).bindings[0].host_ip == "::1"
    host.refusal("b", _at(port, "::1"))


def test_who_names_no_address_has_the_default_one(host: Host, port: int) -> None:
    assert host.bind("a", _at(port), default_ip=_OTHER).bindings[0].host_ip == _OTHER
    assert host.bind("b", _at(port, _HOST), default_ip=_OTHER).bindings[0].host_ip == _HOST


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of which all addresses are the loopback's."""
    monkeypatch.setattr(ports, "_WILDCARDS", {4: _HOST, 6: "::1"})


@pytest.mark.usefixtures("small_world")
def test_without_any_address_a_port_is_held_in_both_versions(host: Host, port: int) -> None:
    _needs_ipv6()
    holding = host.bind("a", _at(port), default_ip="")
    assert holding.bindings == [PortBinding("tcp", 80, _HOST, port), PortBinding("tcp", 80, "::1", port)]
    assert [binding for _, binding in holding.sockets] == holding.bindings
    assert [one.getsockname()[0] for one, _ in holding.sockets] == [_HOST, "::1"]
    assert holding.sockets[1][0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


@pytest.mark.usefixtures("small_world")
def test_all_addresses_of_one_version_are_not_in_the_way_of_the_other(host: Host, port: int) -> None:
    _needs_ipv6()
    host.ports.take_over("a", [PortBinding("tcp", 80, _OTHER, port)])
    assert host.bind("b", _at(port, "::1")).bindings == [PortBinding("tcp", 80, "::1", port)]
    assert "port is already allocated" in host.refusal("c", _at(port, _HOST))


@pytest.mark.usefixtures("small_world")
def test_on_a_host_without_ipv6_a_port_is_held_in_ipv4(host: Host, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_has_ipv6", lambda: False)
    assert host.bind("a", _at(port), default_ip="").bindings == [PortBinding("tcp", 80, _HOST, port)]


@pytest.mark.usefixtures("small_world")
def test_a_port_that_is_taken_in_one_version_is_held_in_neither(host: Host, port: int) -> None:
    _needs_ipv6()
    host.program(port, address="::1")
    message = host.refusal("a", _at(port), default_ip="")
    assert message == f"Bind for [::1]:{port} failed: address already in use"
    assert _is_free(port)
    host.bind("b", _at(port))


@pytest.mark.parametrize("is_range", [False, True])
@pytest.mark.parametrize("protocol", _KERNELS)
def test_where_one_address_is_not_the_hosts_the_other_is_let_go_at_once(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch, protocol: str, is_range: bool
) -> None:
    monkeypatch.setattr(ports, "_WILDCARDS", {4: _HOST, 6: "2001:db8::1"})
    monkeypatch.setattr(ports, "_has_ipv6", lambda: True)
    wish = _at(port, protocol=protocol, last=min(port + 9, 65535) if is_range else port)
    with pytest.raises(PortAllocated) as caught:
        host.bind("a", wish, default_ip="")
    assert not caught.value.is_taken
    assert (caught.value.address, caught.value.port) == ("2001:db8::1", port)
    assert _is_free(port, protocol)  # while the error is still there, which would keep open what it was raised beside
    host.bind("b", _at(port, _HOST, protocol=protocol))


@pytest.mark.usefixtures("small_world")
def test_what_a_port_was_held_by_is_closed_when_something_else_goes_wrong(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_has_ipv6", lambda: True)
    opened = ports._open

    def fail(protocol: str, address: str, port: int) -> list[socket.socket]:
        if address != _HOST:
            raise KeyboardInterrupt
        return opened(protocol, address, port)

    monkeypatch.setattr(ports, "_open", fail)
    with pytest.raises(KeyboardInterrupt) as caught:
        host.bind("a", _at(port), default_ip="")
    assert caught.tb is not None  # which would keep open what it was raised beside
    assert _is_free(port)


@pytest.mark.usefixtures("small_world")
def test_of_a_range_the_first_port_that_is_free_in_both_versions_is_taken(host: Host) -> None:
    _needs_ipv6()
    first = _free_range(2)
    host.program(first, address="::1")
    holding = host.bind("a", _at(first, last=first + 1), default_ip="")
    assert {binding.host_port for binding in holding.bindings} == {first + 1}
    assert _is_free(first)


def test_of_a_range_the_first_port_that_nobody_has_is_taken(host: Host) -> None:
    first = _free_range(3)
    wish = _at(first, last=first + 2)
    assert host.bind("a", wish).bindings[0].host_port == first
    host.program(first + 1)
    assert host.bind("b", wish).bindings[0].host_port == first + 2


def test_of_a_range_that_is_taken_the_first_port_is_told(host: Host) -> None:
    first = _free_range(2)
    host.program(first)
    host.bind("a", _at(first + 1))
    message = host.refusal("b", _at(first, last=first + 1))
    assert message == f"Bind for {_HOST}:{first} failed: address already in use"


def _local_range(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text)
    monkeypatch.setattr(ports, "_LOCAL_RANGE", path)


def test_any_port_is_one_of_the_hosts_local_range(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = _free_range(3)
    _local_range(monkeypatch, tmp_path / "range", f"{first}\t{first + 2}\n")
    given_ports = {host.bind(name, PortRequest("tcp", 80)).bindings[0].host_port for name in "abc"}
    assert given_ports == {first, first + 1, first + 2}
    assert "port is already allocated" in host.refusal("d", PortRequest("tcp", 80))


def test_a_port_just_given_back_is_not_the_next_one_given(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = _free_range(3)
    _local_range(monkeypatch, tmp_path / "range", f"{first}\t{first + 2}\n")
    before = host.bind("a", PortRequest("tcp", 80))
    before.let_go()
    host.ports.release("a", before.bindings)
    assert host.bind("b", PortRequest("tcp", 80)).bindings[0].host_port != before.bindings[0].host_port


@pytest.mark.parametrize("text", ["", "many", "1 2 3"])
def test_without_a_readable_local_range_linux_usual_one_is_taken(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    _local_range(monkeypatch, tmp_path / "range", text)
    assert 32768 <= host.bind("a", PortRequest("tcp", 80)).bindings[0].host_port <= 60999


def test_several_ports_are_held_in_the_order_asked_for(host: Host) -> None:
    first = _free_range(2)
    requests = [PortRequest("tcp", 80, "", first, first), PortRequest("udp", 53, "", first + 1, first + 1)]
    assert host.bind("a", *requests).bindings == [
        PortBinding("tcp", 80, _HOST, first),
        PortBinding("udp", 53, _HOST, first + 1),
    ]


def test_after_a_refusal_nothing_is_held(host: Host) -> None:
    first = _free_range(3)
    host.program(first + 2)
    host.refusal("a", _at(first), _at(first + 1, protocol="udp"), _at(first + 2))
    assert _is_free(first)
    assert _is_free(first + 1, "udp")
    host.bind("b", _at(first), _at(first + 1, protocol="udp"))


def test_after_a_refusal_what_was_held_before_is_held(host: Host) -> None:
    first = _free_range(2)
    host.bind("a", _at(first))
    host.refusal("a", _at(first + 1), _at(first))
    assert not _is_free(first)
    host.refusal("b", _at(first))


def test_a_port_that_was_given_back_can_be_had_again(host: Host, port: int) -> None:
    holding = host.bind("a", _at(port))
    holding.let_go()
    host.refusal("b", _at(port))
    host.ports.release("a", holding.bindings)
    assert host.bind("b", _at(port)).bindings == holding.bindings


def test_giving_back_what_is_somebody_elses_frees_nothing(host: Host, port: int) -> None:
    holding = host.bind("a", _at(port))
    host.ports.release("b", holding.bindings)
    assert "port is already allocated" in host.refusal("c", _at(port))


def test_giving_back_twice_frees_nothing_of_the_next_holder(host: Host, port: int) -> None:
    before = host.bind("a", _at(port))
    before.let_go()
    host.ports.release("a", before.bindings)
    host.bind("b", _at(port))
    host.ports.release("a", before.bindings)
    assert "port is already allocated" in host.refusal("c", _at(port))


def test_giving_back_one_address_keeps_the_other(host: Host, port: int) -> None:
    host.bind("a", _at(port, _OTHER))
    here = host.bind("a", _at(port, _HOST))
    here.let_go()
    host.ports.release("a", here.bindings)
    host.refusal("b", _at(port, _OTHER))
    host.bind("b", _at(port, _HOST))


def test_the_ports_of_a_running_container_are_its_own_before_they_are_bound(host: Host, port: int) -> None:
    binding = PortBinding("tcp", 80, _HOST, port)
    host.ports.take_over("a", [binding])
    assert _is_free(port)
    assert "port is already allocated" in host.refusal("b", _at(port))
    host.ports.release("a", [binding])
    host.bind("b", _at(port))


def test_ports_can_be_bound_again_one_by_one(port: int) -> None:
    holding = Holding()
    binding = PortBinding("tcp", 80, _HOST, port)
    try:
        holding.bind(binding)
        assert [b for _, b in holding.sockets] == [binding]
        with pytest.raises(PortAllocated, match="address already in use"):
            holding.bind(binding)
        assert len(holding.sockets) == 1
    finally:
        holding.let_go()
    assert _is_free(port)
