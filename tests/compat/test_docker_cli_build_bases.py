"""Bases that a registry has: pulled when they are missing, or when the build says so."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

import registries
from conftest import Daemon
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.registry import Access
from lamina.registry.hosts import Settings
from lamina.registry.places import RegistryPlace
from lamina.registry.repository import Repository
from registries import Registry


def offer(daemon: Daemon, registry: Registry, context: Path, name: str, text: str) -> str:
    """Put an image into the registry that says *text*; returns its name. It is not left with the daemon."""
    reference = f"{registry.host}/{name}"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN echo {text} > /text\nLABEL text={text}\n")
    daemon.lamina_ok("build", "-q", "-t", reference, "--push", context)
    daemon.docker_ok("rmi", "-f", reference)
    return reference


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_a_missing_base_is_pulled_once(daemon: Daemon, registry: Registry, context: Path, cli: str) -> None:
    base = offer(daemon, registry, context, f"missing:{cli}", "one")
    (context / "Dockerfile").write_text(
        f"FROM {base} AS a\nRUN cat /text > /a\nFROM {base}\nCOPY --from=a /a /a\nCOPY --from={base} /text /b\n"
    )
    out = (daemon.docker_ok if cli == "docker" else daemon.lamina_ok)("build", "-t", "based", context)
    assert out.count(f"pulling {base}") == 1
    assert daemon.docker_ok("run", "--rm", "based", "cat", "/text", "/a", "/b").split() == ["one"] * 3
    assert base in daemon.docker_ok("images", "--format", "{{.Repository}}:{{.Tag}}")


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_pull_asks_for_what_is_newer(daemon: Daemon, registry: Registry, context: Path, cli: str) -> None:
    base = offer(daemon, registry, context, f"newer:{cli}", "old")
    command = daemon.docker_ok if cli == "docker" else daemon.lamina_ok
    child = context.parent / "child"
    child.mkdir()
    (child / "Dockerfile").write_text(f"FROM {base}\nRUN cat /text\n")
    command("build", "--pull", "-t", "based", child)
    kept = daemon.docker_ok("inspect", "-f", "{{.Id}}", base)
    offer(daemon, registry, context, f"newer:{cli}", "new")
    daemon.docker_ok("tag", kept, base)
    command("build", "-t", "based", child)
    assert daemon.docker_ok("run", "--rm", "based", "cat", "/text") == "old"
    command("build", "--pull", "-t", "based", child)
    assert daemon.docker_ok("run", "--rm", "based", "cat", "/text") == "new"


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_a_base_that_skopeo_pushed_is_pulled(
    daemon: Daemon, registry: Registry, context: Path, tmp_path: Path, form: str
) -> None:
    name = f"{registry.host}/skopeo:{form}"
    daemon.docker_ok("save", "-o", tmp_path / "busybox.tar", "busybox")
    argv = ["skopeo", "copy", "--dest-tls-verify=false", f"--format={form}", f"docker-archive:{tmp_path}/busybox.tar"]
    subprocess.run([*argv, f"docker://{name}"], check=True, capture_output=True)
    (context / "Dockerfile").write_text(f"FROM {name}\nRUN echo it runs\n")
    assert "it runs" in daemon.lamina_ok("build", "--no-cache", context)
    daemon.docker_ok("rmi", name)


def test_a_base_can_be_named_by_its_digest(daemon: Daemon, registry: Registry, context: Path) -> None:
    base = offer(daemon, registry, context, "digest:one", "named")
    argv = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{base}"]
    digest = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    for name in (f"{registry.host}/digest@{digest}", f"{base}@{digest}"):
        (context / "Dockerfile").write_text(f"FROM {name}\nRUN cat /text\n")
        assert "named" in daemon.lamina_ok("build", "--no-cache", context)
    shown = daemon.docker_ok("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert [name for name in shown if name.startswith(f"{registry.host}/digest")] == [f"{registry.host}/digest:<none>"]


def test_a_base_that_was_pulled_by_its_digest_is_not_asked_for_again(
    daemon: Daemon, own_daemon: Daemon, tmp_path: Path, context: Path
) -> None:
    """Also if the digest is that of an index, and after a daemon's end."""
    with registries.serving(tmp_path / "gone") as gone:
        base = offer(daemon, gone, context, "gone:one", "kept")
        digest = as_index(gone, base)
        (context / "Dockerfile").write_text(f"FROM {gone.host}/gone@{digest}\nRUN cat /text\n")
        assert "kept" in own_daemon.lamina_ok("build", context)
        name = f"{gone.host}/gone@{digest}"
        assert f"{gone.host}/gone:<none>" in own_daemon.docker_ok("images", "--format", "{{.Repository}}:{{.Tag}}")
        own_daemon.docker_ok("image", "prune", "-f")
        assert own_daemon.docker_ok("inspect", "-f", "{{.RepoDigests}}", name) == f"[{name}]"
    own_daemon.kill()
    own_daemon.start()
    assert "kept" in own_daemon.lamina_ok("build", "--no-cache", context)


