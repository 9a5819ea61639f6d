"""How a container is joined to networks, and its ports to the host's."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from compat.matrix.lab import Cases, Lab

CASES = Cases()


def _joined(**endpoint: Any) -> dict[str, Any]:
    return {"NetworkingConfig": {"EndpointsConfig": {"bridge": endpoint}}}


@CASES.covers("HostConfig: NetworkMode")
def modes(lab: Lab) -> None:
    links = "ls /sys/class/net | grep -v ^bonding || true"
    assert lab.run(links, host={"network_mode": "none"}) == "lo"
    assert lab.run(links, host={"network_mode": "bridge"}).split() == ["eth0", "lo"]
    own = os.readlink("/proc/self/ns/net")
    assert lab.run("readlink /proc/self/ns/net", host={"network_mode": "host"}) == own
    donor = lab.start(hostname="donor")
    host = {"network_mode": f"container:{donor}"}
    told = lab.run("readlink /proc/self/ns/net; hostname; cat /sys/class/net/eth0/address", host=host).splitlines()
    assert told == [
        lab.execute(donor, "readlink /proc/self/ns/net"),
        "donor",
        lab.execute(donor, "cat /sys/class/net/eth0/address"),
    ]
    assert lab.api.inspect_container(lab.made[-1])["HostConfig"]["NetworkMode"] == f"container:{donor}"
    lab.refused([400], "hostname and the network mode", host=host, hostname="x")
    lab.refused([404], "nosuch", host={"network_mode": "nosuch"}, starts=True)


CASES.shows("HostConfig: Dns DnsSearch DnsOptions", "cat /etc/resolv.conf | grep -v '^#' | sort",
            "nameserver 192.0.2.1\noptions ndots:3 timeout:1\nsearch a.test b.test",
            host={"dns": ["192.0.2.1"], "dns_search": ["a.test", "b.test"], "dns_opt": ["ndots:3", "timeout:1"]})  # fmt: skip
CASES.shows("HostConfig: DnsSearch", "grep -c ^search /etc/resolv.conf || true", "0", host={"dns_search": ["."]})
CASES.refuses(
    "HostConfig: Dns",
    [400, 500],
    "bogus",
    host={"dns": ["bogus"]},
    starts=True,
)
CASES.shows(
    "HostConfig: ExtraHosts", "grep -c -E '^192.0.2.9\\s+far$' /etc/hosts", "1", host={"extra_hosts": ["far:192.0.2.9"]}
)
CASES.refuses("HostConfig: ExtraHosts", [400], "add-host", host={"extra_hosts": ["bogus"]})


@CASES.covers("HostConfig: ExtraHosts")
def the_host_s_gateway(lab: Lab) -> None:
    gateway = lab.api.inspect_network("bridge")["IPAM"]["Config"][0]["Gateway"]
    told = lab.run("grep outside /etc/hosts", host={"extra_hosts": ["outside:host-gateway"]})
    assert told.split() == [gateway, "outside"]


@CASES.covers("HostConfig: Links")
def links(lab: Lab) -> None:
    name = lab.name()
    other = lab.start(query={"name": name}, environment=["SECRET=1"], ports=[80])
    address = lab.api.inspect_container(other)["NetworkSettings"]["IPAddress"]
    told = lab.run("grep there /etc/hosts; env", host={"links": {name: "there"}})
    assert told.split()[:2] == [address, "there"]
    assert f"THERE_PORT_80_TCP_ADDR={address}" in told
    assert "THERE_ENV_SECRET=1" in told
    me = lab.api.inspect_container(lab.made[-1])
    assert me["HostConfig"]["Links"] == [f"/{name}:{me['Name']}/there"]
    lab.refused([400, 404], "nosuch", host={"Links": ["nosuch:x"]})
    lab.refused([400], "links", host={"Links": [f"{name}:x"], "network_mode": "host"})


def _heard(port: int) -> bytes:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 10) as connection:
        return connection.recv(100)
    return b""


@CASES.covers("HostConfig: PortBindings PublishAllPorts\nPortBinding: HostIp HostPort")
def published_ports(lab: Lab) -> None:
    binding = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    serve = "while :; do echo answer | nc -l -p 80; done"
    for host in ({"PortBindings": binding}, {"publish_all_ports": True}):
        container = lab.start(serve, host=host, ExposedPorts={"80/tcp": {}})
        (place, *_) = lab.api.inspect_container(container)["NetworkSettings"]["Ports"]["80/tcp"]
        assert place["HostIp"] == ("127.0.0.1" if "PortBindings" in host else "0.0.0.0")
        answer = lab.until(partial(_heard, int(place["HostPort"])), "an answer at the published port")
        assert answer == b"answer\n"
        lab.refused([500], "port is already allocated", host={"PortBindings": {"80/tcp": [place]}}, starts=True)
    lab.refused([400], "invalid port", host={"PortBindings": {"80/tcp": [{"HostPort": "x"}]}})
    lab.refused([400], "invalid IP address", host={"PortBindings": {"80/tcp": [{"HostIp": "x", "HostPort": "80"}]}})
    assert lab.run("echo ran", host={"publish_all_ports": True}) == "ran"


@CASES.covers("create: NetworkingConfig\nNetworkingConfig: EndpointsConfig\nEndpointSettings: MacAddress")
def a_hardware_address(lab: Lab) -> None:
    address = "02:42:ac:11:00:79"
    container = lab.start(**_joined(MacAddress=address))
    assert lab.execute(container, "cat /sys/class/net/eth0/address") == address
    settings = lab.api.inspect_container(container)["NetworkSettings"]
    assert settings["Networks"]["bridge"]["MacAddress"] == settings["MacAddress"] == address
    lab.refused([400], "invalid MAC address", **_joined(MacAddress="bogus"))


@CASES.covers(
    "EndpointSettings: NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames"
)
def what_only_answers_have(lab: Lab) -> None:
    """A client that sends an answer back changes nothing by it."""
    untrue: dict[str, Any] = {
        "NetworkID": "0" * 64,
        "EndpointID": "1" * 64,
        "Gateway": "192.0.2.1",
        "IPAddress": "192.0.2.2",
    }
    untrue |= {"IPv6Gateway": "fd00::1", "GlobalIPv6Address": "fd00::2", "DNSNames": ["x"]}
    container = lab.start(**_joined(**untrue, IPPrefixLen=9, GlobalIPv6PrefixLen=9))
    shown = lab.api.inspect_container(container)["NetworkSettings"]["Networks"]["bridge"]
    assert shown["NetworkID"] == lab.api.inspect_network("bridge")["Id"]
    assert f"inet {shown['IPAddress']}/{shown['IPPrefixLen']} " in lab.execute(container, "ip -4 addr show eth0")
    assert f"via {shown['Gateway']} " in lab.execute(container, "ip route")
    assert not {"192.0.2.1", "192.0.2.2"} & {shown["IPAddress"], shown["Gateway"]}
    assert not {"0" * 64, "1" * 64} & {shown["NetworkID"], shown["EndpointID"]}
    assert (shown["GlobalIPv6Address"], shown["IPv6Gateway"], shown["DNSNames"]) == ("", "", None)


CASES.refuses(
    "EndpointSettings: MacAddress\ncreate: MacAddress",
    [400],
    "MAC address",
    "match",
    mac_address="02:42:ac:11:00:7a",
    **_joined(MacAddress="02:42:ac:11:00:7b"),
)


@CASES.covers("EndpointSettings: GwPriority")
def a_gateway_s_rank(lab: Lab) -> None:
    container = lab.start(**_joined(GwPriority=7))
    assert lab.api.inspect_container(container)["NetworkSettings"]["Networks"]["bridge"]["GwPriority"] == 7


CASES.refuses("EndpointSettings: Aliases", [400], "aliases", "user-defined networks", **_joined(Aliases=["a"]))
CASES.refuses("EndpointSettings: Links", [400, 501], "link", **_joined(Links=["nosuch:x"]))


@CASES.covers(
    "NetworkingConfig: EndpointsConfig\nEndpointSettings: Aliases Links IPAMConfig\n"
    "EndpointIPAMConfig: IPv4Address IPv6Address LinkLocalIPs"
)
def a_network_of_the_user_s(lab: Lab) -> None:
    ipam = {"Config": [{"Subnet": "10.232.77.0/24"}, {"Subnet": "fd77::/64"}]}
    name = lab.name()
    lab.api.create_network(name, ipam=ipam, enable_ipv6=True)
    lab.networks.append(name)
    addresses = {"IPv4Address": "10.232.77.7", "IPv6Address": "fd77::7", "LinkLocalIPs": ["169.254.9.9"]}
    endpoint = {"Aliases": ["other"], "IPAMConfig": addresses}
    networking: Any = {"NetworkingConfig": {"EndpointsConfig": {name: endpoint}}}
    container = lab.start(host={"network_mode": name}, hostname="named", **networking)
    shown = lab.api.inspect_container(container)["NetworkSettings"]["Networks"][name]
    assert (shown["IPAddress"], shown["GlobalIPv6Address"]) == ("10.232.77.7", "fd77::7")
    assert {"other", "named", container[:12]} < set(shown["DNSNames"])
    told = lab.execute(container, "ip addr show eth0")
    assert all(f" {address}/" in told for address in ("10.232.77.7", "fd77::7", "169.254.9.9"))
    linking: Any = {"NetworkingConfig": {"EndpointsConfig": {name: {"Links": ["other:nickname"]}}}}
    ping = "ping -c 1 other >/dev/null && ping -c 1 nickname >/dev/null && echo found"
    assert lab.run(ping, host={"network_mode": name}, **linking) == "found"
    wrong = {"NetworkingConfig": {"EndpointsConfig": {name: {"IPAMConfig": {"IPv4Address": "10.9.9.9"}}}}}
    lab.refused([400], "10.9.9.9", host={"network_mode": name}, starts=True, **wrong)


CASES.refuses("EndpointSettings: DriverOpts", [400, 501], "driver option", **_joined(DriverOpts={"a": "b"}))
CASES.refuses("EndpointSettings: IPAMConfig\nEndpointIPAMConfig: IPv4Address", [400], "user defined networks only",
              **_joined(IPAMConfig={"IPv4Address": "10.1.2.3"}))  # fmt: skip
CASES.refuses(
    "EndpointIPAMConfig: IPv6Address",
    [400],
    "user defined networks only",
    **_joined(IPAMConfig={"IPv6Address": "fd00::9"}),
)
CASES.refuses("EndpointIPAMConfig: LinkLocalIPs", [400], "link-local",
              **_joined(IPAMConfig={"LinkLocalIPs": ["10.0.0.1"]}))  # fmt: skip
CASES.refuses("NetworkingConfig: EndpointsConfig", [404], "nosuch", starts=True,
              NetworkingConfig={"EndpointsConfig": {"nosuch": {}}})  # fmt: skip
