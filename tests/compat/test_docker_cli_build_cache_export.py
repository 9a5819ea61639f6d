"""Caches that come from elsewhere and go there, and images that go to a registry: by Debian's docker-registry as the peer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import registries
from conftest import Daemon, serving
from registries import Registry

DOCKERFILE = (
    "FROM busybox AS tools\nRUN date +%s%N > /tool\n"
    "FROM busybox\nENV A=1\nCOPY f /f\nRUN date +%s%N > /made\nCOPY --from=tools /tool /tool\n"
)
STEPS_OF_RESULT = 4


@pytest.fixture
def other(needs_root: None, tmp_path: Path, busybox_tar: Path) -> Iterator[Daemon]:
    """Another machine's daemon, whose busybox is the same."""
    with serving(tmp_path / "other", busybox_tar) as served:
        yield served


@pytest.fixture
def source(context: Path) -> Path:
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "f").write_text(str(context))
    return context


def made(daemon: Daemon, name: str = "built") -> str:
    return daemon.docker_ok("run", "--rm", name, "cat", "/made", "/tool")


@pytest.mark.parametrize("kind", ["local", "registry"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_a_cache_that_was_exported_is_found_by_another_daemon(
    daemon: Daemon, other: Daemon, registry: Registry, source: Path, tmp_path: Path, kind: str, compression: str
) -> None:
    place = (
        f"type=local,dest={tmp_path}/cache" if kind == "local" else f"type=registry,ref={registry.host}/c:{compression}"
    )
    out = daemon.lamina_ok("build", "-t", "built", "--cache-to", f"{place},mode=max,compression={compression}", source)
    assert "exporting cache to" in out
    origin = place.replace("dest=", "src=")
    again = other.lamina_ok("build", "-t", "built", "--cache-from", origin, source)
    assert again.count("Using cache") == STEPS_OF_RESULT + 1
    assert made(other) == made(daemon)
    layers = ("inspect", "-f", "{{.RootFS.Layers}}", "built")
    assert other.docker_ok(*layers) == daemon.docker_ok(*layers)


def test_the_least_mode_has_the_steps_of_the_result_alone(
    daemon: Daemon, other: Daemon, source: Path, tmp_path: Path
) -> None:
    daemon.lamina_ok("build", "-t", "built", "--cache-to", f"type=local,dest={tmp_path}/cache", source)
    out = other.lamina_ok("build", "-t", "built", "--cache-from", f"type=local,src={tmp_path}/cache", source)
    # the stage "tools" is made anew, so that what is copied from it is another
    assert out.count("Using cache") == STEPS_OF_RESULT - 1


def test_the_layout_is_one_that_skopeo_reads(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    daemon.lamina_ok("build", "--cache-to", f"type=local,dest={tmp_path}/cache,tag=mine", source)
    argv = ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/cache:mine"]
    manifest = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert manifest["config"]["mediaType"] == "application/vnd.lamina.build.cache.v1+json"
    for layer in manifest["layers"]:
        assert (
            tmp_path / "cache" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
        ).stat().st_size == layer["size"]


def test_a_cache_tells_nothing_of_build_arguments(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox AS hidden\nARG TOKEN\nRUN echo 1 > /x\nFROM busybox\nCOPY --from=hidden /x /x\n"
    )
    target = f"type=local,dest={tmp_path}/cache,mode=max"
    daemon.lamina_ok("build", "--build-arg", "TOKEN=told-to-nobody", "--cache-to", target, context)
    blobs = list((tmp_path / "cache" / "blobs" / "sha256").iterdir())
    assert len(blobs) >= 3
    assert not [blob for blob in blobs if b"told-to-nobody" in blob.read_bytes()]


def test_layers_keep_their_form_unless_another_is_forced(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    def media_types(options: str) -> set[str]:
        daemon.lamina_ok("build", "--cache-to", f"type=local,dest={tmp_path}/cache,{options}", source)
        argv = ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/cache:latest"]
        manifest = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
        return {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]}

    assert media_types("compression=gzip") == {"gzip"}
    assert media_types("compression=zstd") == {"gzip"}
    assert media_types("compression=zstd,force-compression=true") == {"zstd"}


def test_exporting_again_writes_no_layer_again(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    target = f"type=local,dest={tmp_path}/cache"
    daemon.lamina_ok("build", "--cache-to", target, source)
    blobs = tmp_path / "cache" / "blobs" / "sha256"
    before = {path.name: path.stat().st_ino for path in blobs.iterdir()}
    daemon.lamina_ok("build", "--cache-to", target, source)
    assert {path.name: path.stat().st_ino for path in blobs.iterdir()} == before


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_an_image_can_carry_its_cache(
    daemon: Daemon, other: Daemon, registry: Registry, source: Path, cli: str
) -> None:
    name = f"{registry.host}/inline:{cli}"
    if cli == "docker":
        daemon.docker_ok("build", "-t", name, "--build-arg", "BUILDKIT_INLINE_CACHE=1", source)
        daemon.lamina_ok("build", "-t", name, "--build-arg", "BUILDKIT_INLINE_CACHE=1", "--push", source)
    else:
        daemon.lamina_ok("build", "-t", name, "--cache-to", "type=inline", "--push", source)
    out = (other.docker_ok if cli == "docker" else other.lamina_ok)(
        "build", "-t", "built", "--cache-from", name, source
    )
    assert out.count("Using cache") == STEPS_OF_RESULT - 1
    assert made(other).split()[0] == made(daemon, name).split()[0]


def test_an_image_that_was_loaded_gives_its_cache(daemon: Daemon, other: Daemon, source: Path, tmp_path: Path) -> None:
    daemon.lamina_ok("build", "-t", "carrier", "--cache-to=type=inline", source)
    daemon.docker_ok("save", "-o", tmp_path / "carrier.tar", "carrier")
    other.docker_ok("load", "-i", tmp_path / "carrier.tar")
    out = other.docker_ok("build", "-t", "built", "--cache-from", "carrier", source)
    assert out.count("Using cache") == STEPS_OF_RESULT - 1


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_an_image_s_history_tells_what_its_layers_are(
    daemon: Daemon, own_daemon: Daemon, context: Path, tmp_path: Path, cli: str
) -> None:
    """The image and its base come to another daemon as archives, with nothing that tells of steps."""
    (context / "f").write_text("1")
    (context / "d").mkdir()
    (context / "d" / "g").write_text("2")
    (context / "Dockerfile").write_text(
        'FROM busybox\nENV A=1\nRUN date +%s%N > /made\nWORKDIR /w\nCOPY f d/ /deep/er/\nRUN date +%s%N > /tool\nCMD ["true"]\n'
    )
    daemon.docker_ok("build", "-t", "plain", context)
    daemon.docker_ok("save", "-o", tmp_path / "plain.tar", "plain", "busybox")
    own_daemon.docker_ok("load", "-i", tmp_path / "plain.tar")
    command = own_daemon.docker_ok if cli == "docker" else own_daemon.lamina_ok
    assert command("build", "-t", "again", "--cache-from", "plain", context).count("Using cache") == 6
    ids = own_daemon.docker_ok("inspect", "-f", "{{.Id}}", "plain", "again").split()
    assert ids[0] == ids[1]
    (context / "d" / "g").write_text("3")
    changed = command("build", "--cache-from", "plain", "-t", "changed", context)
    assert changed.count("Using cache") == 3
    assert own_daemon.docker_ok("run", "--rm", "changed", "cat", "/deep/er/g") == "3"


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        ("RUN <<E\n#!/bin/sh\necho 1 > /made\nE\n", "RUN <<E\n#!/bin/sh\necho 2 > /made\nE\n", []),
        ("RUN ip addr > /made\n", "RUN --network=none ip addr > /made\n", []),
        ("RUN date > /made\n", "RUN date > /made\n", ["--network=none"]),
        ("RUN date > /made\n", "RUN date > /made\n", ["--timestamp=1000000000"]),
    ],
)
def test_what_a_history_does_not_tell_is_done_anew(
    daemon: Daemon, own_daemon: Daemon, context: Path, tmp_path: Path, before: str, after: str, options: list[str]
) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\n{before}")
    daemon.lamina_ok("build", "-t", "plain", context)
    daemon.docker_ok("save", "-o", tmp_path / "plain.tar", "plain", "busybox")
    own_daemon.docker_ok("load", "-i", tmp_path / "plain.tar")
    assert "Using cache" in own_daemon.lamina_ok("build", "--cache-from=plain", context) or "<<" in before
    own_daemon.docker_ok("builder", "prune", "-af")
    (context / "Dockerfile").write_text(f"FROM busybox\n{after}")
    assert "Using cache" not in own_daemon.lamina_ok("build", "--cache-from=plain", *options, context)


def test_a_child_does_not_inherit_the_cache_of_its_base(daemon: Daemon, source: Path) -> None:
    daemon.lamina_ok("build", "-t", "carrier", "--cache-to=type=inline", source)
    (source / "Dockerfile").write_text("FROM carrier\nENV B=2\n")
    daemon.lamina_ok("build", "-t", "child", source)
    image_id = daemon.docker_ok("inspect", "-f", "{{.Id}}", "child").removeprefix("sha256:")
    assert "lamina.build.cache.outcomes" not in (daemon.root / "content" / "blobs" / "sha256" / image_id).read_text()


def test_a_cache_that_cannot_be_had_costs_only_time(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    out = daemon.lamina_ok("build", "--cache-from", f"type=local,src={tmp_path}/none", source)
    assert "[Warning] no cache from" in out
    out = daemon.lamina_ok("build", "--cache-from", f"127.0.0.1:{registries.free_port()}/nobody:x", source)
    assert "does not answer" in out


def test_a_damaged_layer_of_a_cache_is_made_anew(daemon: Daemon, other: Daemon, source: Path, tmp_path: Path) -> None:
    daemon.lamina_ok("build", "-t", "built", "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", source)
    manifest_name = json.loads((tmp_path / "cache" / "index.json").read_bytes())["manifests"][0]["digest"]
    blobs = tmp_path / "cache" / "blobs" / "sha256"
    manifest = json.loads((blobs / manifest_name.removeprefix("sha256:")).read_bytes())
    for layer in manifest["layers"]:
        (blobs / layer["digest"].removeprefix("sha256:")).write_bytes(b"not a layer")
    out = other.lamina_ok("build", "-t", "built", "--cache-from", f"type=local,src={tmp_path}/cache", source)
    assert "a cached layer cannot be had" in out
    assert made(other) != made(daemon)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--cache-to=type=local", "dest is required"),
        ("--cache-to=type=gha", "cache type 'gha' is not supported"),
        ("--cache-to=type=registry,ref=x,mode=all", "invalid cache export mode 'all'"),
        ("--cache-to=type=registry,ref=x,compression=lz4", "unsupported layer compression type: lz4"),
        ("--cache-to=type=registry,ref=x,nonsense=1", "unknown option 'nonsense'"),
        ("--cache-from=type=registry,ref=UPPER", "must be lowercase"),
        ("--cache-from=dest=x", "a cache needs a type"),
        ("--cache-to=type=local,x", "invalid value x"),
        ("--cache-to=type=registry,ref=x,compression-level=15", "it must be a number from 1 to 9"),
        ("--cache-to=type=registry,ref=x,compression=zstd,compression-level=²", "it must be a number from 1 to 22"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(daemon: Daemon, source: Path, option: str, message: str) -> None:
    result = daemon.lamina("build", option, source)
    assert result.code != 0
    assert message in result.err


def test_an_export_that_fails_fails_the_build_unless_it_may(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = f"type=local,dest={tmp_path}/file/cache"
    result = daemon.lamina("build", "--cache-to", target, source)
    assert result.code != 0
    assert "the cache was not exported" in daemon.lamina_ok(
        "build", "--cache-to", f"{target},ignore-error=true", source
    )


def test_a_built_image_is_pushed_and_others_can_run_it(
    daemon: Daemon, registry: Registry, source: Path, tmp_path: Path
) -> None:
    name = f"{registry.host}/pushed:one"
    out = daemon.lamina_ok("build", "-t", name, "--push", "--metadata-file", tmp_path / "metadata.json", source)
    argv = ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert f"{name}: digest: {found['Digest']}" in out
    assert json.loads((tmp_path / "metadata.json").read_text())["containerimage.digest"] == found["Digest"]
    copied = tmp_path / "copied.tar"
    argv = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{copied}:copied:latest"]
    subprocess.run(argv, check=True, capture_output=True)
    daemon.docker_ok("load", "-i", copied)
    assert made(daemon, "copied") == made(daemon, name)


def test_a_pulled_base_s_layers_are_pushed_as_they_came(
    daemon: Daemon, own_daemon: Daemon, registry: Registry, source: Path
) -> None:
    base = f"{registry.host}/base/of:pushed"
    daemon.lamina_ok("build", "-t", base, "--push", source)
    (source / "Dockerfile").write_text(f"FROM {base}\nRUN echo more > /more\n")
    name = f"{registry.host}/child/of:pushed"
    own_daemon.lamina_ok("build", "-t", name, "--push", source)

    def layers(image: str) -> list[str]:
        argv = ["skopeo", "inspect", "--tls-verify=false", f"docker://{image}"]
        found: list[str] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["Layers"]
        return found

    assert layers(name)[:-1] == layers(base)


def test_pushing_again_sends_nothing_again(daemon: Daemon, registry: Registry, source: Path) -> None:
    name = f"{registry.host}/again:one"
    first = daemon.lamina_ok("build", "-t", name, "-o", f"type=image,name={name},push=true", source)
    before = registry.blobs()
    second = daemon.lamina_ok("build", "-t", name, "-o", f"type=registry,name={name}", source)
    assert registry.blobs() == before
    assert first.splitlines()[-3:] == second.splitlines()[-3:]


def test_a_push_needs_a_name_and_a_registry_that_answers(daemon: Daemon, source: Path) -> None:
    assert "tag is needed when pushing" in daemon.lamina("build", "--push", source).err
    result = daemon.lamina("build", "--push", "-t", f"127.0.0.1:{registries.free_port()}/x", source)
    assert result.code != 0
    assert "does not answer" in result.err


def test_a_registry_that_asks_who_is_there_is_told(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    with registries.serving(tmp_path / "guarded", htpasswd=registries.htpasswd_line()) as guarded:
        name = f"{guarded.host}/guarded:one"
        stranger = {"DOCKER_CONFIG": str(tmp_path / "nowhere")}
        refused = daemon.lamina("build", "-t", name, "--push", source, env=stranger)
        assert refused.code != 0
        assert "access denied" in refused.err
        known = {"DOCKER_CONFIG": str(registries.docker_config(tmp_path / "docker", guarded.host))}
        accepted = daemon.lamina("build", "-t", name, "--push", source, env=known)
        assert accepted.code == 0, accepted.err
        assert registries.PASSWORD not in daemon.log
