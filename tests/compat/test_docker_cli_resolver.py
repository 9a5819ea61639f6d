"""Names in networks of users' own: the resolver at 127.0.0.11, asked as programs in containers do."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from conftest import Daemon
from lamina.linux.namespaces import in_network_namespace
from named import Names, inside, inspected, reaches, resolver_pid
from waiting import wait_until


def ask(daemon: Daemon, container: str, name: str, kind: str = "A", *, by_tcp: bool = False) -> dns.message.Message:
    """The answer to one question from inside a container's network namespace."""
    pin = Path(inspected(daemon, "container", container)["NetworkSettings"]["SandboxKey"])
    question = dns.message.make_query(name, dns.rdatatype.from_text(kind))
    wire = question.to_wire()

    def exchange() -> bytes:
        family = socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, family) as one:
            one.settimeout(10)
            one.connect(("127.0.0.11", 53))
            if not by_tcp:
                one.send(wire)
                return one.recv(65535)
            one.sendall(struct.pack("!H", len(wire)) + wire)
            with one.makefile("rb") as file:
                (length,) = struct.unpack("!H", file.read(2))
                return file.read(length)

    answer = dns.message.from_wire(in_network_namespace(pin, exchange))
    assert question.is_response(answer)
    return answer


def addresses(answer: dns.message.Message) -> set[str]:
    return {record.address for rrset in answer.answer for record in rrset if hasattr(record, "address")}


def address_of(daemon: Daemon, container: str, network: str) -> str:
    return str(inspected(daemon, "container", container)["NetworkSettings"]["Networks"][network]["IPAddress"])


@pytest.mark.parametrize("by_tcp", [False, True], ids=["udp", "tcp"])
def test_a_container_is_found_by_all_its_names(daemon: Daemon, names: Names, by_tcp: bool) -> None:
    network = names.network("n")
    asker = names.sleeper("asker", "--network", network)
    web = names.sleeper("web", "--network", network, "--network-alias", "site", "--hostname", "inner")
    own = {address_of(daemon, web, network)}
    container_id = inspected(daemon, "container", web)["Id"]
    for name in (web, "site", "inner", container_id[:12], f"{web}.{network}", web.upper()):
        assert addresses(ask(daemon, asker, name, by_tcp=by_tcp)) == own, name
    answer = ask(daemon, asker, web, "AAAA", by_tcp=by_tcp)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    reverse = ".".join(reversed(own.pop().split("."))) + ".in-addr.arpa"
    assert f"{web}.{network}." in ask(daemon, asker, reverse, "PTR", by_tcp=by_tcp).answer[0].to_text()


