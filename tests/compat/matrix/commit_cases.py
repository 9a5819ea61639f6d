"""An image of a container: ``POST /commit``, and what its body (ContainerConfig) says of the image."""

from __future__ import annotations

import time
from typing import Any

import docker
import pytest

from compat.matrix.lab import Cases, Lab

CASES = Cases()


@CASES.covers("POST /commit? container repo tag comment author pause changes\nContainerConfig: Cmd Env Labels")
def an_image(lab: Lab) -> None:
    """The body says what the image is to be, and the changes say so after it."""
    container = lab.start("echo x > /made; exec sleep 600", environment=["A=1", "B=1"], labels={"own": "yes"})
    lab.until(lambda: lab.execute(container, "cat /made") == "x")
    repo, since = lab.name(), time.time()
    lab.images.append(f"{repo}:v1")
    made = lab.api.commit(
        container, repo, "v1", message="why", author="me", pause=True, changes=["ENV C=3", "WORKDIR /w"],
        conf={"Cmd": ["cat", "/made"], "Env": ["B=2"], "Labels": {"more": "yes"}},
    )  # fmt: skip
    image = lab.api.inspect_image(f"{repo}:v1")
    assert (image["Id"], image["Author"], image["Comment"]) == (made["Id"], "me", "why")
    assert image["Config"]["Cmd"] == ["cat", "/made"]
    assert {"A=1", "B=2", "C=3"} <= set(image["Config"]["Env"])
    assert image["Config"]["Labels"] == {"own": "yes", "more": "yes"}
    assert image["Config"]["WorkingDir"] == "/w"
    assert lab.run("", image=f"{repo}:v1", Cmd=None) == "x"
    assert "pause" in [e["Action"] for e in lab.events(since, container=container)]
    since = time.time()
    unnamed = lab.api.commit(container, pause=False)["Id"]
    lab.images.append(unnamed)
    assert lab.api.inspect_image(unnamed)["RepoTags"] == []
    assert "pause" not in [e["Action"] for e in lab.events(since, container=container)]
    for query, status in (({"container": "nosuch"}, 404), ({"container": container, "changes": "BOGUS x"}, 400)):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.post("/commit", {}, **query)
        lab.told(raised.value, [status], "nosuch" if status == 404 else "BOGUS")


@CASES.covers("ContainerConfig: Entrypoint ExposedPorts Healthcheck OnBuild Shell StopSignal User Volumes WorkingDir")
def an_image_of_all_that_one_has(lab: Lab) -> None:
    body: dict[str, Any] = {"Entrypoint": ["/e"], "ExposedPorts": {"80/tcp": {}}, "OnBuild": ["RUN x"], "Shell": ["/s"]}
    body |= {"StopSignal": "SIGUSR1", "User": "bob", "Volumes": {"/v": {}}, "WorkingDir": "/w"}
    body |= {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 4}}
    image = lab.post("/commit", body, container=lab.create(working_dir="/other")).json()["Id"]
    lab.images.append(image)
    shown = lab.api.inspect_image(image)["Config"]
    assert {name: shown.get(name) for name in body} == body


@CASES.covers(
    "ContainerConfig: ArgsEscaped AttachStderr AttachStdin AttachStdout Domainname Hostname Image MacAddress NetworkDisabled OpenStdin "
    "StdinOnce StopTimeout Tty"
)
def an_image_without_what_none_has(lab: Lab) -> None:
    """What concerns one container alone is in no image; it is not refused."""
    flags = "ArgsEscaped AttachStderr AttachStdin AttachStdout NetworkDisabled OpenStdin StdinOnce Tty".split()
    body: dict[str, Any] = dict.fromkeys(flags, True) | {"Domainname": "d", "Hostname": "h", "Image": "busybox"}
    body |= {"MacAddress": "02:42:ac:11:00:80", "StopTimeout": 7, "Labels": {"a": "b"}}
    image = lab.post("/commit", body, container=lab.create()).json()["Id"]
    lab.images.append(image)
    assert lab.api.inspect_image(image)["Config"]["Labels"] == {"a": "b"}
    shown = lab.api.inspect_container(lab.create(None, image=image, Cmd=["true"]))["Config"]
    assert (shown["Hostname"], shown["Domainname"], shown["Tty"], shown["OpenStdin"]) == (
        lab.made[-1][:12],
        "",
        False,
        False,
    )
