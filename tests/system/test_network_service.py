"""Networks on a real kernel, with real traffic.

Every test plays the host in a network namespace of its own, so that whatever it makes or breaks ends with it and neither the machine's
interfaces and rules nor a daemon beside the tests can be touched.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lamina.errors import InvalidArgument
from lamina.linux import mount, namespaces
from lamina.network import Endpoint, NetworkService, Wish
from lamina.network.claims import NameTaken
from lamina.network.errors import AddressInUse, BridgeUnavailable, NetworkNotFound, NoAddressLeft

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SUBNET = "10.219.7"
MISSING_ENDPOINT = Endpoint("f" * 64, "/nowhere/pin", "lvffffffffffff", f"{SUBNET}.2", 24, f"{SUBNET}.1", "")


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _interfaces() -> set[str]:
    return {link["ifname"] for link in json.loads(_run("ip", "-j", "link"))} - {"lo"}


def _inside(endpoint: Endpoint, *argv: str) -> str:
    return _run("nsenter", f"--net={endpoint.sandbox}", *argv)


def _talk(server: str, client: str, address: str) -> str:
    """Send a word over TCP from one pinned namespace to *address* in another; return the address that the server saw."""
    with namespaces.in_network_namespace(Path(server), lambda: socket.create_server((address, 0))) as listener:
        target = listener.getsockname()
        listener.settimeout(5)
        with namespaces.in_network_namespace(Path(client), lambda: socket.create_connection(target, timeout=5)) as near:
            far, peer = listener.accept()
            with far:
                far.settimeout(5)
                near.sendall(b"hello")
                assert far.recv(5) == b"hello"
    return str(peer[0])


@dataclass
class Host:
    """A host of a test's own; ``make`` gives services on it that are closed at the end."""

    directory: Path
    services: list[NetworkService] = field(default_factory=list)

    @property
    def pins(self) -> Path:
        return self.directory / "pins"

    def make(self, name: str = "lamt", *, bip: str | None = f"{SUBNET}.1/24", ready: int = 0) -> NetworkService:
        pins = self.pins if name == "lamt" else self.directory / f"{name}-pins"
        service = NetworkService(self.directory / name, pins, bridge=f"{name}0", bip=bip, table=name, ready=ready)
        self.services.append(service)
        return service

    async def start(self, name: str = "lamt", **options: Any) -> NetworkService:
        service = self.make(name, **options)
        await service.start([])
        return service

    def traces(self) -> tuple[set[str], set[str], list[str], str]:
        """All that networks leave on a host: interfaces, pins, mounts, rules."""
        pins = {p.name for p in self.directory.glob("*pins/*")}
        return _interfaces(), pins, mount.mountpoints(str(self.directory)), _run("nft", "list", "ruleset")

    def outside(self) -> str:
        """Another host at 192.0.2.2, reached from this one's 192.0.2.1, that knows no way to containers."""
        pin = self.directory / "outside"
        namespaces.create_network_namespace(pin)
        _run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "eth0", "netns", str(pin))
        _run("ip", "addr", "add", "192.0.2.1/24", "dev", "wan0")
        _run("ip", "link", "set", "wan0", "up")
        _run("nsenter", f"--net={pin}", "ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
        _run("nsenter", f"--net={pin}", "ip", "link", "set", "eth0", "up")
        return str(pin)


@pytest.fixture
def own_namespace(tmp_path: Path) -> Iterator[None]:
    """The main thread, and with it every thread and process it makes, in a new network namespace."""
    with open("/proc/thread-self/ns/net") as home:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            yield
        finally:
            namespaces.setns(home.fileno(), namespaces.CLONE_NEWNET)
            mount.unmount_all(str(tmp_path))


@pytest.fixture
async def host(own_namespace: None, tmp_path: Path) -> AsyncIterator[Host]:
    result = Host(tmp_path)
    yield result
    for service in result.services:
        await _close(service)


async def _close(service: NetworkService, *, remove: bool = True) -> None:
    """Close a service unless that was done."""
    if not service._ready._closed:
        await service.close(remove=remove)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


# ---- what an endpoint is


async def test_an_endpoint_is_a_namespace_with_its_address_on_eth0_and_a_way_out(host: Host) -> None:
    service = await host.start()
    endpoint = await service.acquire("bridge")
    assert (endpoint.ip, endpoint.prefix_len, endpoint.gateway) == (f"{SUBNET}.2", 24, f"{SUBNET}.1")
    assert len(endpoint.id) == 64
    links = {link["ifname"]: link for link in json.loads(_inside(endpoint, "ip", "-j", "-4", "addr"))}
    assert set(links) == {"lo", "eth0"}
    assert [a["local"] for a in links["eth0"]["addr_info"]] == [endpoint.ip]
    assert "UP" in links["eth0"]["flags"]
    assert "UP" in links["lo"]["flags"]
    (default,) = json.loads(_inside(endpoint, "ip", "-j", "route", "show", "default"))
    assert default["gateway"] == endpoint.gateway


async def test_the_hardware_address_follows_the_ip_as_dockers_does(host: Host) -> None:
    service = await host.start()
    endpoint = await service.acquire("bridge")
    assert endpoint.mac == "02:42:0a:db:07:02"
    (link,) = json.loads(_inside(endpoint, "ip", "-j", "link", "show", "eth0"))
    assert link["address"] == endpoint.mac


async def test_an_address_and_a_hardware_address_that_are_asked_for_are_given(host: Host) -> None:
    service = await host.start()
    endpoint = await service.acquire("bridge", Wish(ip=f"{SUBNET}.77", mac="02:00:00:00:be:ef"))
    assert (endpoint.ip, endpoint.mac) == (f"{SUBNET}.77", "02:00:00:00:be:ef")
    assert f"{SUBNET}.77/24" in _inside(endpoint, "ip", "addr")
    assert "02:00:00:00:be:ef" in _inside(endpoint, "ip", "link")


async def test_an_address_in_use_is_not_given_twice(host: Host) -> None:
    service = await host.start()
    first = await service.acquire("bridge")
    before = host.traces()
    with pytest.raises(AddressInUse):
        await service.acquire("bridge", Wish(ip=first.ip))
    assert host.traces() == before


@pytest.mark.parametrize(
    "asked", [{"ip": "nonsense"}, {"ip": "fd00::2"}, {"mac": "nonsense"}, {"mac": "02:00:00:00:00"}, {"mac": "é"}]
)
async def test_an_address_that_is_none_is_refused_and_leaves_nothing(host: Host, asked: dict[str, Any]) -> None:
    service = await host.start()
    before = host.traces()
    with pytest.raises(InvalidArgument):
        await service.acquire("bridge", Wish(**asked))
    assert host.traces() == before
    assert (await service.acquire("bridge")).ip == f"{SUBNET}.2"


@pytest.mark.parametrize("name", ["host", "nosuch", ""])
async def test_a_network_that_has_no_endpoints_gives_none(host: Host, name: str) -> None:
    service = await host.start()
    with pytest.raises(NetworkNotFound):
        await service.acquire(name)


async def test_none_is_a_namespace_with_loopback_alone(host: Host) -> None:
    service = await host.start()
    endpoint = await service.acquire("none")
    assert (endpoint.ip, endpoint.interface) == ("", "")
    (link,) = json.loads(_inside(endpoint, "ip", "-j", "link"))
    assert link["ifname"] == "lo"
    assert "UP" in link["flags"]
    await service.release(endpoint)
    assert not Path(endpoint.sandbox).exists()


async def test_a_full_subnet_is_told_with_the_networks_id(host: Host) -> None:
    service = await host.start(bip=f"{SUBNET}.1/30")
    await service.acquire("bridge")
    with pytest.raises(NoAddressLeft, match=rf"address pools: bridge \({service.ids['bridge']}\)$"):
        await service.acquire("bridge")


# ---- traffic


async def test_containers_reach_each_other_by_address(host: Host) -> None:
    service = await host.start()
    one, two = await service.acquire("bridge"), await service.acquire("bridge")
    assert _talk(one.sandbox, two.sandbox, one.ip) == two.ip
    assert _talk(two.sandbox, one.sandbox, two.ip) == one.ip


async def test_a_container_reaches_the_outside_under_the_hosts_address(host: Host) -> None:
    outside = host.outside()
    service = await host.start()
    endpoint = await service.acquire("bridge")
    assert _talk(outside, endpoint.sandbox, "192.0.2.2") == "192.0.2.1"


async def test_a_rule_of_the_administrators_is_obeyed_and_outlives_a_restart(host: Host) -> None:
    outside = host.outside()
    first = await host.start()
    _run("nft", "add", "rule", "inet", "lamt", "admin", "ip", "daddr", "192.0.2.2", "reject", "with", "tcp", "reset")
    await first.close(remove=False)
    service = await host.start()
    endpoint = await service.acquire("bridge")
    with pytest.raises(ConnectionRefusedError):
        _talk(outside, endpoint.sandbox, "192.0.2.2")


# ---- nothing is left, nothing is doubled


async def test_a_hundred_endpoints_leave_nothing_behind(host: Host) -> None:
    service = await host.start()
    before = host.traces()
    for _ in range(100):
        await service.release(await service.acquire("bridge"))
    await service.settled()
    assert host.traces() == before
    assert _run("ip", "neigh", "show", "nud", "permanent") == ""


async def test_a_released_address_returns_to_the_pool(host: Host) -> None:
    service = await host.start(bip=f"{SUBNET}.1/30")
    for _ in range(3):
        endpoint = await service.acquire("bridge")
        assert endpoint.ip == f"{SUBNET}.2"
        await service.release(endpoint)


async def test_releasing_what_is_gone_is_no_error(host: Host) -> None:
    service = await host.start()
    endpoint = await service.acquire("bridge")
    await service.release(endpoint)
    await service.release(endpoint)
    await service.release(MISSING_ENDPOINT)


async def test_a_second_release_does_not_free_the_address_of_the_next_holder(host: Host) -> None:
    service = await host.start(bip=f"{SUBNET}.1/30")
    first = await service.acquire("bridge")
    await service.release(first)
    second = await service.acquire("bridge")
    assert second.ip == first.ip
    await service.release(first)
    with pytest.raises(NoAddressLeft):
        await service.acquire("bridge")


@pytest.mark.parametrize("network", ["bridge", "none"])
async def test_a_cancelled_acquire_leaves_nothing_behind(host: Host, network: str) -> None:
    service = await host.start()
    before = host.traces()
    for delay in (0, 0.001, 0.002, 0.004, 0.008):
        task = asyncio.create_task(service.acquire(network))
        await asyncio.sleep(delay)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Endpoint):
            await service.release(outcome)
    await _until(lambda: host.traces() == before)


