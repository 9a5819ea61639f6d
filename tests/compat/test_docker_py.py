"""docker-py, the Python SDK, against the daemon."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from conftest import Daemon


@pytest.fixture
def sdk(daemon: Daemon) -> Iterator[Any]:
    client = docker.DockerClient(base_url=daemon.host, version="auto")
    yield client
    client.close()


def test_ping_version_and_info(sdk: Any) -> None:
    assert sdk.ping() is True
    assert sdk.version()["ApiVersion"] == "1.51"
    assert sdk.info()["OSType"] == "linux"


def test_run_returns_the_output(sdk: Any) -> None:
    assert sdk.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"


def test_a_failing_run_raises_with_the_exit_code_and_standard_error(sdk: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as raised:
        sdk.containers.run("busybox", ["sh", "-c", "echo wrong >&2; exit 5"], remove=True)
    assert raised.value.exit_status == 5
    assert b"wrong" in raised.value.stderr


def test_a_container_s_whole_life(sdk: Any) -> None:
    container = sdk.containers.create("busybox", ["sh", "-c", "echo out; sleep 60"], name="sdk", labels={"a": "b"})
    assert container.status == "created"
    container.start()
    container.reload()
    assert container.status == "running"
    assert [c.name for c in sdk.containers.list(filters={"label": "a=b"})] == ["sdk"]
    lines = container.logs(stream=True, follow=True)
    assert next(iter(lines)) == b"out\n"
    lines.close()
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()
    with pytest.raises(docker.errors.NotFound):
        sdk.containers.get("sdk")


def test_build_from_a_file_object(sdk: Any) -> None:
    image, lines = sdk.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo built > /f\nCMD cat /f\n"), tag="sdk:1")
    assert any("Successfully built" in line.get("stream", "") for line in lines)
    assert sdk.containers.run("sdk:1", remove=True) == b"built\n"
    assert image.history()[0]["CreatedBy"] == 'CMD ["/bin/sh" "-c" "cat /f"]'
    sdk.images.remove("sdk:1")


def test_save_and_load(sdk: Any, tmp_path: Path) -> None:
    image = sdk.images.get("busybox")
    data = b"".join(image.save(named="busybox:latest"))
    (loaded,) = sdk.images.load(data)
    assert loaded.id == image.id


def test_attach_socket_carries_both_ways(sdk: Any) -> None:
    container = sdk.containers.create("busybox", ["cat"], stdin_open=True, tty=False)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    stream._sock.sendall(b"ping\n")
    assert stream._sock.recv(64)[8:] == b"ping\n"
    stream._sock.close()
    stream.close()
    container.remove(force=True)


def test_events_are_streamed(sdk: Any) -> None:
    events = sdk.events(decode=True, filters={"event": "create"})
    container = sdk.containers.create("busybox", ["true"])
    assert next(events)["Actor"]["ID"] == container.id
    events.close()
    container.remove()
