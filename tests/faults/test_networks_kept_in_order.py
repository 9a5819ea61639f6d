"""Joining and leaving over and over, daemons that are killed and told to clean up: nothing of a network stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker

from conftest import Daemon, leftovers
from named import Names, inspected, resolver_pid
from waiting import wait_until

ROUNDS = 200


def interfaces() -> set[str]:
    return {
        link["ifname"]
        for link in json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    }


def rules(daemon: Daemon) -> str:
    return subprocess.run(
        ["nft", "list", "table", "inet", daemon.table], capture_output=True, text=True, check=True
    ).stdout


def test_two_hundred_times_joined_and_left(own_daemon: Daemon) -> None:
    """The subnet has room for five: an address that is not given back is missed soon."""
    names = Names(own_daemon)
    network = names.network("n", "--subnet", "10.233.30.0/29", "--ipv6")
    containers = [names.sleeper(f"c{number}") for number in range(4)]
    wait_until(lambda: len(interfaces() & links_of(own_daemon)) == 6, "two endpoints made ahead")
    before = interfaces(), rules(own_daemon)
    api = docker.APIClient(base_url=own_daemon.host, version="1.51")

    def go_round(container: str) -> None:
        for _ in range(ROUNDS // len(containers)):
            api.connect_container_to_network(container, network, aliases=[f"a-{container}"])
            api.disconnect_container_from_network(container, network)

    with ThreadPoolExecutor(len(containers)) as pool:
        list(pool.map(go_round, containers))
    api.close()
    wait_until(lambda: (interfaces(), rules(own_daemon)) == before, "interfaces and rules as they were")
    assert inspected(own_daemon, "network", network)["Containers"] == {}
    for container in containers:
        assert own_daemon.docker_ok("exec", container, "ls", "/sys/class/net").split() == ["eth0", "lo"]
    names.remove()


def links_of(daemon: Daemon) -> set[str]:
    found = json.loads(
        subprocess.run(["ip", "-j", "link", "show", "master", daemon.bridge], capture_output=True, check=True).stdout
    )
    return {link["ifname"] for link in found}


def test_many_containers_with_ports_come_and_go(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    network = names.network("n")
    before = interfaces(), rules(own_daemon)

    def pass_by(number: int) -> None:
        own_daemon.docker_ok(
            "run", "--rm", "--network", network, "-p", "80", "-p", f"{29000 + number}:81/udp", "busybox", "true"
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pass_by, range(24)))
    wait_until(lambda: (interfaces(), rules(own_daemon)) == before, "interfaces and rules as they were")
    names.remove()


def test_networks_outlive_their_daemon(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    network = names.network("n", "--label", "kept=yes", "--ipv6")
    container = names.sleeper("c", "--network", network)
    shown = inspected(own_daemon, "network", network)
    own_daemon.kill()
    own_daemon.start()
    assert inspected(own_daemon, "network", network) == shown
    other = names.sleeper("other", "--network", network)
    assert own_daemon.docker("exec", other, "ping", "-c", "1", "-W", "2", container).code == 0
    own_daemon.docker_ok("network", "disconnect", network, container)
    own_daemon.docker_ok("network", "connect", network, container)
    own_daemon.docker_ok("rm", "-f", container, other)
    own_daemon.stop()
    own_daemon.start()
    assert inspected(own_daemon, "network", network)["Id"] == shown["Id"]
    names.remove()


def test_what_a_killed_daemon_left_is_cleaned_up_when_it_is_told_to(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    container = names.sleeper("c", "--network", names.network("n"), "-p", "80", "--restart", "always")
    own_daemon.network_ids = own_daemon.docker_ok("network", "ls", "-q", "--filter", "type=custom").split()
    own_daemon.kill()
    assert leftovers(own_daemon) != []
    roots: list[str | Path] = [
        "--root",
        own_daemon.root,
        "--run-root",
        own_daemon.run_root,
        "--bridge",
        own_daemon.bridge,
    ]
    roots += ["--nft-table", own_daemon.table, "--cgroup-parent", own_daemon.cgroup]
    assert own_daemon.lamina_ok("daemon", "--clean-up", *roots) == ""
    assert leftovers(own_daemon) == []
    own_daemon.start()
    wait_until(
        lambda: own_daemon.docker_ok("inspect", "-f", "{{.State.Status}}", container) == "running",
        "what is always to run",
    )
    names.remove()


def test_a_daemon_that_is_killed_while_a_container_joins(own_daemon: Daemon) -> None:
    """The resolver does not answer, so that the container has its interface already and is not recorded to be there."""
    names = Names(own_daemon)
    first, second = names.network("a"), names.network("b")
    container = names.sleeper("c", "--network", first)
    resolver = resolver_pid(own_daemon)
    os.kill(resolver, signal.SIGSTOP)
    try:
        joining = subprocess.Popen(
            ["docker", "-H", own_daemon.host, "network", "connect", second, container], stderr=subprocess.DEVNULL
        )
        inside = ["exec", container, "ls", "/sys/class/net"]
        wait_until(lambda: "eth1" in own_daemon.docker(*inside).out, "the second interface")
        own_daemon.kill()
        joining.wait(10)
    finally:
        os.kill(resolver, signal.SIGCONT)
    own_daemon.start()
    assert own_daemon.docker_ok("exec", container, "ls", "/sys/class/net").split() == ["eth0", "lo"]
    gateway = inspected(own_daemon, "network", first)["IPAM"]["Config"][0]["Gateway"]
    assert f"default via {gateway}" in own_daemon.docker_ok("exec", container, "ip", "route")
    own_daemon.docker_ok("network", "connect", second, container)
    names.remove()


def test_a_network_goes_or_a_container_joins_it_but_not_both(own_daemon: Daemon) -> None:
    names = Names(own_daemon)
    api = docker.APIClient(base_url=own_daemon.host, version="1.51")
    for number in range(3):
        network = names.network(f"n{number}")
        container = names.sleeper(f"c{number}", "--network", network)
        own_daemon.docker_ok("stop", "-t", "0", container)
        with ThreadPoolExecutor(2) as pool:
            starting = pool.submit(own_daemon.docker, "start", container)
            time.sleep(0.016 * number)
            removing = pool.submit(_removes, api, network)
            started, removed = starting.result().code == 0, removing.result()
        assert started != removed, (number, started, removed)
        own_daemon.docker_ok("rm", "-f", container)
    api.close()
    names.remove()
    wait_until(lambda: not [name for name in interfaces() if name.startswith("br-")], "no bridge")


def _removes(api: docker.APIClient, network: str) -> bool:
    try:
        api.remove_network(network)
    except docker.errors.APIError:
        return False
    return True


def test_a_volume_is_restored_or_used_but_not_both(own_daemon: Daemon) -> None:
    own_daemon.docker_ok("run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    own_daemon.lamina_ok("volume", "snapshot", "create", "kept", "s")
    for number in range(12):
        own_daemon.docker_ok("create", "--name", "user", "-v", "kept:/data", "busybox", "sleep", "1000")
        with ThreadPoolExecutor(2) as pool:
            restoring = pool.submit(own_daemon.lamina, "volume", "snapshot", "restore", "kept", "s")
            time.sleep(0.015 * number)
            starting = pool.submit(own_daemon.docker, "start", "user")
            restoring.result()
            assert starting.result().code == 0
        own_daemon.docker_ok("exec", "user", "sh", "-c", f"echo {number} > /data/number")
        assert (own_daemon.root / "volume" / "kept" / "_data" / "number").read_text() == f"{number}\n", number
        own_daemon.docker_ok("rm", "-f", "user")
