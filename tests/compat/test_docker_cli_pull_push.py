"""Pull, push, login and search through docker's command line and docker-py, with Debian's docker-registry, skopeo and podman as peers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker as docker_py
import pytest

import registries
from conftest import Daemon, serving
from registries import PASSWORD, USER, Registry, put_manifest
from token_server import TokenServer, giving_tokens
from troubled import troubled


def build(daemon: Daemon, context: Path, name: str, *lines: str) -> str:
    """Build a small image on busybox, which is another one than that."""
    (context / "Dockerfile").write_text("\n".join(["FROM busybox", f"LABEL name={name}", *lines]) + "\n")
    daemon.docker_ok("build", "-q", "-t", name, context)
    return name


def skopeo(*args: str) -> str:
    done = subprocess.run(["skopeo", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with giving_tokens(tmp_path_factory.mktemp("tokens"), USER, PASSWORD) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, token_server: TokenServer) -> Iterator[Registry]:
    """A registry that wants tokens."""
    with registries.serving(tmp_path_factory.mktemp("guarded"), more=token_server.config()) as made:
        yield made


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_push_and_pull_tell_what_docker_tells(daemon: Daemon, registry: Registry, context: Path, cli: str) -> None:
    command = daemon.docker_ok if cli == "docker" else daemon.lamina_ok
    name = build(daemon, context, f"{registry.host}/told/{cli}:1", f"RUN echo {cli} > /text")
    out = command("push", name).splitlines()
    assert out[0] == f"The push refers to repository [{registry.host}/told/{cli}]"
    done = [line.split(": ", 1)[1] for line in out if line.endswith("Pushed") or ": Mounted from " in line]
    assert len(done) == 2
    assert "Pushed" in done
    digest = daemon.docker_ok("inspect", "-f", "{{index .RepoDigests 0}}", name).partition("@")[2]
    assert out[-1].startswith(f"1: digest: {digest} size: ")
    assert "Layer already exists" in command("push", name)
    daemon.docker_ok("rmi", name)
    lines = command("pull", name).splitlines()
    assert lines[0] == f"1: Pulling from told/{cli}"
    assert lines[-3:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}", name]
    assert sum(line.endswith(("Already exists", "Pull complete")) for line in lines) == 2
    assert command("pull", name).splitlines()[-2] == f"Status: Image is up to date for {name}"
    assert command("pull", "-q", name) == name
    assert daemon.docker_ok("run", "--rm", "--network", "none", name, "cat", "/text") == cli


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_run_pulls_what_is_missing(daemon: Daemon, registry: Registry, context: Path, cli: str) -> None:
    command = daemon.docker if cli == "docker" else daemon.lamina
    name = build(daemon, context, f"{registry.host}/missing/{cli}:1", f"RUN echo {cli} > /text")
    daemon.docker_ok("push", name)
    daemon.docker_ok("rmi", name)
    never = command("run", "--rm", "--pull", "never", name, "cat", "/text")
    assert never.code == 125
    ran = command("run", "--rm", "--network", "none", name, "cat", "/text")
    assert (ran.code, ran.out.strip()) == (0, cli)
    assert f"Unable to find image '{name}' locally" in ran.err
    assert f"Status: Downloaded newer image for {name}" in ran.err


def test_layers_of_a_sibling_repository_are_mounted(daemon: Daemon, registry: Registry, context: Path) -> None:
    name = build(daemon, context, f"{registry.host}/mount/from:1", "RUN echo mounted > /mounted")
    daemon.docker_ok("push", name)
    daemon.docker_ok("tag", name, f"{registry.host}/mount/to:1")
    assert "Mounted from mount/from" in daemon.docker_ok("push", f"{registry.host}/mount/to:1")


def test_all_tags_go_and_come(daemon: Daemon, registry: Registry, context: Path) -> None:
    for tag in ("a", "b"):
        build(daemon, context, f"{registry.host}/all/tags:{tag}", f"RUN echo {tag} > /tag")
    out = daemon.docker_ok("push", "-a", f"{registry.host}/all/tags")
    assert "a: digest: sha256:" in out
    assert "b: digest: sha256:" in out
    daemon.docker_ok("rmi", f"{registry.host}/all/tags:a", f"{registry.host}/all/tags:b")
    daemon.docker_ok("pull", "-a", f"{registry.host}/all/tags")
    listed = daemon.docker_ok("images", "--format", "{{.Tag}}", f"{registry.host}/all/tags").split()
    assert sorted(listed) == ["a", "b"]


def test_an_image_is_pulled_by_its_digest(daemon: Daemon, registry: Registry, context: Path) -> None:
    name = build(daemon, context, f"{registry.host}/by/digest:1", "RUN echo digest > /d")
    daemon.docker_ok("push", name)
    exact = daemon.docker_ok("inspect", "-f", "{{index .RepoDigests 0}}", name)
    daemon.docker_ok("rmi", name)
    assert f"Status: Downloaded newer image for {exact}" in daemon.docker_ok("pull", exact)
    assert daemon.docker_ok("run", "--rm", "--network", "none", exact, "cat", "/d") == "digest"


def test_what_is_missing_is_told_as_docker_tells_it(daemon: Daemon, registry: Registry) -> None:
    name = f"{registry.host}/no/such:1"
    pulled = daemon.docker("pull", name)
    assert pulled.code == 1
    assert pulled.err.strip() == (
        f"Error response from daemon: manifest for {name} not found: manifest unknown: manifest unknown"
    )
    pushed = daemon.docker("push", f"{registry.host}/no/image:1")
    assert f"An image does not exist locally with the tag: {registry.host}/no/image" in pushed.err


def test_docker_py_pulls_and_pushes(daemon: Daemon, registry: Registry, context: Path) -> None:
    name = build(daemon, context, f"{registry.host}/docker/py:1", "RUN echo py > /py")
    client = docker_py.DockerClient(base_url=daemon.host, timeout=60)
    try:
        told = list(client.images.push(f"{registry.host}/docker/py", tag="1", stream=True, decode=True))
        aux = next(line["aux"] for line in told if "aux" in line)
        assert aux["Tag"] == "1"
        assert not any("error" in line for line in told)
        client.images.remove(name)
        image = client.images.pull(f"{registry.host}/docker/py", tag="1")
        assert image.attrs["RepoDigests"] == [f"{registry.host}/docker/py@{aux['Digest']}"]
        data = client.images.get_registry_data(name)
        assert data.id == aux["Digest"]
        assert data.has_platform("linux/amd64")
        with pytest.raises(docker_py.errors.NotFound):
            client.images.pull(f"{registry.host}/docker/nosuch", tag="1")
    finally:
        client.close()


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_layers_go_in_the_form_that_was_asked_for(
    daemon: Daemon, registry: Registry, context: Path, compression: str
) -> None:
    name = build(daemon, context, f"{registry.host}/form/{compression}:1", f"RUN echo {compression} > /form")
    daemon.lamina_ok("push", "--compression", compression, name)
    manifest = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    suffix = "" if compression == "none" else f"+{compression}"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {f"application/vnd.oci.image.layer.v1.tar{suffix}"}
    daemon.docker_ok("rmi", name)
    daemon.docker_ok("pull", name)
    assert daemon.docker_ok("run", "--rm", "--network", "none", name, "cat", "/form") == compression


def test_a_pulled_image_keeps_its_digest_wherever_it_goes(
    daemon: Daemon, registry: Registry, context: Path, tmp_path: Path
) -> None:
    """As docker's old schema, with layers that skopeo compressed."""
    name = build(daemon, context, f"{registry.host}/kept/first:1", "RUN echo kept > /kept")
    daemon.docker_ok("save", "-o", tmp_path / "kept.tar", name)
    source = f"docker://{registry.host}/kept/skopeo:1"
    skopeo("copy", "--dest-tls-verify=false", "--format=v2s2", f"docker-archive:{tmp_path}/kept.tar", source)
    digest = json.loads(skopeo("inspect", "--tls-verify=false", source))["Digest"]
    daemon.docker_ok("rmi", name)
    daemon.docker_ok("pull", f"{registry.host}/kept/skopeo:1")
    daemon.docker_ok("tag", f"{registry.host}/kept/skopeo:1", f"{registry.host}/kept/again:2")
    assert f"2: digest: {digest} " in daemon.docker_ok("push", f"{registry.host}/kept/again:2")


