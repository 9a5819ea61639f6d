"""Clients by TCP: with certificates and without, and by WebSocket."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from conftest import LAMINA, Daemon, serving


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def openssl(*argv: str | Path) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


def sign(directory: Path, name: str, subject: str, extensions: str) -> None:
    """A key and a certificate of the directory's authority."""
    key, request, file = directory / f"{name}-key.pem", directory / f"{name}.csr", directory / f"{name}.ext"
    file.write_text(extensions)
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={subject}")
    authority: list[str | Path] = ["-CA", directory / "ca.pem", "-CAkey", directory / "ca-key.pem", "-CAcreateserial"]
    openssl(
        "x509", "-req", "-in", request, *authority, "-out", directory / f"{name}.pem", "-days", "2", "-extfile", file
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    authority: list[str | Path] = [
        "-keyout",
        directory / "ca-key.pem",
        "-out",
        directory / "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
    ]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *authority)
    sign(directory, "server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    sign(directory, "cert", "client", "extendedKeyUsage=clientAuth\n")
    (directory / "cert-key.pem").rename(directory / "key.pem")
    return directory


@pytest.fixture(scope="module")
def encrypted(
    needs_root: None, tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path, certificates: Path
) -> Iterator[tuple[Daemon, str]]:
    port = free_port()
    files = ["--tlscacert", certificates / "ca.pem", "--tlscert", certificates / "server.pem"]
    options = ["--tlsverify", *map(str, files), "--tlskey", str(certificates / "server-key.pem")]
    with serving(
        tmp_path_factory.mktemp("tls"), busybox_tar, [*options, "--host", f"tcp://127.0.0.1:{port}"]
    ) as served:
        yield served, f"tcp://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def plain(
    needs_root: None, tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path
) -> Iterator[tuple[Daemon, str]]:
    port = free_port()
    with serving(tmp_path_factory.mktemp("tcp"), busybox_tar, ["--host", f"tcp://127.0.0.1:{port}"]) as served:
        yield served, f"tcp://127.0.0.1:{port}"


def run(
    host: str,
    *argv: str | Path,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    command: str | Path = "docker",
) -> subprocess.CompletedProcess[bytes]:
    whole = {**os.environ, **(env or {})}
    return subprocess.run(
        [command, *(["-H", host] if host else []), *argv], input=data, capture_output=True, timeout=60, env=whole
    )


def test_a_client_with_a_certificate_does_all_it_could_do_locally(
    encrypted: tuple[Daemon, str], certificates: Path
) -> None:
    _, host = encrypted
    trust = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    assert run(host, "run", "--rm", "busybox", "echo", "hi", env=trust).stdout == b"hi\n"
    # the client's end of input is the process's, and what it says then still arrives
    script = "cat; echo after; exit 3"
    done = run(host, "run", "--rm", "-i", "busybox", "sh", "-c", script, data=b"x" * 300_000, env=trust)
    assert (done.returncode, done.stdout) == (3, b"x" * 300_000 + b"after\n")
    assert run(host, "run", "-d", "--name", "far", "busybox", "sleep", "1000", env=trust).returncode == 0
    large = run(host, "exec", "far", "sh", "-c", "head -c 20000000 /dev/zero", env=trust)
    assert large.stdout == bytes(20_000_000)
    assert run(host, "cp", "far:/bin/busybox", "-", env=trust).stdout.startswith(b"busybox")
    assert run(host, "rm", "-f", "far", env=trust).returncode == 0


def test_a_client_without_one_is_not_heard(encrypted: tuple[Daemon, str], certificates: Path) -> None:
    daemon, host = encrypted
    refused = run(host, "version")
    assert refused.returncode == 1
    done = run(host, "--tls", "--tlscacert", certificates / "ca.pem", "version")
    assert done.returncode == 1
    assert b"certificate required" in done.stderr or b"bad certificate" in done.stderr
    assert "Traceback" not in daemon.log


