"""The files by which a container knows names, as docker writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.errors import InvalidArgument
from lamina.network import names


@pytest.fixture
def host_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of the host's /etc and /run/systemd/resolve; its files do not exist yet."""
    monkeypatch.setattr(names, "_RESOLV", tmp_path / "resolv.conf")
    monkeypatch.setattr(names, "_RESOLVED_UPSTREAM", tmp_path / "upstream.conf")
    monkeypatch.setattr(names, "_HOSTS", tmp_path / "hosts")
    return tmp_path


def _hosts(*extra: str, ip: str = "10.1.2.3", domainname: str = "", own_network: bool = True) -> list[str]:
    text = names.hosts(
        addresses=[ip] if ip else [],
        hostname="web",
        domainname=domainname,
        extra=extra,
        gateway="10.1.2.1",
        own_network=own_network,
    )
    assert text.endswith("\n")
    return text.splitlines()


def _resolv(*, servers: tuple[str, ...] = (), search: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> list[str]:
    return names.resolv_conf(servers=servers, search=search, options=options).splitlines()


def test_hosts_names_localhost_ip6_and_the_container() -> None:
    assert _hosts() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        "10.1.2.3\tweb",
    ]


def test_the_full_name_with_the_domain_comes_before_the_short_one() -> None:
    assert _hosts(domainname="example.org")[-1] == "10.1.2.3\tweb.example.org web"


def test_without_an_address_the_container_has_no_line() -> None:
    assert not [line for line in _hosts(ip="") if "web" in line]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("db:10.9.9.9", "10.9.9.9\tdb"),
        ("db=10.9.9.9", "10.9.9.9\tdb"),
        ("db:fd00::5", "fd00::5\tdb"),
        ("db=fd00::5", "fd00::5\tdb"),
        ("up:host-gateway", "10.1.2.1\tup"),
    ],
)
def test_an_extra_host_has_its_line(extra: str, line: str) -> None:
    assert line in _hosts(extra)


@pytest.mark.parametrize("extra", ["", "db", "db:", ":10.9.9.9", "=10.9.9.9"])
def test_an_extra_host_that_is_no_pair_is_refused(extra: str) -> None:
    with pytest.raises(names.InvalidHost) as caught:
        _hosts(extra)
    assert str(caught.value) == f'bad format for add-host: "{extra}"'
    assert isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize("extra", ["db:nowhere", "db:1.2.3", "db:1.2.3.4\n6.6.6.6 bank", "d\nb:1.2.3.4", "a b:1.2.3.4"])
def test_an_extra_host_cannot_write_anything_but_one_name_and_one_address(extra: str) -> None:
    with pytest.raises(names.InvalidHost):
        _hosts(extra)


def test_on_the_hosts_network_hosts_is_the_hosts_own_with_the_extra_names(host_files: Path) -> None:
    (host_files / "hosts").write_text("127.0.0.1 localhost\n192.0.2.7 nas # of the house\n")
    lines = _hosts("db:10.9.9.9", ip="", own_network=False)
    assert lines == ["127.0.0.1 localhost", "192.0.2.7 nas # of the house", "10.9.9.9\tdb"]


def test_on_the_hosts_network_without_a_hosts_file_localhost_is_known_all_the_same(host_files: Path) -> None:
    assert "127.0.0.1\tlocalhost" in _hosts(ip="", own_network=False)


def test_resolv_conf_is_the_hosts(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text(
        "# mine\nnameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2\n"
    )
    assert _resolv() == ["nameserver 192.0.2.53", "search a.example b.example", "options ndots:2"]


def test_words_of_resolv_conf_may_be_separated_by_tabs(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text("nameserver\t192.0.2.53\nsearch\ta.example\n")
    assert _resolv() == ["nameserver 192.0.2.53", "search a.example"]


def test_servers_on_the_hosts_loopback_are_left_out(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text("nameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver ::1\n")
    assert _resolv() == ["nameserver 192.0.2.53"]


@pytest.mark.parametrize("text", ["", "nameserver 127.0.0.1\n", None])
def test_without_a_usable_server_public_ones_are_taken(host_files: Path, text: str | None) -> None:
    if text is not None:
        (host_files / "resolv.conf").write_text(text)
    assert _resolv() == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]


def test_systemds_stub_is_replaced_by_the_servers_behind_it(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text("nameserver 127.0.0.53\noptions edns0\n")
    (host_files / "upstream.conf").write_text("nameserver 192.0.2.1\nsearch lan\n")
    assert _resolv() == ["nameserver 192.0.2.1", "search lan"]


def test_on_the_hosts_network_the_hosts_loopback_servers_stay(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (host_files / "upstream.conf").write_text("nameserver 192.0.2.1\n")
    text = names.resolv_conf(servers=(), search=(), options=(), own_network=False)
    assert text == "nameserver 127.0.0.53\n"


def test_what_is_asked_for_takes_the_place_of_the_hosts_lines(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch a.example\noptions ndots:2\n")
    lines = _resolv(servers=("127.0.0.9", "192.0.2.9"), search=("b.example",), options=("timeout:1", "rotate"))
    assert lines == [
        "nameserver 127.0.0.9",
        "nameserver 192.0.2.9",
        "search b.example",
        "options timeout:1 rotate",
    ]


def test_a_search_of_one_dot_means_none(host_files: Path) -> None:
    (host_files / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch a.example\n")
    assert _resolv(search=(".",)) == ["nameserver 192.0.2.53"]
