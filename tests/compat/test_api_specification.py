"""Every response body against the Engine API's specification, version 1.51."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

import pytest

from compat.api_specification import check, specification
from conftest import Daemon
from lamina.client.client import Client, Response
from lamina.errors import Conflict, InvalidArgument, LaminaError, NotFound


@pytest.fixture
def client(daemon: Daemon) -> Client:
    specification()
    return Client(daemon.host)


def checked(client: Client, method: str, template: str, *, query: Any = None, body: Any = None, **names: str) -> Any:
    """Ask, check the answer, return it."""
    path = template.format(**{k: urllib.parse.quote(v, safe="/:") for k, v in names.items()})
    response: Response = client.request(method, path, query, body=body)
    raw = response.read()
    value = json.loads(raw) if raw and "json" in response.headers.get("content-type", "") else raw or None
    check(method, template, response.status, value)
    return value


def test_system_endpoints(client: Client) -> None:
    for path in ("/version", "/info", "/system/df"):
        checked(client, "GET", path)
    response = client.request("GET", "/_ping")
    assert (response.status, response.read()) == (200, b"OK")
    assert response.headers["api-version"] == "1.51"
    assert response.headers["builder-version"] == "1"


def test_image_endpoints(client: Client, daemon: Daemon) -> None:
    assert checked(client, "GET", "/images/json", query={"all": True, "shared-size": True})
    checked(client, "GET", "/images/{name}/json", name="busybox")
    checked(client, "GET", "/images/{name}/history", name="busybox")
    checked(client, "POST", "/images/{name}/tag", query={"repo": "spec", "tag": "1"}, name="busybox")
    removed = checked(client, "DELETE", "/images/{name}", name="spec:1")
    assert removed == [{"Untagged": "spec:1"}]
    checked(client, "POST", "/images/prune")


def test_network_endpoints(client: Client, daemon: Daemon) -> None:
    ipam = {
        "Config": [{"Subnet": "10.235.1.0/24", "IPRange": "10.235.1.64/26", "AuxiliaryAddresses": {"a": "10.235.1.9"}}]
    }
    body = {"Name": "spec", "IPAM": ipam, "EnableIPv6": True, "Labels": {"a": "b"}, "Options": {"x": "y"}}
    network = checked(client, "POST", "/networks/create", body=body)["Id"]
    container = daemon.docker_ok("run", "-d", "--network", "spec", "-p", "80", "busybox", "sleep", "1000")
    joined = checked(client, "GET", "/networks/{id}", id=network)["Containers"]
    assert list(joined) == [container]
    assert network in [item["Id"] for item in checked(client, "GET", "/networks")]
    checked(client, "GET", "/containers/{id}/json", id=container)
    checked(client, "GET", "/containers/json")
    ends = {"Container": container, "EndpointConfig": {"Aliases": ["x"]}}
    checked(client, "POST", "/networks/{id}/disconnect", body={"Container": container, "Force": True}, id=network)
    checked(client, "POST", "/networks/{id}/connect", body=ends, id=network)
    with pytest.raises(Conflict, match="has active endpoints"):
        client.request("DELETE", f"/networks/{network}")
    daemon.docker_ok("rm", "-f", container)
    checked(client, "DELETE", "/networks/{id}", id=network)
    checked(client, "POST", "/networks/prune")
    with pytest.raises(NotFound):
        client.request("GET", f"/networks/{network}")


def test_container_endpoints(client: Client) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo x; exit 3"],
        "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}},
    }
    container = checked(client, "POST", "/containers/create", query={"name": "spec"}, body=body)["Id"]
    checked(client, "GET", "/containers/{id}/json", query={"size": True}, id=container)
    checked(client, "POST", "/containers/{id}/start", id=container)
    assert checked(client, "POST", "/containers/{id}/wait", id=container)["StatusCode"] == 3
    record = checked(client, "GET", "/containers/{id}/json", id=container)
    assert record["State"]["ExitCode"] == 3
    checked(client, "GET", "/containers/json", query={"all": True, "size": True})
    checked(client, "POST", "/containers/{id}/restart", query={"t": 0}, id=container)
    checked(client, "POST", "/containers/{id}/wait", id=container)
    checked(client, "DELETE", "/containers/{id}", query={"v": True}, id="spec")
    checked(client, "POST", "/containers/prune")


def test_running_container_endpoints(client: Client) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "60"], "Tty": True}
    container = checked(client, "POST", "/containers/create", body=body)["Id"]
    checked(client, "POST", "/containers/{id}/start", id=container)
    checked(client, "GET", "/containers/{id}/json", id=container)
    checked(client, "GET", "/containers/json")
    checked(client, "POST", "/containers/{id}/resize", query={"h": 40, "w": 100}, id=container)
    checked(client, "POST", "/containers/{id}/kill", id=container)
    checked(client, "POST", "/containers/{id}/stop", id=checked_restart(client, container))
    checked(client, "DELETE", "/containers/{id}", id=container)


def test_exec_endpoints(client: Client, daemon: Daemon) -> None:
    """The exit code of a process that has not ended is null, as docker has it and the specification does not."""
    container = daemon.docker_ok("run", "-d", "busybox", "sleep", "1000")
    wanted = {"Cmd": ["sleep", "1"], "Tty": True, "AttachStdout": True}
    made = checked(client, "POST", "/containers/{id}/exec", body=wanted, id=container)
    checked(client, "POST", "/exec/{id}/start", body={"Detach": True, "Tty": True}, id=made["Id"])
    checked(client, "POST", "/exec/{id}/resize", query={"h": 40, "w": 100}, id=made["Id"])
    deadline = time.monotonic() + 20
    while client.request("GET", f"/exec/{made['Id']}/json").json()["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert checked(client, "GET", "/exec/{id}/json", id=made["Id"])["ExitCode"] == 0
    daemon.docker_ok("rm", "-f", container)


def checked_restart(client: Client, container: str) -> str:
    client.request("POST", f"/containers/{container}/start").read()
    client.request("POST", f"/containers/{container}/kill", {"signal": "SIGHUP"}).read()
    return container


def test_volume_and_network_endpoints(client: Client) -> None:
    checked(client, "POST", "/volumes/create", body={"Name": "spec", "Labels": {"a": "b"}})
    checked(client, "GET", "/volumes")
    checked(client, "GET", "/volumes/{name}", name="spec")
    checked(client, "DELETE", "/volumes/{name}", name="spec")
    checked(client, "GET", "/networks")
    for name in ("bridge", "host", "none"):
        checked(client, "GET", "/networks/{id}", id=name)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/containers/nothing/json", NotFound),
        ("GET", "/images/nothing/json", NotFound),
        ("GET", "/nowhere", NotFound),
        ("GET", "/containers/json?filters={", InvalidArgument),
        ("POST", "/containers/create", InvalidArgument),
        ("POST", "/containers/nothing/kill", NotFound),
        ("DELETE", "/volumes/nothing", NotFound),
    ],
)
def test_errors_have_docker_s_status_and_a_message(
    client: Client, method: str, path: str, kind: type[LaminaError]
) -> None:
    with pytest.raises(kind) as raised:
        client.request(method, path, body={} if method == "POST" else None)
    assert raised.value.message


def test_stopping_twice_is_304_and_removing_a_running_one_409(client: Client) -> None:
    container = checked(client, "POST", "/containers/create", body={"Image": "busybox", "Cmd": ["sleep", "60"]})["Id"]
    client.request("POST", f"/containers/{container}/start").read()
    with pytest.raises(Conflict):
        client.request("DELETE", f"/containers/{container}")
    client.request("POST", f"/containers/{container}/kill").read()
    with pytest.raises(LaminaError) as raised:
        client.request("POST", f"/containers/{container}/stop")
    assert type(raised.value).__name__ == "NotModified"
    client.request("DELETE", f"/containers/{container}").read()


def test_old_versions_are_answered_and_foreign_ones_refused(daemon: Daemon) -> None:
    import http.client
    import socket

    for version, status in (("v1.24", 200), ("v1.51", 200), ("v1.23", 400), ("v1.99", 400)):
        connection = http.client.HTTPConnection("lamina")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(daemon.socket_path))
        connection.request("GET", f"/{version}/containers/json")
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
        connection.close()