def test_podman_pulls_what_was_pushed_and_the_other_way_round(
    daemon: Daemon, registry: Registry, context: Path, podman_root: Path
) -> None:
    name = build(daemon, context, f"{registry.host}/podman/there:1", "RUN echo podman > /p", "ENV A=b")
    daemon.docker_ok("push", name)
    storage = ["--root", f"{podman_root}/root", "--runroot", f"{podman_root}/run", "--storage-driver", "vfs"]

    def podman(*args: str) -> str:
        done = subprocess.run(["podman", *storage, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    podman("pull", "-q", "--tls-verify=false", name)
    assert podman("image", "inspect", "-f", "{{.Id}}", name) == daemon.docker_ok(
        "inspect", "-f", "{{.Id}}", name
    ).removeprefix("sha256:")
    podman("tag", name, f"{registry.host}/podman/back:1")
    podman("push", "-q", "--tls-verify=false", f"{registry.host}/podman/back:1")
    daemon.docker_ok("pull", f"{registry.host}/podman/back:1")
    back = f"{registry.host}/podman/back:1"
    assert daemon.docker_ok("run", "--rm", "--network", "none", back, "sh", "-c", "cat /p; echo $A") == "podman\nb"


def test_of_an_index_the_platform_is_chosen(daemon: Daemon, registry: Registry, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    for architecture in ("amd64", "arm64"):
        (context / "Dockerfile").write_text(f"FROM scratch\nLABEL of={architecture}\nCOPY Dockerfile /\n")
        name = f"{registry.host}/many/platforms:{architecture}"
        daemon.lamina_ok("build", "-q", "--platform", f"linux/{architecture}", "-t", name, context)
        daemon.docker_ok("push", name)
        skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:{architecture}")
        daemon.docker_ok("rmi", name)
    index = json.loads((layout / "index.json").read_text())
    for entry, architecture in zip(index["manifests"], ("amd64", "arm64"), strict=True):
        entry["platform"] = {"os": "linux", "architecture": architecture}
        entry.pop("annotations")
    media_type = "application/vnd.oci.image.index.v1+json"
    put_manifest(registry.host, "many/platforms/manifests/all", media_type, {**index, "mediaType": media_type})
    name = f"{registry.host}/many/platforms:all"
    platforms = ((None, "amd64"), ("linux/arm64", "arm64"), (None, "amd64"), ("linux/arm64", "arm64"))
    for platform, expected in (*platforms, ("linux/amd64", "amd64")):
        daemon.docker_ok("pull", *(["--platform", platform] if platform else []), name)
        assert daemon.docker_ok("inspect", "-f", "{{.Config.Labels.of}}", name) == expected
    refused = daemon.docker("pull", "--platform", "linux/s390x", name)
    assert "no matching manifest for linux/s390x" in refused.err


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_who_logs_in_may_push_and_who_does_not_may_not(
    daemon: Daemon, guarded: Registry, context: Path, tmp_path: Path, cli: str
) -> None:
    command = daemon.docker if cli == "docker" else daemon.lamina
    env = {"DOCKER_CONFIG": str(tmp_path / "config")}
    name = build(daemon, context, f"{guarded.host}/private/{cli}:1", f"RUN echo {cli} > /text")
    assert command("push", name, env=env).code == 1
    wrong = command("login", "-u", USER, "-p", "wrong", guarded.host, env=env)
    assert wrong.code == 1
    assert "unauthorized: incorrect username or password" in wrong.err
    good = command("login", "-u", USER, "--password-stdin", guarded.host, data=PASSWORD.encode(), env=env)
    assert (good.code, good.out.strip().splitlines()[-1]) == (0, "Login Succeeded")
    kept = json.loads((tmp_path / "config" / "config.json").read_text())["auths"][guarded.host]
    assert kept.get("identitytoken")
    assert PASSWORD not in base64.b64decode(kept["auth"]).decode()
    assert os.stat(tmp_path / "config" / "config.json").st_mode & 0o777 == 0o600
    pushed = command("push", name, env=env)
    assert pushed.code == 0, pushed.err
    daemon.docker_ok("rmi", name)
    refused = command("pull", name)
    assert refused.code == 1
    assert "pull access denied for" in refused.err
    assert command("pull", name, env=env).code == 0
    assert command("logout", guarded.host, env=env).out.strip() == f"Removing login credentials for {guarded.host}"
    assert command("pull", f"{guarded.host}/private/other:1", env=env).code == 1


def test_a_login_with_a_password_alone(daemon: Daemon, tmp_path: Path, context: Path) -> None:
    with registries.serving(tmp_path / "basic", htpasswd=registries.htpasswd_line()) as basic:
        env = {"DOCKER_CONFIG": str(tmp_path / "config")}
        wrong = daemon.docker("login", "-u", USER, "-p", "wrong", basic.host, env=env)
        assert "failed with status: 401 Unauthorized" in wrong.err
        assert daemon.docker("login", "-u", USER, "-p", PASSWORD, basic.host, env=env).code == 0
        name = build(daemon, context, f"{basic.host}/basic:1", "RUN echo basic > /text")
        assert "no basic auth credentials" in daemon.docker("push", name).err
        assert daemon.docker("push", name, env=env).code == 0


def test_a_helper_keeps_what_a_login_learned(daemon: Daemon, guarded: Registry, tmp_path: Path) -> None:
    config, helper = tmp_path / "config", tmp_path / "docker-credential-test"
    config.mkdir()
    (config / "config.json").write_text('{"credsStore": "test"}')
    kept = tmp_path / "kept"
    helper.write_text(
        f"#!/bin/sh\ncase $1 in store) cat > {kept};; get) cat {kept} || {{ echo credentials not found; exit 1; }};; "
        f"erase) rm -f {kept};; list) echo '{{}}';; esac\n"
    )
    helper.chmod(0o755)
    env = {"DOCKER_CONFIG": str(config), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = daemon.lamina("login", "-u", USER, "-p", PASSWORD, guarded.host, env=env)
    assert done.code == 0, done.err
    assert json.loads(kept.read_text())["Username"] == "<token>"
    assert "auth" not in json.loads((config / "config.json").read_text())["auths"][guarded.host]
    assert daemon.lamina("pull", f"{guarded.host}/no/such", env=env).err.startswith("Error response from daemon: mani")
    assert daemon.docker("pull", f"{guarded.host}/no/such", env=env).err.startswith("Error response from daemon: mani")
    assert daemon.lamina("logout", guarded.host, env=env).code == 0
    assert not kept.exists()


def test_search_finds_repositories_of_a_registry(daemon: Daemon, registry: Registry, context: Path) -> None:
    daemon.docker_ok("push", build(daemon, context, f"{registry.host}/searched/needle:1"))
    assert f"{registry.host}/searched/needle" in daemon.docker_ok("search", f"{registry.host}/needle")
    assert daemon.lamina_ok("search", "--format", "{{.Name}}", f"{registry.host}/needle") == (
        f"{registry.host}/searched/needle"
    )


def test_mirrors_are_asked_in_their_order_and_rewritten(
    needs_root: None, registry: Registry, busybox_tar: Path, context: Path, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts" / "upstream.example"
    hosts.mkdir(parents=True)
    with troubled(registry.host) as way:
        (hosts / "hosts.toml").write_text(
            'server = "https://upstream.example"\n'
            '[host."http://127.0.0.1:1"]\ncapabilities = ["pull", "resolve"]\n'
            f'[host."http://{way.host}"]\ncapabilities = ["pull", "resolve"]\n'
            f'[host."http://{way.host}".rewrite]\n"^library/(.*)" = "mirrored/$1"\n'
        )
        options = ("--registry-hosts", str(tmp_path / "hosts"))
        with serving(tmp_path / "own", busybox_tar, options) as own:
            own.docker_ok("push", build(own, context, f"{registry.host}/mirrored/thing:1", "RUN echo m > /m"))
            own.docker_ok("rmi", f"{registry.host}/mirrored/thing:1")
            own.docker_ok("pull", "upstream.example/library/thing:1")
            assert (
                own.docker_ok("run", "--rm", "--network", "none", "upstream.example/library/thing:1", "cat", "/m")
                == "m"
            )
        assert way.count("GET", "/v2/mirrored/thing/") >= 2
        assert all("ns=upstream.example" in seen.path for seen in way.seen)


def test_a_hosts_file_that_makes_no_sense_is_named(
    needs_root: None, busybox_tar: Path, tmp_path: Path, context: Path
) -> None:
    hosts = tmp_path / "hosts" / "upstream.example"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text('[host."https://mirror.example"]\ncapabilites = ["pull"]\n')
    with serving(tmp_path / "own", busybox_tar, ("--registry-hosts", str(tmp_path / "hosts"))) as own:
        refused = own.docker("pull", "upstream.example/x")
        assert refused.code == 1
        assert "hosts.toml, https://mirror.example: unknown key 'capabilites'" in refused.err


def test_whom_to_trust_stands_in_certs_d(needs_root: None, busybox_tar: Path, tmp_path: Path, context: Path) -> None:
    """The registry is at the bridge's address, as those of loopback need not be trusted."""
    options = ("--registry-certs", str(tmp_path / "certs"))
    with serving(tmp_path / "own", busybox_tar, options) as own:
        own.docker_ok("run", "--rm", "busybox", "true")
        address = f"10.231.{int(own.token, 16) % 250}.1"
        pem = tmp_path / "both.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=registry", "-days", "2"]
        argv += ["-addext", f"subjectAltName=IP:{address}", "-keyout", str(pem), "-out", str(tmp_path / "ca.crt")]
        subprocess.run(argv, check=True, capture_output=True)
        pem.write_bytes(pem.read_bytes() + (tmp_path / "ca.crt").read_bytes())
        with registries.serving(tmp_path / "secure", tls=pem, address=address) as secure:
            image = build(own, context, f"{secure.host}/secure:1")
            assert "certificate verify failed" in own.docker("push", image).err
            certs = tmp_path / "certs" / secure.host
            certs.mkdir(parents=True)
            (certs / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
            own.docker_ok("push", image)
            own.docker_ok("rmi", image)
            own.docker_ok("pull", image)


def test_an_insecure_registry_is_one_that_is_named(
    needs_root: None, busybox_tar: Path, tmp_path: Path, context: Path
) -> None:
    for option in ((), ("--insecure-registry", "10.231.0.0/16")):
        with serving(tmp_path / f"own{len(option)}", busybox_tar, option) as own:
            own.docker_ok("run", "--rm", "busybox", "true")
            address = f"10.231.{int(own.token, 16) % 250}.1"
            with registries.serving(tmp_path / f"plain{len(option)}", address=address) as plain:
                image = build(own, context, f"{plain.host}/plain:1")
                assert own.docker("push", image).code == (0 if option else 1)