async def test_a_cancelled_release_removes_and_frees_all_the_same(host: Host) -> None:
    service = await host.start(bip=f"{SUBNET}.1/30")
    before = host.traces()
    for delay in (0, 0.001, 0.002, 0.004):
        endpoint = await service.acquire("bridge")
        task = asyncio.create_task(service.release(endpoint))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await service.release(MISSING_ENDPOINT)
        await service.settled()
        assert host.traces() == before


async def test_an_endpoint_that_cannot_be_made_leaves_nothing_behind(host: Host) -> None:
    service = await host.start(bip=f"{SUBNET}.1/30")
    _run("ip", "link", "del", "lamt0")
    before = host.traces()
    for _ in range(2):  # the second finds the only address free again
        with pytest.raises(BridgeUnavailable):
            await service.acquire("bridge")
    assert host.traces() == before


async def test_closing_with_remove_takes_bridge_and_rules_away(host: Host) -> None:
    before = host.traces()
    service = await host.start(ready=2)
    await service.release(await service.acquire("bridge"))
    await service.close(remove=True)
    assert host.traces() == before


@pytest.mark.parametrize("delay", [0, 0.052, 0.055, 0.06, 0.07])
async def test_closing_while_endpoints_are_made_ahead_leaves_none(host: Host, delay: float) -> None:
    before = host.traces()
    service = await host.start(ready=2)
    await asyncio.sleep(delay)
    await service.close(remove=True)
    assert host.traces() == before


