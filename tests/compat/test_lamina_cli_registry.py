"""``lamina registry`` without a daemon, and images that go straight to another host."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import registries
from conftest import LAMINA, Daemon, serving
from lamina.oci.digest import Digest
from registries import Registry, put_manifest
from troubled import troubled


def lamina(*args: str | Path, code: int = 0) -> str:
    """Run the command with no daemon in reach."""
    environment = {**os.environ, "LAMINA_HOST": "unix:///nonexistent"}
    done = subprocess.run([str(LAMINA), *map(str, args)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stderr
    return (done.stdout if code == 0 else done.stderr).strip()


def push(daemon: Daemon, context: Path, name: str, *lines: str) -> str:
    (context / "Dockerfile").write_text("\n".join(["FROM busybox", *lines]) + "\n")
    daemon.docker_ok("build", "-q", "-t", name, context)
    daemon.docker_ok("push", name)
    return name


def test_ls_tags_inspect_and_rm(daemon: Daemon, registry: Registry, context: Path) -> None:
    for tag in ("one", "two"):
        push(daemon, context, f"{registry.host}/look/at:{tag}", f"LABEL of={tag}")
    assert "look/at" in lamina("registry", "ls", registry.host).split()
    assert lamina("registry", "tags", f"{registry.host}/look/at").split() == ["one", "two"]
    manifest = json.loads(lamina("registry", "inspect", f"{registry.host}/look/at:one"))
    assert manifest["schemaVersion"] == 2
    config = json.loads(lamina("registry", "inspect", "--config", f"{registry.host}/look/at:one"))
    assert config["config"]["Labels"] == {"of": "one"}
    verbose = json.loads(lamina("registry", "inspect", "-v", f"{registry.host}/look/at:one"))
    assert verbose["Descriptor"]["size"] == len(lamina("registry", "inspect", "--raw", f"{registry.host}/look/at:one"))
    lamina("registry", "rm", f"{registry.host}/look/at:one")
    assert lamina("registry", "tags", f"{registry.host}/look/at").split() == ["two"]
    assert "not found" in lamina("registry", "inspect", f"{registry.host}/look/at:one", code=1)


def test_a_tag_whose_manifest_has_others_goes_only_by_force(daemon: Daemon, registry: Registry, context: Path) -> None:
    name = push(daemon, context, f"{registry.host}/shared/manifest:a", "LABEL shared=1")
    lamina("registry", "copy", "-q", name, f"{registry.host}/shared/manifest:b")
    assert "has other tags: b; see --force" in lamina("registry", "rm", name, code=1)
    assert lamina("registry", "tags", f"{registry.host}/shared/manifest").split() in (["a", "b"], ["b", "a"])
    lamina("registry", "rm", "--force", name)
    assert "a" not in lamina("registry", "tags", f"{registry.host}/shared/manifest").split()


def test_a_copy_is_byte_for_byte_and_has_its_referrers(
    daemon: Daemon, registry: Registry, context: Path, tmp_path: Path
) -> None:
    """With an index of two images, of which one is signed: from registry to registry, to a directory, and back."""
    name = push(daemon, context, f"{registry.host}/copied/image:1", "RUN echo copied > /copied")
    raw = lamina("registry", "inspect", "--raw", name).encode()
    manifest = json.loads(raw)
    digest = Digest.of(raw)
    entry = {"mediaType": manifest["mediaType"], "digest": digest, "size": len(raw)}
    index_type = "application/vnd.oci.image.index.v1+json"
    platforms = [{"os": "linux", "architecture": architecture} for architecture in ("amd64", "arm64")]
    index = {
        "schemaVersion": 2,
        "mediaType": index_type,
        "manifests": [{**entry, "platform": platform} for platform in platforms],
    }
    indexed = put_manifest(registry.host, "copied/image/manifests/all", index_type, index)
    signature = {**manifest, "subject": entry, "artifactType": "application/x-signature", "layers": []}
    signed = put_manifest(registry.host, "copied/image/manifests/signature", manifest["mediaType"], signature)
    listed = {
        "mediaType": manifest["mediaType"],
        "digest": signed,
        "size": 1,
        "artifactType": "application/x-signature",
    }
    tag = f"sha256-{digest.hex}"  # the tag schema: docker-registry 2.8 knows no referrers
    put_manifest(registry.host, f"copied/image/manifests/{tag}", index_type, {**index, "manifests": [listed]})
    with registries.serving(tmp_path / "other") as other:
        layout = f"oci:{tmp_path}/layout:all"
        places = [(f"{registry.host}/copied/image:all", layout), (layout, f"{other.host}/back/again:all")]
        for source, target in places:
            assert lamina("registry", "copy", source, target) == indexed
        for pointed in (indexed, digest, signed):
            lamina("registry", "inspect", "--raw", f"{other.host}/back/again@{pointed}")
        daemon.docker_ok("pull", f"{other.host}/back/again:all")
        image = f"{other.host}/back/again:all"
        assert daemon.docker_ok("run", "--rm", "--network", "none", image, "cat", "/copied") == "copied"
        done = subprocess.run(["skopeo", "inspect", layout], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["Architecture"] == "amd64"


def test_a_copy_within_a_registry_moves_no_layer(daemon: Daemon, registry: Registry, context: Path) -> None:
    push(daemon, context, f"{registry.host}/within/a:1", "RUN echo within > /w")
    with troubled(registry.host) as way:
        lamina("registry", "copy", f"{way.host}/within/a:1", f"{way.host}/within/b:1")
        assert way.blob_bytes() == 0
        lamina("registry", "copy", "-a", f"{way.host}/within/a", f"{way.host}/within/c")
        assert lamina("registry", "tags", f"{way.host}/within/c") == "1"


@pytest.fixture
def reached(tmp_path: Path) -> Sequence[str]:
    """A command in the place of ssh: it runs what it is told on this machine, where LAMINA_OTHER is the daemon."""
    script = tmp_path / "ssh"
    script.write_text('#!/bin/sh\nshift\nLAMINA_HOST=$LAMINA_OTHER exec sh -c "$*"\n')
    script.chmod(0o755)
    return ("--ssh", str(script), "--remote", str(LAMINA))


def test_an_image_goes_to_another_host_without_the_layers_that_are_there(
    daemon: Daemon, busybox_tar: Path, context: Path, tmp_path: Path, reached: Sequence[str]
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo sent > /sent\n")
    daemon.docker_ok("build", "-q", "-t", "sent:1", context)
    with serving(tmp_path / "other", busybox_tar) as other:
        sent = daemon.lamina("image", "send", *reached, "host", "sent:1", env={"LAMINA_OTHER": other.host})
        assert sent.code == 0, sent.err
        assert "sending 1 of 2 layers" in sent.err
        assert "Loaded image: sent:1" in sent.out
        assert other.docker_ok("run", "--rm", "--network", "none", "sent:1", "cat", "/sent") == "sent"
        assert other.docker_ok("inspect", "-f", "{{.Id}}", "sent:1") == daemon.docker_ok(
            "inspect", "-f", "{{.Id}}", "sent:1"
        )
        again = daemon.lamina("image", "send", *reached, "host", "sent:1", env={"LAMINA_OTHER": other.host})
        assert "sending 0 of 2 layers, 0B" in again.err
        failed = daemon.lamina("image", "send", "--ssh", "false", "host", "sent:1")
        assert failed.code == 1
        assert "host: the other side does not answer" in failed.err
