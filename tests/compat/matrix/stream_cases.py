"""What goes in and out of a container: logs, attach, terminals' sizes, statistics, processes, files."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import docker
import pytest
import websocket

from compat.api_specification import check_object
from compat.matrix.lab import TIMEOUT_S, VERSION, Cases, Lab, everything, tar_of

CASES = Cases()
_KEYS = b"\x01\x02"


@CASES.covers("GET /containers/{id}/logs? stdout stderr tail timestamps since until follow")
def logs(lab: Lab) -> None:
    container = lab.start("echo one; echo two >&2; sleep 1.2; echo three")
    lab.api.wait(container)
    logs = lab.api.logs
    assert sorted(logs(container).splitlines()) == [b"one", b"three", b"two"]
    assert logs(container, stderr=False) == b"one\nthree\n"
    assert logs(container, stdout=False) == b"two\n"
    assert logs(container, tail=1) == b"three\n"
    assert logs(container, tail=0) == b""
    assert lab.get(f"/containers/{container}/logs", stdout=1, tail="bogus").content.count(b"\n") == 2
    stamped = logs(container, stderr=False, timestamps=True).decode().splitlines()
    moments = [line.split()[0] for line in stamped]
    assert [line.split()[1] for line in stamped] == ["one", "three"]
    assert all(m.endswith("Z") and len(m.partition(".")[2]) == 10 for m in moments)
    query = {"stdout": 1, "stderr": 0}
    path = f"/containers/{container}/logs"
    assert lab.get(path, **query, since=moments[1]).content[8:] == b"three\n"
    assert lab.get(path, **query, until=moments[0]).content[8:] == b"one\n"
    assert logs(container, since=time.time() + 100) == b""
    assert logs(container, until=1) == b""
    for wrong in ({"stdout": 0, "stderr": 0}, {"stdout": 1, "since": "x"}):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.get(path, **wrong)
        lab.told(raised.value, [400])


@CASES.covers("GET /containers/{id}/logs? follow")
def logs_that_are_followed(lab: Lab) -> None:
    container = lab.start("echo one; while ! test -e /go; do sleep 0.05; done; echo two")
    lines = lab.api.logs(container, follow=True, stream=True)
    with closing(lines):
        assert next(lines) == b"one\n"
        lab.execute(container, "touch /go")
        assert list(lines) == [b"two\n"]


@CASES.covers("POST /containers/{id}/attach? stream stdin stdout stderr logs detachKeys")
def streams(lab: Lab) -> None:
    script = "echo before; read line; echo got $line; echo wrong >&2"
    container = lab.start(script, stdin_open=True)
    lab.until(lambda: lab.api.logs(container) == b"before\n")
    with lab.attached(container, stream=1, stdin=1, stdout=1, stderr=0, logs=1, detachKeys="ctrl-a") as sock:
        sock.sendall(b"this\n")
        told = everything(sock)
    assert told[8:].startswith(b"before\n")
    assert b"got this\n" in told
    assert b"wrong" not in told
    with lab.attached(container, stream=0, stdout=0, stderr=1, logs=1) as sock:
        assert everything(sock) == b"\x02\0\0\0\0\0\0\x06wrong\n"


@CASES.covers("POST /containers/{id}/attach? detachKeys")
def leaving_by_keys(lab: Lab) -> None:
    container = lab.start(["cat"], tty=True, stdin_open=True)
    with lab.attached(container, stream=1, stdin=1, stdout=1, detachKeys="ctrl-a,ctrl-b") as sock:
        sock.sendall(b"hi\n")
        assert sock.recv(64).startswith(b"hi\r\n")
        sock.sendall(_KEYS)
        assert everything(sock) in (b"", b"hi\r\n")
    assert lab.state(container)["Running"]
    with pytest.raises(docker.errors.APIError) as raised:
        lab.post(f"/containers/{container}/attach", stream=1, stdout=1, detachKeys="bogus-keys")
    lab.told(raised.value, [400], "detach keys", "bogus-keys")


@CASES.covers("POST /containers/{id}/attach? detachKeys")
def leaving_is_told(lab: Lab) -> None:
    since = time.time()
    container = lab.start(["cat"], tty=True, stdin_open=True)
    with lab.attached(container, stream=1, stdin=1, stdout=1, detachKeys="ctrl-a,ctrl-b") as sock:
        sock.sendall(_KEYS)
        everything(sock)
    lab.until(lambda: lab.events(since, container=container, event="detach"), timeout_s=2)


@CASES.covers("POST /containers/{id}/attach? stream stdout")
def nobody_joins_what_stands_still(lab: Lab) -> None:
    container = lab.start()
    lab.api.pause(container)
    try:
        with pytest.raises(docker.errors.APIError) as raised:
            with lab.attached(container, stream=1, stdout=1):
                pass
        lab.told(raised.value, [409], "paused")
    finally:
        lab.api.unpause(container)


@contextmanager
def _websocket(lab: Lab, container: str, **query: Any) -> Iterator[Any]:
    words = "&".join(f"{name}={value}" for name, value in query.items())
    lab.sent |= {f"GET /containers/{{id}}/attach/ws?{name}" for name in query}
    url = f"ws://lamina/v{VERSION}/containers/{container}/attach/ws?{words}"
    with closing(lab.unix_socket()) as sock:
        yield websocket.create_connection(url, socket=sock, timeout=TIMEOUT_S)


@CASES.covers("GET /containers/{id}/attach/ws? stream stdin stdout stderr logs detachKeys")
def messages(lab: Lab) -> None:
    container = lab.start("echo before; echo wrong >&2; read line; echo got $line", stdin_open=True)
    lab.until(lambda: len(lab.api.logs(container).splitlines()) == 2)
    with _websocket(
        lab, container, stream=1, stdin=1, stdout=1, stderr=0, logs=1, detachKeys="ctrl-a,ctrl-b"
    ) as joined:
        told = _text(joined.recv())
        assert told == "before\n"
        joined.send("this\n")
        assert _text(joined.recv()) == "got this\n"
    assert lab.api.wait(container)["StatusCode"] == 0


@CASES.covers("GET /containers/{id}/attach/ws? detachKeys stdin stream stderr")
def leaving_messages_by_keys(lab: Lab) -> None:
    container = lab.start(["cat"], tty=True, stdin_open=True)
    with _websocket(lab, container, stream=1, stdin=1, stdout=1, stderr=1, detachKeys="ctrl-a,ctrl-b") as joined:
        joined.send_binary(_KEYS)
        assert not joined.recv()
    assert lab.state(container)["Running"]
    with pytest.raises(websocket.WebSocketBadStatusException) as raised:
        with _websocket(lab, container, stream=1, detachKeys="bogus-keys"):
            pass
    assert raised.value.status_code == 400


def _text(message: Any) -> str:
    return message.decode() if isinstance(message, bytes) else str(message)


@CASES.covers("POST /containers/{id}/resize? h w")
def a_terminal_s_size(lab: Lab) -> None:
    container = lab.start("while ! test -e /go; do sleep 0.05; done; stty size", tty=True)
    since = time.time()
    lab.api.resize(container, height=41, width=99)
    (event,) = lab.events(since, container=container, event="resize")
    assert (event["Actor"]["Attributes"]["height"], event["Actor"]["Attributes"]["width"]) == ("41", "99")
    lab.execute(container, "touch /go")
    lab.api.wait(container)
    assert lab.api.logs(container).strip() == b"41 99"
    for query, status in (({"h": "x", "w": "1"}, 400), ({"h": "1"}, 400), ({"h": "1", "w": "1"}, 409)):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.post(f"/containers/{container}/resize", **query)
        lab.told(raised.value, [status])


@CASES.covers("GET /containers/{id}/stats? stream one-shot")
def statistics(lab: Lab) -> None:
    container = lab.start("while :; do :; done", host={"cpu_quota": 20000, "mem_limit": "64m"})
    once = lab.api.stats(container, stream=False, one_shot=True)
    assert once["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert once["memory_stats"]["limit"] == 64 << 20
    assert once["pids_stats"]["current"] >= 1
    assert once["networks"]["eth0"]["rx_bytes"] >= 0
    twice = lab.api.stats(container, stream=False)
    used = twice["cpu_stats"]["cpu_usage"]["total_usage"] - twice["precpu_stats"]["cpu_usage"]["total_usage"]
    assert 0 < used < 2 * 10**9
    assert twice["read"] > twice["preread"]
    stream = lab.api.stats(container, stream=True, decode=True)
    with closing(stream):
        for _ in range(2):
            found = next(stream)
            check_object("ContainerStatsResponse", found)
            assert found["id"] == container
    lab.api.kill(container)
    lab.api.wait(container)
    ended = lab.api.stats(container, stream=False)
    assert ended["memory_stats"] in ({}, None) or not any(ended["memory_stats"].values())


@CASES.covers("GET /containers/{id}/stats? stream one-shot")
def statistics_of_both_kinds(lab: Lab) -> None:
    container = lab.start()
    with pytest.raises(docker.errors.APIError) as raised:
        with lab.asked("GET", f"/containers/{container}/stats", **{"stream": 1, "one-shot": 1}):
            pass
    lab.told(raised.value, [400], "cannot have stream=true and one-shot=true")


@CASES.covers("GET /containers/{id}/top? ps_args")
def processes(lab: Lab) -> None:
    container = lab.start("sleep 601 & sleep 602; true")
    lab.until(lambda: len(lab.api.top(container)["Processes"]) == 3)
    plain = lab.api.top(container)
    assert plain["Titles"] == "UID PID PPID C STIME TTY TIME CMD".split()
    assert sorted(row[-1] for row in plain["Processes"])[-2:] == ["sleep 601", "sleep 602"]
    other = lab.api.top(container, ps_args="-o pid,args")
    assert other["Titles"] == ["PID", "COMMAND"]
    assert [row[0] for row in other["Processes"]] == [row[1] for row in plain["Processes"]]
    for wrong in ("-o args", "--bogus"):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.api.top(container, ps_args=wrong)
        lab.told(raised.value, [400, 500])
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.top(lab.create())
    lab.told(raised.value, [409, 500], "is not running")


@CASES.covers("HEAD /containers/{id}/archive? path\nGET /containers/{id}/archive? path")
def files_out(lab: Lab) -> None:
    container = lab.start("mkdir /d; echo text > /d/f; ln -s f /d/l; exec sleep 600")
    lab.until(lambda: lab.execute(container, "readlink /d/l") == "f")
    chunks, stat = lab.api.get_archive(container, "/d")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.getnames() == ["d", "d/f", "d/l"]
        member = tar.extractfile("d/f")
        assert member is not None and member.read() == b"text\n"
    assert (stat["name"], stat["mode"] >> 31) == ("d", 1)
    head = lab.head(f"/containers/{container}/archive", path="/d/l")
    told = json.loads(base64.b64decode(head.headers["X-Docker-Container-Path-Stat"]))
    assert (told["name"], told["linkTarget"]) == ("l", "/d/f")
    assert head.content == b""
    for path, status in (("/nosuch", 404), ("", 400)):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.get(f"/containers/{container}/archive", path=path)
        lab.told(raised.value, [status], "path" if status == 400 else "/nosuch")
        assert lab.head(f"/containers/{container}/archive", path=path).status_code == status


@CASES.covers("PUT /containers/{id}/archive? path noOverwriteDirNonDir copyUIDGID")
def files_in(lab: Lab) -> None:
    container = lab.start(
        "mkdir -p /t/dir; echo old > /t/file; exec sleep 600", user="bob", host={"tmpfs": {"/none": ""}}, User="0"
    )
    lab.until(lambda: lab.execute(container, "cat /t/file") == "old")
    lab.api.put_archive(container, "/t", tar_of({"file": b"new\n", "more": b"m\n"}, uid=55))
    assert lab.execute(container, "cat /t/file; stat -c %u /t/more") == "new\n55"
    path = f"/containers/{container}/archive"
    for files, broken in (({"dir": b"file\n"}, "dir"), ({"file/below": b"x\n"}, "file")):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.put(path, tar_of(files), path="/t", noOverwriteDirNonDir="true")
        lab.told(raised.value, [400], "directory")
        assert lab.execute(container, f"test -d /t/{broken} && echo dir || echo file") == broken
    for where, status in (("/nosuch", 404), ("/t/more", 400)):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.put(path, tar_of({"f": b""}), path=where)
        lab.told(raised.value, [status], "/nosuch" if status == 404 else "directory")
    with pytest.raises(docker.errors.APIError) as raised:
        lab.put(path, b"no tar at all" * 100, path="/t")
    lab.told(raised.value, [400, 500])
    own = lab.start(user="bob")
    lab.put(f"/containers/{own}/archive", tar_of({"mine": b"m\n"}, uid=55), path="/tmp", copyUIDGID="true")
    assert lab.execute(own, "stat -c %u:%g /tmp/mine") == "1000:1000"
    read_only = lab.start(host={"read_only": True})
    with pytest.raises(docker.errors.APIError) as raised:
        lab.put(f"/containers/{read_only}/archive", tar_of({"f": b""}), path="/")
    lab.told(raised.value, [403], "read-only")
