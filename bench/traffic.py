"""Work with networks: joining one of the user's own, and what goes over it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench.corpus import Corpus
from bench.engines import Engine

_NETWORK = "own"
_MOVED = "8G"
_PORT = 18080
_REQUESTS = 3000
_CLIENTS = 8
_SERVE = "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"


def run_in_own_network(engine: Engine, corpus: Corpus) -> float:
    """``run --rm`` in a network that somebody made."""
    with _network(engine):
        return engine.timed("run", "--rm", "--network", _NETWORK, "busybox", "true")


def move(engine: Engine, corpus: Corpus) -> float:
    """8 GB by iperf3 from one container to another; it is the host's program, inside the containers' networks."""
    with _network(engine), _container(engine, "server"), _container(engine, "client"):
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = engine.run("inspect", "-f", form, "server")
        inside = {name: _inside(engine, name) for name in ("server", "client")}
        serving = subprocess.Popen([*inside["server"], "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
        try:
            _wait_for_listener(inside["server"])
            start = time.perf_counter()
            argv = [*inside["client"], "iperf3", "-c", address, "-n", _MOVED]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start
        finally:
            serving.kill()
            serving.wait()


def request_published(engine: Engine, corpus: Corpus) -> float:
    """3,000 requests to a published port of the host's, eight at a time, each by a connection of its own."""
    options = ("-d", "--name", "web", "-p", f"127.0.0.1:{_PORT}:80")
    engine.run("run", *options, "busybox", "sh", "-c", _SERVE)
    try:
        deadline = time.monotonic() + 20
        while not _requested():
            if time.monotonic() > deadline:
                raise TimeoutError("the published port does not answer")
            time.sleep(0.05)
        start = time.perf_counter()
        with ThreadPoolExecutor(_CLIENTS) as pool:
            answered = sum(pool.map(lambda _: _requested(), range(_REQUESTS)))
        elapsed = time.perf_counter() - start
        if answered != _REQUESTS:
            raise ConnectionError(f"{_REQUESTS - answered} of {_REQUESTS} requests were not answered")
        return elapsed
    finally:
        engine.run("rm", "-f", "web")


def _requested() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", _PORT), 10) as one:
            one.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            answer = b""
            while part := one.recv(4096):
                answer += part
    except OSError:
        return False
    return answer.endswith(b"hello\n")


@contextmanager
def _network(engine: Engine) -> Iterator[None]:
    engine.run("network", "create", _NETWORK)
    try:
        yield
    finally:
        engine.run("network", "rm", _NETWORK)


@contextmanager
def _container(engine: Engine, name: str) -> Iterator[None]:
    engine.run("run", "-d", "--name", name, "--network", _NETWORK, "busybox", "sleep", "1000")
    try:
        yield
    finally:
        engine.run("rm", "-f", name)


def _inside(engine: Engine, name: str) -> list[str]:
    pid = engine.run("inspect", "-f", "{{.State.Pid}}", name)
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _wait_for_listener(inside: list[str]) -> None:
    deadline = time.monotonic() + 10
    while ":5201" not in subprocess.run([*inside, "ss", "-ltn"], capture_output=True, text=True, check=True).stdout:
        if time.monotonic() > deadline:
            raise TimeoutError("iperf3 does not listen")
        time.sleep(0.02)
