"""Further processes in a container: ``POST /containers/{id}/exec`` (ExecConfig) and ``POST /exec/{id}/start`` (ExecStartConfig)."""

from __future__ import annotations

import time
from typing import Any

import docker
import pytest

from compat.matrix.lab import Cases, Lab, everything, joined

CASES = Cases()
_CAP_EFF = "grep CapEff /proc/self/status | cut -f2"


def _made(lab: Lab, container: str, cmd: list[str], **fields: Any) -> str:
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": cmd, **fields}
    return str(lab.post(f"/containers/{container}/exec", body).json()["Id"])


def _joined(lab: Lab, exec_id: str, **options: Any) -> Any:
    """The socket of a process that is started."""
    return joined(lab.api.exec_start(exec_id, socket=True, **options))


@CASES.covers("exec: Cmd User Env WorkingDir Privileged")
def what_it_is(lab: Lab) -> None:
    container = lab.start(environment=["A=1", "B=1"], working_dir="/tmp", user="bob")
    told = lab.execute(container, "id -u; pwd; echo $A$B", environment=["B=2"])
    assert told == "1000\n/tmp\n12"
    assert lab.execute(container, "id -u; id -g; pwd", user="0:77", workdir="/etc") == "0\n77\n/etc"
    plain, privileged = (int(lab.execute(container, _CAP_EFF, user="0", privileged=p), 16) for p in (False, True))
    assert privileged > plain
    assert plain & privileged == plain
    for fields, word in (({"WorkingDir": "rel"}, "absolute"), ({"User": "nosuch"}, "nosuch")):
        stream = lab.api.exec_start(_made(lab, container, ["true"], **fields)).decode()
        assert word in stream
    with pytest.raises(docker.errors.APIError) as raised:
        _made(lab, container, [])
    lab.told(raised.value, [400], "No exec command specified")


@CASES.covers("exec: AttachStdin AttachStdout AttachStderr")
def its_streams(lab: Lab) -> None:
    container = lab.start()
    script = ["sh", "-c", "read line; echo out $line; echo err >&2"]
    for out, err in ((True, False), (False, True)):
        made = _made(lab, container, script, AttachStdin=True, AttachStdout=out, AttachStderr=err)
        with _joined(lab, made) as sock:
            sock.sendall(b"in\n")
            told = everything(sock)
        assert (b"out in\n" in told, b"err\n" in told) == (out, err)
        shown = lab.api.exec_inspect(made)
        assert (shown["OpenStdin"], shown["OpenStdout"], shown["OpenStderr"]) == (True, out, err)
        assert (shown["Running"], shown["ExitCode"], shown["ContainerID"]) == (False, 0, container)
    assert lab.execute(container, "cat; echo ended") == "ended"


@CASES.covers("exec: Tty ConsoleSize\nstart: Tty ConsoleSize\nPOST /exec/{id}/resize? h w")
def its_terminal(lab: Lab) -> None:
    container = lab.start()
    made = _made(lab, container, ["stty", "size"], Tty=True, ConsoleSize=[30, 70])
    assert lab.post(f"/exec/{made}/start", {"Tty": True}).content == b"30 70\r\n"
    made = _made(lab, container, ["stty", "size"], Tty=True)
    assert lab.post(f"/exec/{made}/start", {"Tty": True, "ConsoleSize": [31, 71]}).content == b"31 71\r\n"
    made = _made(lab, container, ["sh", "-c", "while ! test -e /go; do sleep 0.05; done; stty size"], Tty=True)
    with _joined(lab, made, tty=True) as sock:
        lab.until(lambda: lab.execute(container, "ps -o args | grep -c '[w]hile'") == "1")
        lab.api.exec_resize(made, height=32, width=72)
        lab.execute(container, "touch /go")
        assert everything(sock) == b"32 72\r\n"
    for query, status in (({"h": "x", "w": "1"}, 400), ({"h": "1", "w": "1"}, 409)):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.post(f"/exec/{made}/resize", **query)
        lab.told(raised.value, [status])


@CASES.covers("POST /exec/{id}/resize? h w")
def a_size_that_comes_before_the_process(lab: Lab) -> None:
    """docker waits for the process, up to ten seconds: clients tell the size as soon as the start is answered."""
    made = _made(lab, lab.start(), ["true"], Tty=True)
    for _ in range(5):
        made = _made(lab, lab.made[-1], ["sleep", "1"], Tty=True)
        with _joined(lab, made, tty=True):
            lab.api.exec_resize(made, height=32, width=72)


@CASES.covers("start: ConsoleSize")
def a_size_that_is_none(lab: Lab) -> None:
    made = _made(lab, lab.start(), ["true"], Tty=True)
    with pytest.raises(docker.errors.APIError) as raised:
        lab.post(f"/exec/{made}/start", {"Tty": True, "ConsoleSize": [1]})
    lab.told(raised.value, [400])


@CASES.covers("exec: DetachKeys Tty AttachStdin")
def leaving_by_keys(lab: Lab) -> None:
    container, since = lab.start(), time.time()
    made = lab.api.exec_create(container, ["cat"], stdin=True, tty=True, detach_keys="ctrl-a,ctrl-b")["Id"]
    with _joined(lab, made, tty=True) as sock:
        sock.sendall(b"\x01\x02")
        assert everything(sock) == b""
    lab.until(lambda: lab.events(since, container=container, event="exec_detach"))
    assert lab.execute(container, "pidof cat") != ""
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.exec_create(container, ["cat"], detach_keys="bogus-keys")
    lab.told(raised.value, [400], "detach keys", "bogus-keys")


@CASES.covers("start: Detach")
def left_alone(lab: Lab) -> None:
    container, since = lab.start(), time.time()
    made = _made(lab, container, ["sh", "-c", "echo x > /f; exit 5"])
    assert lab.api.exec_start(made, detach=True) == ""
    lab.until(lambda: lab.events(since, container=container, event="exec_die"))
    (die,) = lab.events(since, container=container, event="exec_die")
    assert (die["Actor"]["Attributes"]["execID"], die["Actor"]["Attributes"]["exitCode"]) == (made, "5")
    assert lab.api.exec_inspect(made)["ExitCode"] == 5
    assert lab.execute(container, "cat /f") == "x"
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.exec_start(made, detach=True)
    lab.told(raised.value, [409])


@CASES.covers("start: Detach")
def a_command_that_is_not_there(lab: Lab) -> None:
    made = _made(lab, lab.start(), ["/no/such"])
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.exec_start(made, detach=True)
    lab.told(raised.value, [400], "no such file")
    assert lab.api.exec_inspect(made)["ExitCode"] == 127


@CASES.covers("exec: Cmd")
def where_nothing_runs(lab: Lab) -> None:
    with pytest.raises(docker.errors.APIError) as raised:
        _made(lab, lab.create(), ["true"])
    lab.told(raised.value, [409], "is not running")
    container = lab.start()
    lab.api.pause(container)
    with pytest.raises(docker.errors.APIError) as raised:
        _made(lab, container, ["true"])
    lab.told(raised.value, [409], "paused")
    lab.api.unpause(container)


@CASES.covers("start: Tty\nexec: Tty")
def a_terminal_that_only_one_side_wants(lab: Lab) -> None:
    """How the stream is told is the start's to say: without a terminal there it is in frames."""
    made = _made(lab, lab.start(), ["echo", "x"], Tty=True)
    assert lab.post(f"/exec/{made}/start", {"Tty": False}).content.endswith(b"x\r\n")
