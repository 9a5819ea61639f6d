"""``lamina port``: what docker prints for the same container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import canned
from conftest import Daemon

_PORTS = {
    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    "443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "10443"}, {"HostIp": "127.0.0.1", "HostPort": "9443"}],
    "53/udp": [{"HostIp": "", "HostPort": "53"}],
    "8080/tcp": None,
    "9000/tcp": [],
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[canned.Canned]:
    """Containers with ports, and without."""
    answers = {
        "/containers/c/json": {"Id": "c" * 64, "NetworkSettings": {"Ports": _PORTS}},
        "/containers/none/json": {"Id": "d" * 64, "NetworkSettings": {"Ports": {}}},
    }
    directory: Path = tmp_path_factory.mktemp("ports")
    with canned.serving(directory, answers) as served:
        yield served


@pytest.mark.parametrize(
    "words", ["c", "c 80", "c 80/tcp", "c 80/udp", "c 443", "c 53/udp", "c 8080", "c 9000", "c x", "c 70000", "none"]
)
def test_ports_are_shown_as_docker_shows_them(published: canned.Canned, words: str) -> None:
    assert published.lamina("port", *words.split()) == published.docker("port", *words.split())


def test_a_container_has_none_until_it_is_given_some(daemon: Daemon) -> None:
    daemon.docker_ok("create", "--name", "unpublished", "busybox", "true")
    assert daemon.lamina_ok("port", "unpublished") == ""
    assert daemon.lamina("port", "unpublished", "80").err == "Error: No public port '80' published for unpublished\n"
    assert daemon.lamina("port", "nothing").err == "Error response from daemon: No such container: nothing\n"
    assert "requires at least 1 and at most 2 arguments" in daemon.lamina("port").err
    daemon.docker_ok("rm", "unpublished")