# ---- endpoints made ahead


async def test_what_was_made_ahead_is_given_out_and_made_anew(host: Host) -> None:
    service = await host.start(ready=2)
    await _until(lambda: len(service._ready) == 2)
    ahead = {p.name for p in host.pins.iterdir()}
    endpoint = await service.acquire("bridge")
    assert Path(endpoint.sandbox).name in ahead
    await _until(lambda: len(service._ready) == 2)
    other = await service.acquire("bridge")
    assert other.ip != endpoint.ip
    assert _talk(other.sandbox, endpoint.sandbox, other.ip) == endpoint.ip


async def test_endpoints_made_ahead_do_not_keep_an_address_from_who_asks_for_it(host: Host) -> None:
    service = await host.start(ready=2)
    await _until(lambda: len(service._ready) == 2)
    endpoint = await service.acquire("bridge", Wish(ip=f"{SUBNET}.2"))
    assert endpoint.ip == f"{SUBNET}.2"


async def test_endpoints_made_ahead_do_not_exhaust_the_subnet(host: Host) -> None:
    service = await host.start(bip=f"{SUBNET}.1/30", ready=1)
    await _until(lambda: len(service._ready) == 1)
    endpoint = await service.acquire("bridge", Wish(mac="02:00:00:00:be:ef"))
    assert (endpoint.ip, endpoint.mac) == (f"{SUBNET}.2", "02:00:00:00:be:ef")


