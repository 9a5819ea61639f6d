"""A daemon that is killed loses nothing: containers run on, and the next daemon finds them."""

from __future__ import annotations

import json
import time

from conftest import Daemon


def test_running_containers_their_logs_and_exit_codes_survive_a_killed_daemon(own_daemon: Daemon) -> None:
    script = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 6"
    working = own_daemon.docker_ok("run", "-d", "busybox", "sh", "-c", script)
    waiting = own_daemon.docker_ok("run", "-d", "--name", "waiting", "busybox", "sleep", "600")
    brief = own_daemon.docker_ok("run", "-d", "busybox", "sh", "-c", "sleep 0.3; exit 4")
    pid = json.loads(own_daemon.docker_ok("inspect", waiting))[0]["State"]["Pid"]
    own_daemon.kill()
    time.sleep(1)
    own_daemon.start()
    state = json.loads(own_daemon.docker_ok("inspect", waiting))[0]["State"]
    assert (state["Running"], state["Pid"]) == (True, pid)
    assert own_daemon.docker_ok("wait", brief) == "4"
    assert own_daemon.docker_ok("wait", working) == "6"
    assert own_daemon.docker_ok("logs", working).split("\n") == [f"line {i}" for i in range(30)]
    own_daemon.docker_ok("stop", "-t", "0", waiting)
    own_daemon.docker_ok("start", waiting)


def test_a_removing_container_that_ended_without_a_daemon_is_removed_by_the_next(own_daemon: Daemon) -> None:
    container = own_daemon.docker_ok("run", "-d", "--rm", "busybox", "sleep", "0.3")
    own_daemon.kill()
    time.sleep(0.6)
    own_daemon.start()
    deadline = time.monotonic() + 5
    while own_daemon.docker("inspect", container).code == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_daemon_on_the_same_root_is_refused(own_daemon: Daemon) -> None:
    result = own_daemon.lamina(
        "daemon", "--root", own_daemon.root, "--run-root", own_daemon.run_root, "--host", f"{own_daemon.host}2"
    )
    assert result.code == 1
    assert "in use by another lamina daemon" in result.err


def test_a_daemon_that_ends_leaves_running_containers_alone(own_daemon: Daemon) -> None:
    container = own_daemon.docker_ok("run", "-d", "busybox", "sleep", "600")
    assert own_daemon.stop() == 0
    own_daemon.start()
    assert json.loads(own_daemon.docker_ok("inspect", container))[0]["State"]["Running"]


def test_a_removing_container_that_was_never_started_is_removed_by_the_next_daemon(own_daemon: Daemon) -> None:
    own_daemon.docker_ok("create", "--rm", "-v", "/data", "busybox", "true")
    own_daemon.kill()
    own_daemon.start()
    assert own_daemon.docker_ok("ps", "-aq") == ""
    assert own_daemon.docker_ok("volume", "ls", "-q") == ""


def test_the_next_daemon_tells_of_what_happened_before_it(own_daemon: Daemon) -> None:
    own_daemon.docker_ok("run", "--rm", "--name", "before", "busybox", "true")
    shown = ("events", "--since", "10m", "--until", "0s", "--filter", "container=before", "--format", "{{.Action}}")
    deadline = time.monotonic() + 20
    while "destroy" not in own_daemon.docker_ok(*shown):
        assert time.monotonic() < deadline, "the container does not go"
        time.sleep(0.05)
    own_daemon.stop()
    own_daemon.start()
    assert own_daemon.docker_ok(*shown).split() == ["create", "attach", "start", "die", "destroy"]
