"""The daemon is killed again and again while thirty containers are at work: nothing of theirs is lost or doubled."""

from __future__ import annotations

import json
import random
import socket
import time
from contextlib import suppress
from typing import Any

from conftest import Daemon
from waiting import wait_until

KILLS = 20
LINES = 60
WAIT_S = 90
TALKERS = [f"talker-{n}" for n in range(10)]
ENDING = {f"ending-{n}": (n * 37) % 256 for n in range(8)}
RETURNING = [f"returning-{n}" for n in range(4)]
CHECKED = [f"checked-{n}" for n in range(4)]
STAYING = [f"staying-{n}" for n in range(3)]
PASSING = "passing"
PORT = 28080


def begin(daemon: Daemon) -> None:
    run = ("run", "-d", "--name")
    for name in TALKERS:
        script = f"i=0; while [ $i -lt {LINES * 10} ]; do echo line $i; i=$((i+1)); usleep 50000; done; exit 9"
        daemon.docker_ok(*run, name, "busybox", "sh", "-c", script)
    for number, (name, code) in enumerate(ENDING.items()):
        daemon.docker_ok(*run, name, "busybox", "sh", "-c", f"sleep {1 + number * 2}; exit {code}")
    for name in RETURNING:
        daemon.docker_ok(*run, name, "--restart", "on-failure:3", "busybox", "sh", "-c", "echo turn; sleep 2; exit 7")
    for name in CHECKED:
        options = ("--health-cmd", "test -e /bin/sh", "--health-interval", "500ms")
        daemon.docker_ok(*run, name, *options, "busybox", "sleep", "1000")
    for number, name in enumerate(STAYING):
        options = ("-v", f"{name}:/data", "-p", f"{PORT + number}:80")
        daemon.docker_ok(*run, name, *options, "busybox", "nc", "-ll", "-p", "80", "-e", "echo", name)
    daemon.docker_ok(*run, PASSING, "--rm", "busybox", "sleep", "4")


def answer_of(number: int) -> str:
    """What a container that stays says at its published port."""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", PORT + number), 10) as one:
        return one.recv(100).decode().strip()
    return ""


def states(daemon: Daemon) -> dict[str, dict[str, Any]]:
    names = [*TALKERS, *ENDING, *RETURNING, *CHECKED, *STAYING]
    return {found["Name"].lstrip("/"): found for found in json.loads(daemon.docker_ok("inspect", *names))}


def test_containers_do_not_notice_their_daemon_s_deaths(own_daemon: Daemon) -> None:
    chance = random.Random(4711)
    begin(own_daemon)
    wait_until(lambda: [answer_of(number) for number in range(len(STAYING))] == STAYING, "answers at published ports")
    pids = {name: found["State"]["Pid"] for name, found in states(own_daemon).items() if name in (*CHECKED, *STAYING)}
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 0.8))
        own_daemon.kill()
        assert [answer_of(number) for number in range(len(STAYING))] == STAYING
        time.sleep(chance.uniform(0, 0.3))
        own_daemon.start()
    deadline = time.monotonic() + WAIT_S
    waited_for = [*TALKERS, *ENDING, *RETURNING]
    while any(states(own_daemon)[name]["State"]["Status"] != "exited" for name in waited_for):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    found = states(own_daemon)
    for name in TALKERS:
        assert found[name]["State"]["ExitCode"] == 9
        assert own_daemon.docker_ok("logs", name).splitlines() == [f"line {n}" for n in range(LINES * 10)], name
    assert {name: found[name]["State"]["ExitCode"] for name in ENDING} == ENDING
    for name in RETURNING:
        assert (found[name]["State"]["ExitCode"], found[name]["RestartCount"]) == (7, 3)
        assert own_daemon.docker_ok("logs", name).splitlines() == ["turn"] * 4
    for name, pid in pids.items():
        assert (found[name]["State"]["Status"], found[name]["State"]["Pid"]) == ("running", pid)
    for name in CHECKED:
        while (health := states(own_daemon)[name]["State"]["Health"]["Status"]) != "healthy":
            assert time.monotonic() < deadline, health
            time.sleep(0.1)
    assert own_daemon.docker("inspect", PASSING).code == 1
    shown = own_daemon.docker_ok("ps", "-aq").split()
    assert len(shown) == len(found)