def test_a_name_of_many_is_all_of_them_in_turn(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    several = [names.sleeper(f"w{number}", "--network", network, "--network-alias", "workers") for number in range(3)]
    all_of_them = {address_of(daemon, worker, network) for worker in several}
    answers = [ask(daemon, several[0], "workers") for _ in range(30)]
    assert all(addresses(answer) == all_of_them for answer in answers)
    assert {next(iter(answer.answer[0])).address for answer in answers} == all_of_them


def test_names_are_known_in_their_networks_alone(daemon: Daemon, names: Names) -> None:
    first, second = names.network("n1"), names.network("n2")
    one, two = names.sleeper("one", "--network", first), names.sleeper("two", "--network", second)
    plain = names.sleeper("plain")
    assert ask(daemon, one, two).rcode() == dns.rcode.NXDOMAIN
    assert ask(daemon, one, plain).rcode() == dns.rcode.NXDOMAIN
    daemon.docker_ok("network", "connect", "--alias", "second", second, one)
    assert addresses(ask(daemon, one, two)) == {address_of(daemon, two, second)}
    assert addresses(ask(daemon, two, "second")) == {address_of(daemon, one, second)}


def test_names_follow_what_happens_to_containers(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    asker = names.sleeper("asker", "--network", network)
    web = names.sleeper("web", "--network", network)
    daemon.docker_ok("rename", web, names("renamed"))
    wait_until(lambda: addresses(ask(daemon, asker, names("renamed"))), "the new name")
    assert ask(daemon, asker, web).rcode() == dns.rcode.NXDOMAIN
    daemon.docker_ok("stop", "-t", "0", names("renamed"))
    wait_until(
        lambda: ask(daemon, asker, names("renamed")).rcode() == dns.rcode.NXDOMAIN, "no name of one that stopped"
    )


def test_links_are_names_for_one_alone(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    web = names.sleeper("web", "--network", network)
    linked = names.sleeper("linked", "--network", network, "--link", f"{web}:nick")
    other = names.sleeper("other", "--network", network)
    assert addresses(ask(daemon, linked, "nick")) == {address_of(daemon, web, network)}
    assert ask(daemon, other, "nick").rcode() == dns.rcode.NXDOMAIN


def test_programs_find_names_by_the_files_that_containers_have(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    web = names.sleeper("web", "--network", network)
    asker = names.sleeper("asker", "--network", network, "--dns-search", "example.org", "--dns-opt", "timeout:1")
    lines = inside(daemon, asker, "cat /etc/resolv.conf").splitlines()
    assert lines == ["nameserver 127.0.0.11", "search example.org", "options timeout:1 ndots:0"]
    assert reaches(daemon, asker, web)
    plain = names.sleeper("plain")
    assert "127.0.0.11" not in inside(daemon, plain, "cat /etc/resolv.conf")
    daemon.docker_ok("network", "connect", network, plain)
    assert "nameserver 127.0.0.11" in inside(daemon, plain, "cat /etc/resolv.conf")
    assert reaches(daemon, plain, web)


def test_a_container_may_serve_port_53_itself(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    options = ["-d", "--name", names("server"), "--network", network]
    daemon.docker_ok("run", *options, "busybox", "nc", "-ll", "-p", "53", "-e", "echo", "mine")
    own = address_of(daemon, names("server"), network)
    command = ["exec", names("server"), "sh", "-c", f"nc -w 3 {own} 53 </dev/null"]
    wait_until(lambda: daemon.docker(*command).out.strip() == "mine", "an answer from the container's own port 53")
    assert addresses(ask(daemon, names("server"), names("server"))) == {own}


# ---- names that no container has


def test_a_server_in_the_network_is_asked_for_other_names(daemon: Daemon, names: Names) -> None:
    """``--dns`` names one that only the container's own network leads to."""
    network = names.network("n", "--subnet", "10.233.20.0/24")
    asker = names.sleeper("asker", "--network", network, "--dns", "10.233.20.99")
    server = names.sleeper("server", "--network", network, "--ip", "10.233.20.99")
    pin = Path(inspected(daemon, "container", server)["NetworkSettings"]["SandboxKey"])
    with in_network_namespace(pin, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
        one.bind(("10.233.20.99", 53))
        one.settimeout(10)

        def answer() -> None:
            data, client = one.recvfrom(65535)
            response = dns.message.make_response(question := dns.message.from_wire(data))
            response.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", "192.0.2.88"))
            one.sendto(response.to_wire(), client)

        thread = threading.Thread(target=answer)
        thread.start()
        assert addresses(ask(daemon, asker, "elsewhere.example")) == {"192.0.2.88"}
        thread.join()


def test_fifty_clients_at_once(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    web = names.sleeper("web", "--network", network)
    asker = names.sleeper("asker", "--network", network)
    own = {address_of(daemon, web, network)}
    pin = Path(inspected(daemon, "container", asker)["NetworkSettings"]["SandboxKey"])
    wire = dns.message.make_query(web, "A").to_wire()

    def client(number: int) -> int:
        def talk() -> int:
            right = 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.settimeout(20)
                one.connect(("127.0.0.11", 53))
                for _ in range(20):
                    one.send(wire)
                    right += addresses(dns.message.from_wire(one.recv(65535))) == own
            return right

        return in_network_namespace(pin, talk)

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(client, range(50))) == [20] * 50


# ---- the resolver's own life


def test_the_resolver_answers_while_the_daemon_is_dead(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    network = names.network("n")
    web, asker = (names.sleeper(word, "--network", network) for word in ("web", "asker"))
    own = {address_of(own_daemon, web, network)}
    pin = Path(inspected(own_daemon, "container", asker)["NetworkSettings"]["SandboxKey"])
    before = resolver_pid(own_daemon)
    own_daemon.kill()
    wire = dns.message.make_query(web, "A").to_wire()

    def talk() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(10)
            one.sendto(wire, ("127.0.0.11", 53))
            return one.recv(65535)

    assert addresses(dns.message.from_wire(in_network_namespace(pin, talk))) == own
    own_daemon.start()
    assert resolver_pid(own_daemon) == before
    late = names.sleeper("late", "--network", network)
    assert addresses(ask(own_daemon, asker, late)) == {address_of(own_daemon, late, network)}
    names.remove()


def test_a_resolver_that_is_killed_comes_back(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    network = names.network("n")
    web, asker = (names.sleeper(word, "--network", network) for word in ("web", "asker"))
    before = resolver_pid(own_daemon)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: resolver_pid(own_daemon) not in (0, before), "another resolver")

    def answered() -> bool:
        try:
            return addresses(ask(own_daemon, asker, web)) == {address_of(own_daemon, web, network)}
        except OSError:
            return False

    wait_until(answered, "an answer")
    names.remove()


def test_the_resolver_goes_with_the_last_daemon_that_needs_it(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    names.sleeper("c", "--network", names.network("n"))
    assert resolver_pid(own_daemon)
    names.remove()
    own_daemon.stop()
    wait_until(lambda: not resolver_pid(own_daemon), "no resolver")
