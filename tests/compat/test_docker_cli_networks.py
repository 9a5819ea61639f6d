"""Networks of users' own by docker's commands: made, shown, joined and left, removed; and what goes over them."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import Daemon
from named import Names, inside, inspected, reaches

# ---- made, shown, removed


def test_a_network_is_made_with_what_was_asked_for(daemon: Daemon, names: Names) -> None:
    options = ["--subnet", "10.233.1.0/24", "--ip-range", "10.233.1.128/25", "--gateway", "10.233.1.254"]
    options += [
        "--aux-address",
        "printer=10.233.1.129",
        "--label",
        "a=b",
        "--opt",
        "com.docker.network.driver.mtu=1400",
    ]
    network = inspected(daemon, "network", names.network("made", *options, "--attachable"))
    assert network["IPAM"]["Config"] == [
        {
            "Subnet": "10.233.1.0/24",
            "IPRange": "10.233.1.128/25",
            "Gateway": "10.233.1.254",
            "AuxiliaryAddresses": {"printer": "10.233.1.129"},
        }
    ]
    assert (network["Driver"], network["Scope"], network["Attachable"]) == ("bridge", "local", True)
    assert network["Labels"] == {"a": "b"}
    container = names.sleeper("c", "--network", names("made"))
    assert "inet 10.233.1.130/24" in inside(daemon, container, "ip addr show eth0")
    assert "mtu 1400" in inside(daemon, container, "ip addr show eth0")
    assert "default via 10.233.1.254" in inside(daemon, container, "ip route")
    members = inspected(daemon, "network", names("made"))["Containers"]
    (member,) = members.values()
    assert (member["Name"], member["IPv4Address"]) == (container, "10.233.1.130/24")


def test_networks_get_subnets_of_their_own(daemon: Daemon, names: Names) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: names.network(f"many{number}"), range(8)))
    subnets = {inspected(daemon, "network", name)["IPAM"]["Config"][0]["Subnet"] for name in made}
    assert len(subnets) == len(made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--subnet", "10.233.2.1/24"], "it should be 10.233.2.0/24"),
        (["--subnet", "nonsense"], "invalid"),
        (["--subnet", "10.233.2.0/24", "--gateway", "10.233.3.1"], "no matching subnet for gateway 10.233.3.1"),
        (["--driver", "nosuch"], "could not find plugin nosuch in v1 plugin registry: plugin not found"),
        (["--opt", "com.docker.network.driver.mtu=many"], "invalid MTU"),
        (["--driver", "macvlan", "--opt", "parent=nosuch0"], "parent interface nosuch0 was not found"),
        (["--scope", "swarm"], "not a swarm manager"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    daemon: Daemon, names: Names, options: list[str], message: str
) -> None:
    before = daemon.docker_ok("network", "ls", "-q")
    result = daemon.docker("network", "create", *options, names("wrong"))
    assert result.code == 1
    assert message in result.err
    assert daemon.docker_ok("network", "ls", "-q") == before


def test_a_name_and_a_subnet_can_be_had_once(daemon: Daemon, names: Names) -> None:
    names.network("first", "--subnet", "10.233.4.0/24")
    again = daemon.docker("network", "create", names("first"))
    assert f"network with name {names('first')} already exists" in again.err
    overlapping = daemon.docker("network", "create", "--subnet", "10.233.4.128/25", names("second"))
    assert "Pool overlaps with other one on this address space" in overlapping.err
    for name in ("bridge", "host", "none"):
        assert (
            f"operation is not permitted on predefined {name} network" in daemon.docker("network", "create", name).err
        )
        assert "pre-defined network and cannot be removed" in daemon.docker("network", "rm", name).err


def test_a_network_that_a_container_is_in_stays(daemon: Daemon, names: Names) -> None:
    network = names.network("used")
    container = names.sleeper("c", "--network", network)
    refused = daemon.docker("network", "rm", network)
    assert (refused.code, "has active endpoints" in refused.err) == (1, True)
    assert container in refused.err
    daemon.docker_ok("rm", "-f", container)
    daemon.docker_ok("network", "rm", network)
    assert f"network {network} not found" in daemon.docker("network", "inspect", network).err


def test_prune_takes_what_no_container_refers_to(daemon: Daemon, names: Names) -> None:
    label = ["--label", f"of={names('prune')}"]
    names.network("idle", *label)
    names.network("used", *label)
    daemon.docker_ok("create", "--name", names("c"), "--network", names("used"), "busybox", "true")
    out = daemon.docker_ok("network", "prune", "-f", "--filter", f"label=of={names('prune')}")
    assert names("idle") in out
    assert names("used") not in out
    daemon.docker_ok("network", "inspect", names("used"))


def test_networks_are_found_by_filters(daemon: Daemon, names: Names) -> None:
    names.network("a", "--label", "kind=x")
    network_id = inspected(daemon, "network", names("a"))["Id"]

    def listed(*filters: str) -> list[str]:
        options = [word for text in filters for word in ("--filter", text)]
        return daemon.docker_ok("network", "ls", "--format", "{{.Name}}", *options).split()

    for text in (
        f"name={names('a')}",
        f"name=^{names('a')}$",
        f"id={network_id[:10]}",
        "label=kind=x",
        "type=custom",
        "dangling=true",
    ):
        assert names("a") in listed(text), text
    assert set(listed("type=builtin")) == {"bridge", "host", "none"}
    assert names("a") not in listed("driver=macvlan")
    assert names("a") not in listed("dangling=false")


@pytest.mark.parametrize("command", ["docker", "lamina"])
def test_both_command_lines_do_the_same(daemon: Daemon, names: Names, command: str) -> None:
    run = getattr(daemon, f"{command}_ok")
    name = names("both")
    options = ["--subnet", "10.233.5.0/24", "--ip-range", "10.233.5.64/26", "--gateway", "10.233.5.65", "--internal"]
    network_id = run(
        "network", "create", *options, "--aux-address", "x=10.233.5.66", "-o", "a=b", "--label", "l=1", name
    )
    assert inspected(daemon, "network", name)["Id"] == network_id
    assert inspected(daemon, "network", name)["Internal"] is True
    container = names.sleeper("c")
    run("network", "connect", "--ip", "10.233.5.99", "--alias", "other", name, container)
    assert inspected(daemon, "container", container)["NetworkSettings"]["Networks"][name]["IPAddress"] == "10.233.5.99"
    run("network", "disconnect", name, container)
    assert list(inspected(daemon, "container", container)["NetworkSettings"]["Networks"]) == ["bridge"]
    assert run("network", "rm", name) == name
    result = getattr(daemon, command)("network", "rm", name)
    assert (result.code, f"network {name} not found" in result.err) == (1, True)


# ---- joined and left


def test_a_running_container_joins_and_leaves(daemon: Daemon, names: Names) -> None:
    first, second = names.network("n1"), names.network("n2")
    one = names.sleeper("one", "--network", first)
    two = names.sleeper("two", "--network", second)
    assert not reaches(daemon, one, two)
    daemon.docker_ok("network", "connect", "--alias", "guest", second, one)
    assert inside(daemon, one, "ls /sys/class/net | grep eth").split() == ["eth0", "eth1"]
    assert reaches(daemon, one, two)
    assert reaches(daemon, two, "guest")
    address = inspected(daemon, "container", one)["NetworkSettings"]["Networks"][second]["IPAddress"]
    assert address in inside(daemon, one, "cat /etc/hosts")
    refused = daemon.docker("network", "connect", second, one)
    assert f"endpoint with name {one} already exists in network {second}" in refused.err
    daemon.docker_ok("network", "disconnect", second, one)
    assert inside(daemon, one, "ls /sys/class/net | grep eth").split() == ["eth0"]
    assert not reaches(daemon, one, two)
    assert address not in inside(daemon, one, "cat /etc/hosts")
    assert "is not connected to network" in daemon.docker("network", "disconnect", second, one).err


def test_a_stopped_container_joins_for_its_next_start(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    daemon.docker_ok("create", "--name", names("c"), "busybox", "sleep", "1000")
    daemon.docker_ok("network", "connect", network, names("c"))
    daemon.docker_ok("network", "disconnect", "bridge", names("c"))
    daemon.docker_ok("start", names("c"))
    assert list(inspected(daemon, "container", names("c"))["NetworkSettings"]["Networks"]) == [network]
    assert inside(daemon, names("c"), "ls /sys/class/net | grep eth").split() == ["eth0"]


def test_several_networks_at_once_and_which_of_them_leads_out(daemon: Daemon, names: Names) -> None:
    low, high = names.network("low"), names.network("high")
    options = ["--network", f"name={low},gw-priority=1", "--network", f"name={high},gw-priority=2"]
    container = names.sleeper("c", *options)
    gateways = {n: inspected(daemon, "network", n)["IPAM"]["Config"][0]["Gateway"] for n in (low, high)}
    assert f"default via {gateways[high]}" in inside(daemon, container, "ip route")
    daemon.docker_ok("network", "disconnect", high, container)
    assert f"default via {gateways[low]}" in inside(daemon, container, "ip route")


def test_addresses_outlive_a_restart(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    container = names.sleeper("c", "--network", network)
    daemon.docker_ok("network", "connect", "bridge", container)

    def places() -> list[tuple[str, str]]:
        found = inspected(daemon, "container", container)["NetworkSettings"]["Networks"]
        return [(found[name]["IPAddress"], found[name]["MacAddress"]) for name in (network, "bridge")]

    before = places()
    for _ in range(2):
        daemon.docker_ok("restart", "-t", "0", container)
        assert places() == before
    daemon.docker_ok("stop", "-t", "0", container)
    names.sleeper("other", "--network", network)
    daemon.docker_ok("start", container)
    assert places() == before


def test_an_address_that_is_asked_for_is_given_and_kept(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--subnet", "10.233.6.0/24", "--ipv6", "--subnet", "fd33:6::/64")
    options = ["--network", network, "--ip", "10.233.6.66", "--ip6", "fd33:6::66", "--mac-address", "02:00:00:00:66:66"]
    container = names.sleeper("c", *options)
    shown = inspected(daemon, "container", container)["NetworkSettings"]["Networks"][network]
    assert (shown["IPAddress"], shown["GlobalIPv6Address"]) == ("10.233.6.66", "fd33:6::66")
    assert shown["MacAddress"] == "02:00:00:00:66:66"
    taken = daemon.docker("run", "--rm", "--network", network, "--ip", "10.233.6.66", "busybox", "true")
    assert (taken.code, "Address already in use" in taken.err) == (125, True)
    for address, why in (("10.9.9.9", "no configured subnet"), ("10.233.6.1", "no configured subnet")):
        refused = daemon.docker("run", "--rm", "--network", network, "--ip", address, "busybox", "true")
        assert (refused.code, why in refused.err) == (125, True)
    unnamed = names.network("unnamed")
    refused = daemon.docker("run", "--rm", "--network", unnamed, "--ip", "10.1.1.1", "busybox", "true")
    assert "only when connecting to networks with user configured subnets" in refused.err


def test_a_network_that_is_not_there_is_told_at_the_start(daemon: Daemon, names: Names) -> None:
    result = daemon.docker("run", "--rm", "--network", names("nosuch"), "busybox", "true")
    assert (result.code, f"network {names('nosuch')} not found" in result.err) == (125, True)


def test_what_cannot_be_joined_is_refused(daemon: Daemon, names: Names) -> None:
    network = names.network("n")
    donor = names.sleeper("donor")
    shares = names.sleeper("shares", "--network", f"container:{donor}")
    host = names.sleeper("host", "--network", "host")
    assert (
        "sharing network namespace with another container" in daemon.docker("network", "connect", network, shares).err
    )
    assert "host network" in daemon.docker("network", "connect", network, host).err
    assert "host network" in daemon.docker("network", "connect", "host", donor).err
    assert "No such container" in daemon.docker("network", "connect", network, names("nosuch")).err


def test_many_clients_get_no_address_twice(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--subnet", "10.233.7.0/24")
    with ThreadPoolExecutor(8) as pool:
        containers = list(pool.map(lambda number: names.sleeper(f"c{number}", "--network", network), range(16)))
    members = inspected(daemon, "network", network)["Containers"].values()
    assert len({member["IPv4Address"] for member in members}) == len(containers)
    assert len({member["MacAddress"] for member in members}) == len(containers)


# ---- what goes over them


def test_networks_are_apart(daemon: Daemon, names: Names) -> None:
    one = names.sleeper("one", "--network", names.network("n1"))
    two = names.sleeper("two", "--network", names.network("n2"))
    three = names.sleeper("three")
    addresses = {
        c: next(iter(inspected(daemon, "container", c)["NetworkSettings"]["Networks"].values()))["IPAddress"]
        for c in (one, two, three)
    }
    for asker in (one, two, three):
        assert [reaches(daemon, asker, addresses[c]) for c in (one, two, three)] == [
            asker == c for c in (one, two, three)
        ]


def test_an_internal_network_has_no_way_out(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--internal")
    one, two = (names.sleeper(word, "--network", network) for word in ("one", "two"))
    assert reaches(daemon, one, two)
    assert "default" not in inside(daemon, one, "ip route")
    other = names.sleeper("other")
    address = inspected(daemon, "container", other)["NetworkSettings"]["IPAddress"]
    gateway = inspected(daemon, "network", network)["IPAM"]["Config"][0]["Gateway"]
    # not even with a route that somebody adds
    daemon.docker_ok("exec", "--privileged", one, "ip", "route", "add", "default", "via", gateway)
    assert not reaches(daemon, one, address)
    assert "example.org" in daemon.docker("exec", one, "nslookup", "example.org").out.lower()
    assert "NXDOMAIN" in daemon.docker("exec", one, "nslookup", "example.org").out


def test_without_icc_containers_reach_their_host_alone(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--opt", "com.docker.network.bridge.enable_icc=false")
    one, two = (names.sleeper(word, "--network", network) for word in ("one", "two"))
    gateway = inspected(daemon, "network", network)["IPAM"]["Config"][0]["Gateway"]
    assert reaches(daemon, one, gateway)
    assert not reaches(daemon, one, two)


def test_addresses_of_version_6(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--ipv6")
    config = inspected(daemon, "network", network)["IPAM"]["Config"]
    assert config[1]["Subnet"].startswith("fd")
    one, two = (names.sleeper(word, "--network", network) for word in ("one", "two"))
    shown = inspected(daemon, "container", one)["NetworkSettings"]["Networks"][network]
    assert (shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == (64, config[1]["Gateway"])
    assert "default via" in inside(daemon, one, "ip -6 route")
    address = inspected(daemon, "container", two)["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"]
    assert daemon.docker("exec", one, "ping", "-6", "-c", "1", "-W", "2", address).code == 0
    assert address in daemon.docker("exec", one, "nslookup", two).out
    assert "inet6" not in inside(daemon, names.sleeper("four", "--network", names.network("n4")), "ip addr show eth0")


def test_a_network_of_version_6_alone(daemon: Daemon, names: Names) -> None:
    network = names.network("n", "--ipv6", "--ipv4=false")
    one, two = (names.sleeper(word, "--network", network) for word in ("one", "two"))
    assert "inet " not in inside(daemon, one, "ip addr show eth0")
    assert reaches(daemon, one, two)


def test_children_of_an_interface_of_the_hosts(daemon: Daemon, names: Names) -> None:
    """Without a parent's name it is one that leads nowhere, so that nothing of this host's is touched."""
    network = names.network("n", "--driver", "macvlan", "--subnet", "10.233.8.0/24")
    one, two = (names.sleeper(word, "--network", network) for word in ("one", "two"))
    assert reaches(daemon, one, two)
    assert inspected(daemon, "container", one)["NetworkSettings"]["Networks"][network]["IPAddress"] == "10.233.8.2"
    daemon.docker_ok("rm", "-f", one, two)
    network_id = inspected(daemon, "network", network)["Id"]
    parent = Path(f"/sys/class/net/dm-{network_id[:12]}")
    assert parent.exists()
    daemon.docker_ok("network", "rm", network)
    assert not parent.exists()


def test_a_driver_that_the_kernel_lacks_is_told(daemon: Daemon, names: Names) -> None:
    result = daemon.docker("network", "create", "--driver", "ipvlan", "--subnet", "10.233.9.0/24", names("n"))
    if result.code != 0:
        assert "networks of the driver ipvlan are not available" in result.err
        assert daemon.docker("network", "inspect", names("n")).code == 1
        return
    one, two = (names.sleeper(word, "--network", names("n")) for word in ("one", "two"))
    assert reaches(daemon, one, two)


@pytest.mark.parametrize("command", ["docker", "lamina"])
def test_a_builds_steps_may_join_a_network(daemon: Daemon, names: Names, context: Path, command: str) -> None:
    network = names.network("n")
    server = names.sleeper("server", "--network", network)
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN ping -c 1 -W 2 {server} && echo {os.urandom(4).hex()}\n")
    build = getattr(daemon, command)
    assert build("build", "--network", network, context).code == 0
    assert build("build", "--no-cache", context).code != 0
    result = build("build", "--no-cache", "--network", names("nosuch"), context)
    assert result.code != 0
    assert f"network {names('nosuch')} not found" in result.err + result.out


def test_a_bridge_that_was_there_stays(daemon: Daemon, names: Names) -> None:
    bridge = f"rv{os.urandom(4).hex()}"
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        option = ["--opt", f"com.docker.network.bridge.name={bridge}"]
        names.network("n", *option)
        again = daemon.docker("network", "create", *option, names("again"))
        assert (again.code, "in use by another network" in again.err) == (1, True)
        one, two = (names.sleeper(word, "--network", names("n")) for word in ("one", "two"))
        assert reaches(daemon, one, two)
        daemon.docker_ok("rm", "-f", one, two)
        daemon.docker_ok("network", "rm", names("n"))
        assert Path(f"/sys/class/net/{bridge}").exists()
    finally:
        subprocess.run(["ip", "link", "del", bridge], check=True)
    default = ["--opt", f"com.docker.network.bridge.name={daemon.bridge}"]
    assert "in use by another network" in daemon.docker("network", "create", *default, names("default")).err


def test_a_network_that_cannot_be_set_up_leaves_no_bridge(daemon: Daemon, names: Names) -> None:
    before = set(os.listdir("/sys/class/net"))
    options = ["--ipv6", "--subnet", "10.233.41.0/24", "--subnet", "ff05:1::/64"]
    assert daemon.docker("network", "create", *options, names("n")).code == 1
    assert {name for name in set(os.listdir("/sys/class/net")) - before if name.startswith("br-")} == set()


def test_a_container_without_a_network_joins_none(daemon: Daemon, names: Names) -> None:
    alone = names.sleeper("alone", "--network", "none")
    refused = daemon.docker("network", "connect", names.network("n"), alone)
    assert "multiple networks with one of the networks in private (none) mode" in refused.err


def test_settings_of_the_kernels_for_one_interface(daemon: Daemon, names: Names) -> None:
    option = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    container = names.sleeper("c", "--network", f"name={names.network('n')},{option}")
    assert inside(daemon, container, "cat /proc/sys/net/ipv4/conf/eth0/log_martians") == "1"


def test_events_tell_of_networks(daemon: Daemon, names: Names) -> None:
    since = daemon.docker_ok("info", "--format", "{{.SystemTime}}")
    network = names.network("n")
    container = names.sleeper("c")
    daemon.docker_ok("network", "connect", network, container)
    daemon.docker_ok("network", "disconnect", network, container)
    daemon.docker_ok("network", "rm", network)
    until = daemon.docker_ok("info", "--format", "{{.SystemTime}}")
    options = ["--since", since, "--until", until, "--filter", "type=network", "--filter", f"network={network}"]
    events = [json.loads(line) for line in daemon.docker_ok("events", *options, "--format", "{{json .}}").splitlines()]
    assert [event["Action"] for event in events] == ["create", "connect", "disconnect", "destroy"]
    assert all(event["Actor"]["Attributes"]["type"] == "bridge" for event in events)