def test_a_certificate_of_another_authority_is_not_taken(encrypted: tuple[Daemon, str], tmp_path: Path) -> None:
    _, host = encrypted
    other: list[str | Path] = [
        "-keyout",
        tmp_path / "key.pem",
        "-out",
        tmp_path / "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=stranger",
    ]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *other)
    files: list[str | Path] = ["--tlscert", tmp_path / "cert.pem", "--tlskey", tmp_path / "key.pem"]
    assert run(host, "--tls", *files, "version").returncode == 1


def test_a_daemon_whose_certificate_cannot_be_read_says_so(tmp_path: Path) -> None:
    argv = [str(LAMINA), "daemon", "--root", str(tmp_path / "r"), "--run-root", str(tmp_path / "rr")]
    argv += ["--tls", "--tlscert", str(tmp_path / "none.pem"), "--tlskey", str(tmp_path / "none")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "Could not load X509 key pair" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_client_attaches_by_websocket(plain: tuple[Daemon, str]) -> None:
    _, host = plain
    client: Any = docker.APIClient(base_url=host, version="auto")
    script = ["sh", "-c", "read x; echo got $x; echo err >&2"]
    container = client.create_container("busybox", script, stdin_open=True)
    params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    stream = client.attach_socket(container, params=params, ws=True)
    client.start(container)
    stream.ping()
    stream.send("hello\n")
    said = b""
    while message := stream.recv():
        said += message.encode() if isinstance(message, str) else message
    assert set(said.decode().splitlines()) == {"got hello", "err"}
    stream.shutdown()
    assert client.wait(container)["StatusCode"] == 0
    client.remove_container(container)
    client.close()


def test_what_asks_for_no_websocket_gets_none(plain: tuple[Daemon, str]) -> None:
    _, host = plain
    client: Any = docker.APIClient(base_url=host, version="auto")
    container = client.create_container("busybox", "true")
    response = client.get(f"{client.base_url}/v1.47/containers/{container['Id']}/attach/ws")
    assert response.status_code == 400
    client.remove_container(container)
    client.close()


def test_a_client_by_tcp_may_finish_writing_and_go_on_reading(plain: tuple[Daemon, str]) -> None:
    _, host = plain
    done = run(host, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo after", data=b"before\n")
    assert done.stdout == b"before\nafter\n"


@pytest.mark.parametrize("command", ["docker", LAMINA])
def test_both_command_lines_speak_tls(encrypted: tuple[Daemon, str], certificates: Path, command: str | Path) -> None:
    _, host = encrypted
    files: list[str | Path] = ["--tlscacert", certificates / "ca.pem", "--tlscert", certificates / "cert.pem"]
    files += ["--tlskey", certificates / "key.pem", "--tlsverify"]
    script = "cat; echo after; exit 3"
    argv: list[str | Path] = [*files, "run", "--rm", "-i", "busybox", "sh", "-c", script]
    done = run(host, *argv, data=b"y" * 200_000, command=command)
    assert (done.returncode, done.stdout) == (3, b"y" * 200_000 + b"after\n")
    trust = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    assert b"busybox" in run(host, "images", env=trust, command=command).stdout
    assert run(host, "images", command=command).returncode == 1


def test_a_context_of_docker_s_leads_both_command_lines(
    encrypted: tuple[Daemon, str], certificates: Path, tmp_path: Path
) -> None:
    daemon, host = encrypted
    own = {"DOCKER_CONFIG": str(tmp_path)}
    far = f"host={host},ca={certificates}/ca.pem,cert={certificates}/cert.pem,key={certificates}/key.pem"
    for name, endpoint in (("near", f"host={daemon.host}"), ("far", far)):
        assert run("", "context", "create", name, "--docker", endpoint, env=own).returncode == 0
    for command in ("docker", LAMINA):
        for name in ("near", "far"):
            done = run("", "--context", name, "run", "--rm", "busybox", "echo", name, env=own, command=command)
            assert done.stdout == f"{name}\n".encode(), done.stderr
        chosen = run("", "images", env={**own, "DOCKER_CONTEXT": "far"}, command=command)
        assert b"busybox" in chosen.stdout
    result = run("", "--context", "nowhere", "ps", env=own, command=LAMINA)
    assert b'context "nowhere": context not found' in result.stderr
