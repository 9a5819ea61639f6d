"""Published ports, with real traffic: from the host by each of its addresses, from outside, from containers, and while no daemon runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from conftest import Daemon
from lamina.linux import namespaces
from named import Names, inspected
from waiting import wait_until

SERVE = "nc -ll -p 80 -e echo answer"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET6, kind) as one:
        one.bind(("::", 0))
        return int(one.getsockname()[1])


def heard(address: str, port: int) -> str:
    """What somebody at an address says, nothing if nobody is there."""
    with suppress(OSError), closing(socket.create_connection((address, port), 3)) as one:
        one.settimeout(3)
        return one.recv(100).decode().strip()
    return ""


def echoed(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(1)
        one.connect((address, port))
        with suppress(OSError):
            one.send(b"hello")
            return one.recv(100).decode()
    return ""


def hosts_address() -> str:
    routes = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout
    found = [a["local"] for link in json.loads(routes) for a in link["addr_info"] if a["scope"] == "global"]
    return str(found[0])


def asks(daemon: Daemon, container: str, address: str, port: int) -> str:
    return daemon.docker("exec", container, "sh", "-c", f"nc -w 3 {address} {port} </dev/null").out.strip()


def serving(names: Names, word: str, *options: str) -> str:
    names.daemon.docker_ok("run", "-d", "--name", names(word), *options, "busybox", "sh", "-c", SERVE)
    return names(word)


@contextmanager
def serving_inside(daemon: Daemon, container: str, kind: int, family: int, port: int) -> Iterator[None]:
    """A server of the test's own in a container's network: it echoes datagrams, and says *answer* to who connects."""
    pin = Path(inspected(daemon, "container", container)["NetworkSettings"]["SandboxKey"])
    server = namespaces.in_network_namespace(pin, lambda: socket.socket(family, kind))
    with server:
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        thread = threading.Thread(target=_serve, args=(server, kind))
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR) if kind == socket.SOCK_STREAM else server.sendto(b"", server.getsockname())
        thread.join()


def _serve(server: socket.socket, kind: int) -> None:
    with suppress(OSError):
        while True:
            if kind == socket.SOCK_DGRAM:
                data, client = server.recvfrom(100)
                if not data:
                    return
                server.sendto(data, client)
            else:
                with server.accept()[0] as one:
                    one.sendall(b"answer")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Another host at 198.51.100.2, that reaches this one at 198.51.100.1."""
    pin, end = tmp_path / "outside", f"wan{os.urandom(3).hex()}"
    namespaces.create_network_namespace(pin)
    try:
        inside = ["nsenter", f"--net={pin}", "ip"]
        subprocess.run(
            ["ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(pin)], check=True
        )
        subprocess.run(["ip", "addr", "add", "198.51.100.1/24", "dev", end], check=True)
        subprocess.run(["ip", "addr", "add", "fd51::1/64", "dev", end, "nodad"], check=True)
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
        for words in (
            ["addr", "add", "198.51.100.2/24", "dev", "eth0"],
            ["addr", "add", "fd51::2/64", "dev", "eth0", "nodad"],
        ):
            subprocess.run([*inside, *words], check=True)
        subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
        subprocess.run([*inside, "route", "add", "default", "via", "198.51.100.1"], check=True)
        yield pin
    finally:
        subprocess.run(["ip", "link", "del", end], check=False)
        namespaces.remove_network_namespace(pin)


@pytest.mark.parametrize("user_defined", [False, True], ids=["bridge", "own network"])
def test_a_port_answers_from_everywhere(daemon: Daemon, names: Names, outside: Path, user_defined: bool) -> None:
    options = ["--network", names.network("n")] if user_defined else []
    port = free_port()
    server = serving(names, "server", *options, "-p", f"{port}:80")
    neighbour = names.sleeper("neighbour", *options)
    stranger = names.sleeper("stranger", "--network", names.network("other"))
    wait_until(lambda: heard("127.0.0.1", port), "the first answer")
    for address in ("127.0.0.1", "::1", hosts_address(), "198.51.100.1", "fd51::1"):
        assert heard(address, port) == "answer", address
    for address in ("198.51.100.1", "fd51::1"):
        assert namespaces.in_network_namespace(outside, partial(heard, address, port)) == "answer", address
    for asker in (server, neighbour, stranger):
        assert asks(daemon, asker, hosts_address(), port) == "answer", asker
    daemon.docker_ok("rm", "-f", server)
    assert heard("127.0.0.1", port) == heard("::1", port) == ""


def test_what_is_not_published_is_not_reached_from_outside(daemon: Daemon, names: Names, outside: Path) -> None:
    port = free_port()
    server = serving(names, "server", "-p", f"127.0.0.1:{port}:80")
    wait_until(lambda: heard("127.0.0.1", port), "the first answer")
    assert heard(hosts_address(), port) == ""
    address = inspected(daemon, "container", server)["NetworkSettings"]["IPAddress"]
    assert heard(address, 80) == "answer"
    assert namespaces.in_network_namespace(outside, lambda: heard(address, 80)) == ""
    assert namespaces.in_network_namespace(outside, lambda: heard("198.51.100.1", port)) == ""


def test_nobody_outside_comes_to_the_hosts_loopback(daemon: Daemon, names: Names, outside: Path) -> None:
    """A neighbour sends what is for 127.0.0.1 to this host, as one who means harm would."""
    port = free_port()
    serving(names, "server", "-p", f"127.0.0.1:{port}:80")
    wait_until(lambda: heard("127.0.0.1", port), "the first answer")
    inside = ["nsenter", f"--net={outside}"]
    for words in (
        ["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"],
        ["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"],
        ["ip", "route", "add", "127.0.0.1", "via", "198.51.100.1"],
    ):
        subprocess.run([*inside, *words], check=False)
    assert namespaces.in_network_namespace(outside, lambda: heard("127.0.0.1", port)) == ""


def test_an_internal_network_does_not_reach_published_ports(daemon: Daemon, names: Names) -> None:
    port = free_port()
    serving(names, "server", "-p", f"{port}:80")
    wait_until(lambda: heard("127.0.0.1", port), "the first answer")
    network = names.network("n", "--internal")
    gateway = inspected(daemon, "network", network)["IPAM"]["Config"][0]["Gateway"]
    inside = names.sleeper("inside", "--network", network)
    assert asks(daemon, inside, gateway, port) == ""


def test_ports_follow_a_container_to_other_networks(daemon: Daemon, names: Names) -> None:
    port = free_port()
    first, second = names.network("a", "--subnet", "10.233.40.0/24"), names.network("b")
    server = serving(names, "server", "--network", first, "--ip", "10.233.40.5", "-p", f"{port}:80")
    wait_until(lambda: heard("::1", port), "the first answer")
    daemon.docker_ok("network", "connect", second, server)
    daemon.docker_ok("network", "disconnect", first, server)
    other = names.sleeper("other", "--network", first, "--ip", "10.233.40.5")
    with serving_inside(daemon, other, socket.SOCK_STREAM, socket.AF_INET, 80):
        for address in ("127.0.0.1", "::1", hosts_address()):
            assert wait_until(lambda a=address: heard(a, port), address) == "answer"  # type: ignore[misc]
        daemon.docker_ok("network", "disconnect", second, server)
        for address in ("127.0.0.1", "::1"):
            assert heard(address, port) == "", address


def test_ports_are_published_when_a_way_out_comes(daemon: Daemon, names: Names) -> None:
    port = free_port()
    server = serving(names, "server", "--network", names.network("n", "--internal"), "-p", f"{port}:80")
    assert daemon.docker_ok("port", server) == ""
    daemon.docker_ok("network", "connect", "bridge", server)
    assert f"80/tcp -> 0.0.0.0:{port}" in daemon.docker_ok("port", server)
    for address in ("127.0.0.1", "::1"):
        assert wait_until(lambda a=address: heard(a, port), address) == "answer"  # type: ignore[misc]
    daemon.docker_ok("rm", "-f", server)
    assert heard("127.0.0.1", port) == ""


def test_udp(daemon: Daemon, names: Names, outside: Path) -> None:
    port = free_port(socket.SOCK_DGRAM)
    server = names.sleeper("server", "-p", f"{port}:53/udp")
    shown = inspected(daemon, "container", server)["NetworkSettings"]["Ports"]["53/udp"]
    assert {(p["HostIp"], p["HostPort"]) for p in shown} == {("0.0.0.0", str(port)), ("::", str(port))}
    with serving_inside(daemon, server, socket.SOCK_DGRAM, socket.AF_INET, 53):
        for address in ("127.0.0.1", "::1", hosts_address(), "198.51.100.1", "fd51::1"):
            assert echoed(address, port) == "hello", address
        for address in ("198.51.100.1", "fd51::1"):
            assert namespaces.in_network_namespace(outside, partial(echoed, address, port)) == "hello", address


def test_forms_of_publish(daemon: Daemon, names: Names) -> None:
    first = free_port()
    options = ["-p", "127.0.0.2::80", "-p", f"{first}-{first + 1}:81-82", "-p", "83", "--expose", "90-91", "-P"]
    names.sleeper("c", *options)
    ports = inspected(daemon, "container", names("c"))["NetworkSettings"]["Ports"]
    assert ports["80/tcp"][0]["HostIp"] == "127.0.0.2"
    assert [ports[f"{port}/tcp"][0]["HostPort"] for port in (81, 82)] == [str(first), str(first + 1)]
    assert all(int(ports[f"{port}/tcp"][0]["HostPort"]) >= 1024 for port in (80, 83, 90, 91))
    assert all(p["HostPort"] == ports["83/tcp"][0]["HostPort"] for p in ports["83/tcp"])
    told = daemon.docker_ok("port", names("c"), "81")
    assert told.splitlines() == [f"0.0.0.0:{first}", f"[::]:{first}"]
    form = ["ps", "--filter", f"name={names('c')}", "--format", "{{.Ports}}"]
    assert f"0.0.0.0:{first}->81/tcp" in daemon.docker_ok(*form)
    assert daemon.lamina_ok(*form) == daemon.docker_ok(*form)
    assert daemon.lamina_ok("port", names("c"), "81") == told
    assert daemon.docker_ok("ps", "-q", "--filter", "publish=81", "--filter", f"name={names('c')}") != ""


def test_ports_that_follow_each_other_are_shown_as_a_range(daemon: Daemon, names: Names) -> None:
    options = ["-p", "127.0.0.3:42000-42003:42000-42003", "-p", "127.0.0.3:42000:42000/udp", "--expose", "7000-7002"]
    names.sleeper("c", *options, "--expose", "9/sctp", "-p", "127.0.0.3:42010:43000")
    form = ["ps", "--filter", f"name={names('c')}", "--format", "{{.Ports}}"]
    assert "127.0.0.3:42000-42003->42000-42003/tcp" in daemon.docker_ok(*form)
    assert daemon.lamina_ok(*form) == daemon.docker_ok(*form)


def test_a_range_on_the_host_gives_the_first_that_is_free(daemon: Daemon, names: Names) -> None:
    first = free_port()
    for word in ("one", "two"):
        names.sleeper(word, "-p", f"{first}-{first + 5}:80")
    one, two = (
        inspected(daemon, "container", names(w))["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
        for w in ("one", "two")
    )
    assert first <= int(one) < int(two) <= first + 5


def test_a_port_that_is_taken_is_told_before_the_start(daemon: Daemon, names: Names) -> None:
    port = free_port()
    names.sleeper("first", "-p", f"{port}:80")
    result = daemon.docker("run", "--name", names("second"), "-p", f"{port}:80", "busybox", "true")
    assert result.code == 125
    assert "driver failed programming external connectivity on endpoint" in result.err
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in result.err
    assert daemon.docker_ok("inspect", "-f", "{{.State.Status}}", names("second")) == "created"
    daemon.docker_ok("rm", "-f", names("first"))
    daemon.docker_ok("start", names("second"))
    with closing(socket.create_server(("127.0.0.1", 0))) as foreign:
        taken = foreign.getsockname()[1]
        result = daemon.docker("run", "--rm", "-p", f"{taken}:80", "busybox", "true")
        assert (result.code, "address already in use" in result.err) == (125, True)
    held = free_port()
    names.sleeper("holder", "-p", f"{held}:80")
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(("0.0.0.0", held))


def test_ports_of_a_network_of_version_6(daemon: Daemon, names: Names, outside: Path) -> None:
    port = free_port()
    server = names.sleeper("server", "--network", names.network("n", "--ipv6"), "-p", f"{port}:80")
    with serving_inside(daemon, server, socket.SOCK_STREAM, socket.AF_INET6, 80):
        for address in ("127.0.0.1", "::1", hosts_address(), "198.51.100.1", "fd51::1"):
            assert heard(address, port) == "answer", address
        for address in ("198.51.100.1", "fd51::1"):
            assert namespaces.in_network_namespace(outside, partial(heard, address, port)) == "answer", address


def test_a_network_that_is_routed_to(daemon: Daemon, names: Names, outside: Path) -> None:
    """Others come to the container's own address: to what it publishes and to nothing else."""
    options = ["--opt", "com.docker.network.bridge.gateway_mode_ipv4=routed"]
    server = serving(names, "server", "--network", names.network("n", *options), "-p", "80")
    (network,) = inspected(daemon, "container", server)["NetworkSettings"]["Networks"].values()
    wait_until(lambda: heard(network["IPAddress"], 80), "the first answer")
    assert namespaces.in_network_namespace(outside, partial(heard, network["IPAddress"], 80)) == "answer"
    with serving_inside(daemon, server, socket.SOCK_STREAM, socket.AF_INET, 81):
        assert heard(network["IPAddress"], 81) == "answer"
        assert namespaces.in_network_namespace(outside, partial(heard, network["IPAddress"], 81)) == ""


def test_a_network_may_bind_to_one_address(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--opt", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1")
    names.sleeper("c", "--network", network, "-p", "80")
    (place,) = inspected(daemon, "container", names("c"))["NetworkSettings"]["Ports"]["80/tcp"]
    assert place["HostIp"] == "127.0.0.1"


def test_without_a_network_nothing_is_published(daemon: Daemon, names: Names) -> None:
    port = free_port()
    for word, network in (("none", "none"), ("host", "host"), ("internal", names.network("n", "--internal"))):
        names.sleeper(word, "--network", network, "-p", f"{port}:80")
        assert inspected(daemon, "container", names(word))["NetworkSettings"]["Ports"].get("80/tcp") in (None, [])
        daemon.docker_ok("rm", "-f", names(word))


def holder_of(daemon: Daemon, container: str) -> int:
    container_id = inspected(daemon, "container", container)["Id"]
    return int((daemon.run_root / "container" / container_id / "ports.pid").read_text())


def test_ports_answer_while_the_daemon_is_dead_and_after(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    port = free_port()
    serving(names, "server", "-p", f"{port}:80")
    wait_until(lambda: heard("127.0.0.1", port), "the first answer")
    own_daemon.kill()
    for address in ("127.0.0.1", "::1", hosts_address()):
        assert heard(address, port) == "answer", address
    own_daemon.start()
    for address in ("127.0.0.1", "::1", hosts_address()):
        assert heard(address, port) == "answer", address
    result = own_daemon.docker("run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert "port is already allocated" in result.err
    own_daemon.docker_ok("rm", "-f", names("server"))
    own_daemon.docker_ok("run", "--rm", "-p", f"{port}:80", "busybox", "true")


def test_a_holder_of_ports_that_was_killed_is_replaced(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    port = free_port()
    serving(names, "server", "-p", f"{port}:80")
    wait_until(lambda: heard("::1", port), "the first answer")
    before = holder_of(own_daemon, names("server"))
    own_daemon.kill()
    os.kill(before, signal.SIGKILL)
    own_daemon.start()
    wait_until(lambda: heard("::1", port), "an answer by another holder")
    assert holder_of(own_daemon, names("server")) != before


def test_rules_are_not_doubled_and_go_with_the_daemon(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    serving(names, "server", "--network", names.network("n"), "-p", "127.0.0.1::80")

    def rules() -> str:
        return subprocess.run(
            ["nft", "list", "table", "inet", own_daemon.table], capture_output=True, text=True, check=False
        ).stdout

    before = rules()
    assert "dnat" in before
    subprocess.run(["nft", "add", "rule", "inet", own_daemon.table, "admin", "counter"], check=True)
    own_daemon.kill()
    own_daemon.start()
    assert "counter" in rules()
    assert [line for line in rules().splitlines() if "counter" not in line] == before.splitlines()
    names.remove()
    own_daemon.stop()
    assert rules() == ""


def test_the_daemon_may_publish_on_loopback_alone(needs_root: None, tmp_path: Path, busybox_tar: Path) -> None:
    daemon = Daemon(
        tmp_path, options=["--publish-default", "127.0.0.1", "--default-address-pool", "base=10.234.0.0/16,size=26"]
    )
    try:
        daemon.start()
        daemon.docker_ok("import", busybox_tar, "busybox")
        names = Names(daemon)
        names.sleeper("c", "--network", names.network("n"), "-p", "80")
        (place,) = inspected(daemon, "container", names("c"))["NetworkSettings"]["Ports"]["80/tcp"]
        assert place["HostIp"] == "127.0.0.1"
        assert inspected(daemon, "network", names("n"))["IPAM"]["Config"][0]["Subnet"] == "10.234.0.0/26"
        names.remove()
    finally:
        daemon.discard()