def test_a_digest_goes_with_the_last_tag_of_its_repository(daemon: Daemon, registry: Registry, context: Path) -> None:
    base = offer(daemon, registry, context, "digests:one", "gone")
    (context / "Dockerfile").write_text(f"FROM {base}\n")
    daemon.lamina_ok("build", context)
    daemon.docker_ok("tag", base, "elsewhere:1")
    (name,) = [
        d for d in json.loads(daemon.docker_ok("inspect", "-f", "{{json .RepoDigests}}", base)) if registry.host in d
    ]
    assert daemon.docker_ok("images", "-q", "elsewhere")
    assert registry.host not in daemon.docker_ok("images", "--format", "{{.Repository}}", "elsewhere")
    daemon.docker_ok("rmi", base)
    assert "No such image" in daemon.docker("inspect", "--type=image", name).err
    daemon.docker_ok("rmi", "elsewhere:1")


def test_a_digest_can_be_taken_away_by_itself(daemon: Daemon, registry: Registry, context: Path) -> None:
    base = offer(daemon, registry, context, "taken:one", "away")
    (context / "Dockerfile").write_text(f"FROM {base}\n")
    daemon.lamina_ok("build", context)
    (name,) = json.loads(daemon.docker_ok("inspect", "-f", "{{json .RepoDigests}}", base))
    assert daemon.docker_ok("rmi", name) == f"Untagged: {name}"
    assert daemon.docker_ok("images", "-q", base)
    daemon.docker_ok("rmi", base)