# ---- restart


async def test_a_restart_takes_over_the_living_and_removes_the_others(host: Host) -> None:
    first = await host.start()
    kept, lost = await first.acquire("bridge"), await first.acquire("bridge")
    isolated = await first.acquire("none")
    await first.close(remove=False)

    second = host.make()
    await second.start([kept, isolated])
    assert Path(isolated.sandbox).exists()
    assert not Path(lost.sandbox).exists()
    assert kept.interface in _interfaces()
    assert lost.interface not in _interfaces()
    with pytest.raises(AddressInUse):
        await second.acquire("bridge", Wish(ip=kept.ip))
    new = await second.acquire("bridge")
    assert new.ip != kept.ip
    assert _talk(kept.sandbox, new.sandbox, kept.ip) == new.ip
    await second.release(kept)
    assert (await second.acquire("bridge", Wish(ip=kept.ip))).ip == kept.ip


async def test_rules_and_bridge_are_not_doubled_by_a_restart(host: Host) -> None:
    first = await host.start()
    before = host.traces(), _run("ip", "-4", "addr", "show", "dev", "lamt0")
    await first.close(remove=False)
    await host.start()
    assert (host.traces(), _run("ip", "-4", "addr", "show", "dev", "lamt0")) == before


async def test_network_ids_are_64_hex_digits_and_outlive_a_restart(host: Host) -> None:
    first = await host.start()
    await first.close(remove=True)
    second = await host.start()
    assert second.ids == first.ids
    assert set(first.ids) == {"bridge", "host", "none"}
    assert all(len(bytes.fromhex(i)) == 32 for i in first.ids.values())


