"""Clients that leave, or stay and do not read, harm nobody but themselves."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

from conftest import Daemon

_MUCH = "i=0; while [ $i -lt 20000 ]; do echo a line of some length, number $i; i=$((i+1)); done"


def _attach(daemon: Daemon, container: str, fields: str = "") -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(daemon.socket_path))
    path = f"/containers/{container}/attach?stream=1&stdout=1&stderr=1"
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
    return client


def test_a_client_that_leaves_before_it_is_attached_does_not_block_the_container(own_daemon: Daemon) -> None:
    container = own_daemon.docker_ok("create", "busybox", "sh", "-c", _MUCH)
    for _ in range(3):
        _attach(own_daemon, container, "Content-Length: 10\r\n").close()
    own_daemon.docker_ok("start", container)
    assert own_daemon.docker_ok("wait", container) == "0"
    assert own_daemon.docker_ok("logs", "--tail", "1", container).endswith("number 19999")


def test_a_client_that_never_reads_does_not_keep_a_killed_container_running(own_daemon: Daemon) -> None:
    container = own_daemon.docker_ok("create", "busybox", "yes", "a line that nobody takes")
    client = _attach(own_daemon, container)
    assert client.recv(12).startswith(b"HTTP/1.1")
    own_daemon.docker_ok("start", container)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(own_daemon.docker_ok, "wait", container)
        own_daemon.docker_ok("kill", container)
        assert waiting.result(30) == "137"
    assert not json.loads(own_daemon.docker_ok("inspect", container))[0]["State"]["Running"]
    own_daemon.docker_ok("start", container)
    own_daemon.docker_ok("rm", "-f", container)
    client.close()
    assert "ERROR" not in own_daemon.log


def test_a_client_that_attaches_as_the_container_ends_is_told_the_end(own_daemon: Daemon) -> None:
    def attach(container: str) -> bool:
        client = _attach(own_daemon, container)
        client.settimeout(30)
        while client.recv(65536):
            pass
        client.close()
        return True

    for pause in ("0", "0.02", "0.05"):
        container = own_daemon.docker_ok("run", "-d", "busybox", "sleep", pause)
        running = own_daemon.docker_ok("inspect", "-f", "{{.State.Running}}", container) == "true"
        if running:
            with ThreadPoolExecutor(8) as pool:
                attached = [pool.submit(attach, container) for _ in range(8)]
                own_daemon.docker_ok("wait", container)
                own_daemon.docker_ok("rm", container)
                assert all(a.result(30) for a in attached)