def as_index(registry: Registry, name: str) -> str:
    """Put an index into the registry, of another platform's entry and this one's image, whose layers have annotations; its digest."""
    repository, _, tag = name.partition(f"{registry.host}/")[2].partition(":")
    access = Access.of(Reference.parse(f"{registry.host}/{repository}:{tag}"), Settings())
    place = RegistryPlace(access)
    media_type, data = place.manifest()
    manifest = json.loads(data)
    for layer in manifest["layers"]:
        layer["annotations"] = {"of": "a layer"}
    annotated = json.dumps(manifest).encode()
    Repository(access).put_manifest(str(Digest.of(annotated)), media_type, annotated)
    entry = {"mediaType": media_type, "digest": str(Digest.of(annotated)), "size": len(annotated)}
    own = Platform.of_host()
    entries = [
        {**entry, "platform": {"os": "plan9", "architecture": "mips"}},
        {**entry, "platform": {"os": own.os, "architecture": own.architecture}},
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    Repository(access).put_manifest(f"{tag}-index", kind, index)
    return str(Digest.of(index))


def test_bytes_that_are_not_what_they_should_be_are_refused_and_leave_nothing(
    daemon: Daemon, own_daemon: Daemon, tmp_path: Path, context: Path
) -> None:
    with registries.serving(tmp_path / "damaged") as damaged:
        base = offer(daemon, damaged, context, "damaged:one", "x")
        before = {path.name for path in (own_daemon.root / "content" / "blobs" / "sha256").iterdir()}
        for data in damaged.root.glob("docker/registry/v2/blobs/sha256/*/*/data"):
            if data.read_bytes()[:2] == b"\x1f\x8b":
                data.write_bytes(data.read_bytes()[:-20] + bytes(20))
        (context / "Dockerfile").write_text(f"FROM {base}\n")
        result = own_daemon.lamina("build", context)
        assert result.code != 0
        assert f"failed to pull {base}" in result.err
        assert {path.name for path in (own_daemon.root / "content" / "blobs" / "sha256").iterdir()} == before
        assert list((own_daemon.root / "content" / "ingest").iterdir()) == []
        assert base not in own_daemon.docker_ok("images")


def test_a_base_that_nobody_has_is_told_by_name(daemon: Daemon, registry: Registry, context: Path) -> None:
    for name, message in (
        (f"{registry.host}/nobody:x", "not found"),
        (f"127.0.0.1:{registries.free_port()}/nobody:x", "No such image"),
    ):
        (context / "Dockerfile").write_text(f"FROM {name}\n")
        result = daemon.lamina("build", context)
        assert result.code != 0
        assert message in result.err
        assert name in result.err


def test_a_base_of_a_registry_that_asks_who_is_there(daemon: Daemon, tmp_path: Path, context: Path) -> None:
    with registries.serving(tmp_path / "guarded", htpasswd=registries.htpasswd_line()) as guarded:
        config = {"DOCKER_CONFIG": str(registries.docker_config(tmp_path / "docker", guarded.host))}
        name = f"{guarded.host}/base:one"
        (context / "Dockerfile").write_text("FROM busybox\nRUN echo > /x\n")
        assert daemon.lamina("build", "-t", name, "--push", context, env=config).code == 0
        (context / "Dockerfile").write_text(f"FROM {name}\n")
        for command in (daemon.docker, daemon.lamina):
            daemon.docker_ok("rmi", "-f", name)
            stranger = {"DOCKER_CONFIG": str(tmp_path / "nobody")}
            assert "denied" in command("build", context, env=stranger).err
            accepted = command("build", context, env=config)
            assert accepted.code == 0, accepted.err
        helped = _helper(tmp_path / "helper", guarded.host)
        daemon.docker_ok("rmi", "-f", name)
        assert daemon.lamina("build", context, env=helped).code == 0, "a helper is asked of a base's registry"


def _helper(directory: Path, host: str) -> dict[str, str]:
    """An environment in which a credential helper alone knows of a registry."""
    directory.mkdir()
    answer = {"ServerURL": host, "Username": registries.USER, "Secret": registries.PASSWORD}
    script = f"#!/bin/sh\nread name\n[ \"$name\" = {host} ] && echo '{json.dumps(answer)}'\n"
    (directory / "docker-credential-known").write_text(script)
    (directory / "docker-credential-known").chmod(0o755)
    (directory / "config.json").write_text(json.dumps({"credsStore": "known"}))
    return {"DOCKER_CONFIG": str(directory), "PATH": f"{directory}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    "header", ["", "bnVsbA==", "e30=", "e30", "not base64", "W10=", "eyJhIjogeyJhdXRoIjogIj8ifX0="]
)
def test_credentials_that_cannot_be_read_are_nobody_s(daemon: Daemon, header: str) -> None:
    """Go's clients send null for none; dockerd takes anything else that it cannot read for that, too."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(b"FROM busybox\n")
        archive.addfile(entry, io.BytesIO(b"FROM busybox\n"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.socket_path))
        body = buffer.getvalue()
        head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nX-Registry-Config: {header}\r\n"
        connection.sendall(f"{head}Connection: close\r\nContent-Type: application/x-tar\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Successfully built" in answer