_VICTIM = """
import asyncio, sys
from pathlib import Path
from lamina.network import NetworkService

async def main(directory: Path) -> None:
    service = NetworkService(directory / "lamt", directory / "pins", bridge="lamt0", bip="10.219.7.1/24", table="lamt", ready=2)
    await service.start([])
    while True:
        endpoint = await service.acquire("bridge")
        await service.acquire("none")
        print(endpoint.ip, flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_what_a_killed_daemon_left_is_removed_by_the_next_start(host: Host) -> None:
    with subprocess.Popen([sys.executable, "-c", _VICTIM, str(host.directory)], stdout=subprocess.PIPE) as victim:
        try:
            assert victim.stdout is not None
            for _ in range(4):
                assert victim.stdout.readline()
        finally:
            victim.send_signal(signal.SIGKILL)
    assert len(_interfaces()) > 4
    service = await host.start()
    interfaces, pins, mounts, _ = host.traces()
    assert (interfaces, pins, mounts) == ({"lamt0"}, set(), [])
    assert (await service.acquire("bridge")).ip == f"{SUBNET}.2"


# ---- two daemons, odd hosts


async def test_two_services_on_one_host_leave_each_other_alone(host: Host) -> None:
    one = await host.start()
    endpoint = await one.acquire("bridge")
    two = await host.start("lamu", bip="10.219.8.1/24")
    other = await two.acquire("bridge")
    mate = await one.acquire("bridge")
    assert _talk(endpoint.sandbox, mate.sandbox, endpoint.ip) == mate.ip
    await one.release(mate)
    await two.release(other)
    await two.close(remove=True)
    interfaces, pins, _, rules = host.traces()
    assert interfaces == {"lamt0", endpoint.interface}
    assert pins == {Path(endpoint.sandbox).name}
    assert "table inet lamt " in rules
    assert "table inet lamu " not in rules


async def test_without_nft_the_bridge_is_refused_and_none_works(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        service = await host.start(ready=2)
        with pytest.raises(BridgeUnavailable, match="nft is not installed"):
            await service.acquire("bridge")
        endpoint = await service.acquire("none")
        assert Path(endpoint.sandbox).exists()
        await service.release(endpoint)
        await service.close(remove=True)
    assert _interfaces() == set()


async def test_an_interface_that_is_no_bridge_is_not_taken_for_one(host: Host) -> None:
    _run("ip", "link", "add", "lamt0", "type", "veth", "peer", "name", "lamt1")
    service = await host.start()
    with pytest.raises(BridgeUnavailable, match="lamt0 exists and is no bridge"):
        await service.acquire("bridge")
    await service.release(await service.acquire("none"))


async def test_closing_does_not_remove_an_interface_that_is_no_bridge(host: Host) -> None:
    _run("ip", "link", "add", "lamt0", "type", "veth", "peer", "name", "lamt1")
    service = await host.start()
    await service.close(remove=True)
    assert _interfaces() == {"lamt0", "lamt1"}


def test_a_name_that_no_interface_can_have_is_refused(tmp_path: Path) -> None:
    for name in ("a-name-far-too-long", "a/b", "", "a b"):
        with pytest.raises(InvalidArgument, match="invalid bridge name"):
            NetworkService(tmp_path, tmp_path, bridge=name, bip=None, table=None)


async def test_a_bridge_or_a_table_of_another_daemon_is_refused(host: Host) -> None:
    await host.start()
    for bridge, table in (("lamt0", "other"), ("other0", "lamt")):
        second = NetworkService(
            host.directory / "second", host.directory / "pins2", bridge=bridge, bip=None, table=table
        )
        with pytest.raises(NameTaken, match="in use by another lamina daemon"):
            await second.start([])


async def test_daemons_that_name_no_bridge_choose_one_each_and_keep_it(host: Host) -> None:
    services = []
    for number in range(2):
        root, pins = host.directory / f"root{number}", host.directory / f"pins{number}"
        service = NetworkService(root, pins, bridge=None, bip=None, table=None, ready=0)
        host.services.append(service)
        await service.start([])
        services.append(service)
    assert [(s.bridge, s.table) for s in services] == [("lamina0", "lamina"), ("lamina1", "lamina1")]
    first = await services[0].acquire("bridge")
    second = await services[1].acquire("bridge")
    assert first.gateway != second.gateway
    await services[1].release(second)
    await services[1].close(remove=True)
    again = NetworkService(
        host.directory / "root1", host.directory / "pins1", bridge=None, bip=None, table=None, ready=0
    )
    host.services.append(again)
    await again.start([])
    assert again.bridge == "lamina1"
    assert f"default via {first.gateway}" in _inside(first, "ip", "route")
    assert first.interface in _interfaces()


async def test_what_a_killed_daemon_left_running_is_left_alone(host: Host) -> None:
    killed = NetworkService(
        host.directory / "killed", host.directory / "pins-k", bridge=None, bip=None, table=None, ready=0
    )
    await killed.start([])
    host.services.append(killed)
    running = await killed.acquire("bridge")
    killed._claims.release()  # as the kernel does when a process ends
    other = NetworkService(
        host.directory / "other", host.directory / "pins-o", bridge=None, bip=None, table=None, ready=0
    )
    host.services.append(other)
    await other.start([])
    assert other.bridge == "lamina1"
    assert running.interface in _interfaces()


async def test_the_default_subnet_is_the_first_that_no_route_overlaps(host: Host) -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "route", "add", "172.30.9.0/24", "dev", "lo")
    service = await host.start(bip=None)
    assert (await service.acquire("bridge")).gateway == "172.29.0.1"


async def test_without_a_free_default_subnet_the_bridge_is_refused(host: Host) -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "route", "add", "172.16.0.0/12", "dev", "lo")
    _run("ip", "route", "add", "192.168.0.0/16", "dev", "lo")
    service = await host.start(bip=None)
    with pytest.raises(BridgeUnavailable, match="--bip"):
        await service.acquire("bridge")


async def test_without_a_wish_a_bridge_that_is_there_keeps_its_address(host: Host) -> None:
    first = await host.start(bip=f"{SUBNET}.1/24")
    await first.close(remove=False)
    second = await host.start(bip=None)
    assert (await second.acquire("bridge")).gateway == f"{SUBNET}.1"


async def test_forwarding_is_switched_on(host: Host) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    await host.start()
    assert forwarding.read_text().strip() == "1"
