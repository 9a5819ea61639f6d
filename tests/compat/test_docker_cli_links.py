"""Links between containers on the default bridge: names in /etc/hosts, and variables."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conftest import Daemon


@pytest.fixture
def linked(daemon: Daemon) -> Iterator[str]:
    """A container that answers on a port."""
    options = ["-h", "host-of-it", "-e", "COLOR=red", "--expose", "81", "--expose", "80", "--expose", "53/udp"]
    daemon.docker_ok(
        "run", "-d", "--name", "linked", *options, "busybox", "sh", "-c", "while :; do echo hi | nc -l -p 80; done"
    )
    yield daemon.docker_ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "linked").strip()
    daemon.docker("rm", "-f", "linked", "linker")


def test_a_link_is_a_name_and_an_address(daemon: Daemon, linked: str) -> None:
    out = daemon.docker_ok("run", "--rm", "--link", "linked:my-db", "busybox", "cat", "/etc/hosts")
    assert f"{linked}\tmy-db host-of-it linked" in out
    script = "nc -w 2 my-db 80 </dev/null; ping -c 1 linked >/dev/null && echo found"
    assert daemon.docker_ok("run", "--rm", "--link", "linked:my-db", "busybox", "sh", "-c", script).endswith("found")


def test_a_link_is_told_in_variables(daemon: Daemon, linked: str) -> None:
    lines = daemon.docker_ok("run", "--rm", "--name", "linker", "--link", "linked:my-db", "busybox", "env").splitlines()
    told = dict(line.split("=", 1) for line in lines)
    assert told["MY_DB_NAME"] == "/linker/my-db"
    assert told["MY_DB_PORT"] == f"tcp://{linked}:80"
    assert told["MY_DB_PORT_80_TCP_ADDR"] == linked
    assert (told["MY_DB_PORT_53_UDP_PORT"], told["MY_DB_PORT_53_UDP_PROTO"]) == ("53", "udp")
    assert told["MY_DB_PORT_80_TCP_END"] == f"tcp://{linked}:81"
    assert told["MY_DB_ENV_COLOR"] == "red"
    assert "MY_DB_ENV_PATH" not in told


def test_inspect_shows_a_link_by_the_names_of_both(daemon: Daemon, linked: str) -> None:
    daemon.docker_ok("create", "--name", "linker", "--link", "linked", "--link", "linked:db", "busybox", "true")
    links = json.loads(daemon.docker_ok("inspect", "-f", "{{json .HostConfig.Links}}", "linker"))
    assert links == ["/linked:/linker/linked", "/linked:/linker/db"]
    daemon.docker_ok("rename", "linked", "renamed")
    links = json.loads(daemon.docker_ok("inspect", "-f", "{{json .HostConfig.Links}}", "linker"))
    assert links[0] == "/renamed:/linker/linked"
    daemon.docker_ok("rm", "-f", "renamed")
    assert daemon.docker_ok("inspect", "-f", "{{json .HostConfig.Links}}", "linker").strip() == "null"


def test_a_linked_container_that_comes_back_is_found_again(daemon: Daemon, linked: str) -> None:
    daemon.docker_ok("run", "-d", "--name", "linker", "--link", "linked:db", "busybox", "sleep", "1000")
    daemon.docker_ok("kill", "linked")
    for number in range(3):
        daemon.docker_ok("run", "-d", "--name", f"in-between-{number}", "busybox", "sleep", "1000")
    daemon.docker_ok("start", "linked")
    ip = daemon.docker_ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "linked").strip()
    assert f"{ip}\tdb" in daemon.docker_ok("exec", "linker", "cat", "/etc/hosts")
    daemon.docker_ok("rm", "-f", *(f"in-between-{number}" for number in range(3)))


def test_links_that_cannot_be_are_refused(daemon: Daemon, linked: str) -> None:
    assert "could not get container for nobody" in daemon.docker("create", "--link", "nobody:x", "busybox", "true").err
    assert "bad format for links: a:b:c" in daemon.docker("create", "--link", "a:b:c", "busybox", "true").err
    result = daemon.docker("create", "--network", "host", "--link", "linked:x", "busybox", "true")
    assert "host type networking can't be used with links" in result.err
    daemon.docker_ok("kill", "linked")
    result = daemon.docker("run", "--name", "linker", "--link", "linked:x", "busybox", "true")
    assert "Cannot link to a non running container" in result.err


def test_a_further_process_is_told_of_links_too(daemon: Daemon, linked: str) -> None:
    daemon.docker_ok("run", "-d", "--name", "linker", "--link", "linked:db", "busybox", "sleep", "1000")
    assert f"DB_PORT_80_TCP_ADDR={linked}" in daemon.docker_ok("exec", "linker", "env").splitlines()
    daemon.docker_ok("kill", "linked")
    assert "DB_PORT" not in daemon.docker_ok("exec", "linker", "env")


@pytest.mark.parametrize("command", ["docker", "lamina"])
def test_ps_shows_names_of_links_in_full_alone(daemon: Daemon, linked: str, command: str) -> None:
    daemon.docker_ok("create", "--name", "linker", "--link", "linked:db", "busybox", "true")
    run = getattr(daemon, f"{command}_ok")
    assert run("ps", "--filter", "name=^linked$", "--format", "{{.Names}}").strip() == "linked"
    assert run("ps", "--no-trunc", "--filter", "name=^linked$", "--format", "{{.Names}}").strip() == "linked,linker/db"
