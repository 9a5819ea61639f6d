"""Pulls and pushes over a network that cuts, corrupts, refuses and stalls, and through a daemon that is killed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Daemon, serving
from registries import Registry
from troubled import Trouble, TroubledRegistry, troubled
from waiting import wait_until

_LAYER_BYTES = 100_000_000


def tar_of(size: int, seed: int) -> bytes:
    """A layer whose bytes do not compress."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        header = tarfile.TarInfo("noise")
        header.size = size
        tar.addfile(header, io.BytesIO(random.Random(seed).randbytes(size)))
    return target.getvalue()


@pytest.fixture
def way(registry: Registry) -> Iterator[TroubledRegistry]:
    with troubled(registry.host) as made:
        yield made


def offered(daemon: Daemon, registry: Registry, name: str, size: int, seed: int = 1) -> str:
    """Put an image with one layer into the registry, none of which stays with the daemon; returns repository and tag."""
    daemon.docker_ok("import", "-", f"{registry.host}/{name}", data=tar_of(size, seed))
    daemon.docker_ok("push", f"{registry.host}/{name}")
    daemon.docker_ok("rmi", f"{registry.host}/{name}")
    return name


def cut_blobs(*places: int) -> Callable[[str, str], Trouble | None]:
    """Cut the answers with blobs, each after so many bytes."""
    left = list(places)
    return lambda method, path: (
        Trouble(cut_after=left.pop(0)) if method == "GET" and "/blobs/" in path and left else None
    )


def files_of(daemon: Daemon, name: str) -> str:
    """The hash of the only file of an image."""
    container = daemon.docker_ok("create", name, "x")
    try:
        done = subprocess.run(
            ["docker", "-H", daemon.host, "cp", f"{container}:/noise", "-"], capture_output=True, check=True
        )
    finally:
        daemon.docker_ok("rm", container)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        file = tar.extractfile("noise")
        assert file is not None
        return hashlib.sha256(file.read()).hexdigest()


def left_over(daemon: Daemon) -> list[str]:
    content = daemon.root / "content"
    return [str(path) for part in ("partial", "ingest") for path in (content / part).iterdir()]


def test_a_layer_that_is_cut_at_every_tenth_arrives_with_no_byte_sent_twice(
    daemon: Daemon, registry: Registry, way: TroubledRegistry
) -> None:
    name = offered(daemon, registry, "cut/tenths:1", _LAYER_BYTES)
    way.trouble = cut_blobs(*[_LAYER_BYTES // 10] * 9)
    daemon.docker_ok("pull", f"{way.host}/{name}")
    expected = hashlib.sha256(random.Random(1).randbytes(_LAYER_BYTES)).hexdigest()
    assert files_of(daemon, f"{way.host}/{name}") == expected
    assert way.blob_bytes() < _LAYER_BYTES * 1.02
    daemon.docker_ok("rmi", f"{way.host}/{name}")
    assert left_over(daemon) == []


def test_a_large_layer_comes_by_several_connections(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "ranges:1", _LAYER_BYTES, seed=2)
    daemon.docker_ok("pull", f"{way.host}/{name}")
    parts = [seen for seen in way.seen if seen.method == "GET" and "/blobs/" in seen.path and seen.range]
    assert len(parts) >= 4
    assert all(seen.status == 206 for seen in parts)
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_a_registry_without_ranges_serves(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "no/ranges:1", 60_000_000, seed=3)
    cut = [Trouble(cut_after=25_000_000, without_ranges=True)]

    def trouble(method: str, path: str) -> Trouble | None:
        if method != "GET" or "/blobs/" not in path:
            return None
        return cut.pop() if cut else Trouble(without_ranges=True)

    way.trouble = trouble
    daemon.docker_ok("pull", f"{way.host}/{name}")
    expected = hashlib.sha256(random.Random(3).randbytes(60_000_000)).hexdigest()
    assert files_of(daemon, f"{way.host}/{name}") == expected
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_corrupted_bytes_are_never_an_image(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "corrupt:1", 5_000_000, seed=4)
    way.trouble = lambda method, path: Trouble(corrupt_at=4_000_000) if method == "GET" and "/blobs/" in path else None
    pulled = daemon.docker("pull", f"{way.host}/{name}")
    assert pulled.code == 1
    assert "do not match sha256:" in pulled.err or "damaged" in pulled.err
    assert f"{way.host}/corrupt" not in daemon.docker_ok("images")
    assert left_over(daemon) == []
    way.trouble = lambda method, path: None
    daemon.docker_ok("pull", f"{way.host}/{name}")
    daemon.docker_ok("rmi", f"{way.host}/{name}")


@pytest.mark.parametrize("length", [100_000, 50_000_000])
def test_a_blob_of_a_wrong_length_is_taken_for_what_its_bytes_are(
    daemon: Daemon, registry: Registry, way: TroubledRegistry, length: int
) -> None:
    name = offered(daemon, registry, f"lengths/{length}:1", 200_000, seed=5)
    way.trouble = lambda method, path: (
        Trouble(claim_length=length) if method == "GET" and "/blobs/" in path and len(way.seen) < 9 else None
    )
    daemon.docker_ok("pull", f"{way.host}/{name}")
    assert files_of(daemon, f"{way.host}/{name}") == hashlib.sha256(random.Random(5).randbytes(200_000)).hexdigest()
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_a_manifest_that_is_cut_is_told(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "lengths/manifest:1", 1000, seed=5)
    way.trouble = lambda method, path: Trouble(claim_length=100) if method == "GET" and "/manifests/" in path else None
    pulled = daemon.docker("pull", f"{way.host}/{name}")
    assert pulled.code == 1
    assert "do not match sha256:" in pulled.err
    assert way.host not in daemon.docker_ok("images")


def test_a_redirect_loop_ends(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "loop:1", 1000, seed=6)
    way.trouble = lambda method, path: (
        Trouble(status=307, headers={"Location": path}) if "/blobs/" in path and method == "GET" else None
    )
    pulled = daemon.docker("pull", f"{way.host}/{name}")
    assert pulled.code == 1
    assert "redirects" in pulled.err


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_storm_that_passes_is_waited_for(
    daemon: Daemon, registry: Registry, way: TroubledRegistry, status: int
) -> None:
    name = offered(daemon, registry, f"storm/{status}:1", 1000, seed=7)
    storm = [1] * 2 if status != 401 else [1]
    headers = {"Retry-After": "0"} if status != 401 else {"WWW-Authenticate": f'Bearer realm="http://{way.host}/token"'}

    def trouble(method: str, path: str) -> Trouble | None:
        if path.startswith("/token"):
            return Trouble(status=200, body=json.dumps({"token": "x"}).encode())
        return Trouble(status=status, headers=headers) if storm and storm.pop() else None

    way.trouble = trouble
    daemon.docker_ok("pull", f"{way.host}/{name}")
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_a_storm_that_does_not_pass_is_told(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    way.trouble = lambda method, path: Trouble(status=429, headers={"Retry-After": "3600"})
    began = time.monotonic()
    pulled = daemon.docker("pull", f"{way.host}/storm:1")
    assert pulled.code == 1
    assert "429" in pulled.err
    assert time.monotonic() - began < 30


def test_a_slow_registry_does_not_make_the_daemon_slow(
    daemon: Daemon, registry: Registry, way: TroubledRegistry
) -> None:
    name = offered(daemon, registry, "slow:1", 3_000_000, seed=8)
    way.trouble = lambda method, path: Trouble(delay_s=0.03) if "/blobs/" in path else None
    pulling = threading.Thread(target=lambda: daemon.docker_ok("pull", f"{way.host}/{name}"))
    pulling.start()
    daemon.docker_ok("run", "--rm", "--network", "none", "busybox", "true")
    assert f"{way.host}/slow" not in daemon.docker_ok("images")
    pulling.join()
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_two_clients_share_one_download(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "shared:1", 3_000_000, seed=9)
    way.trouble = lambda method, path: Trouble(delay_s=0.02) if method == "GET" and "/blobs/" in path else None
    pulls = [threading.Thread(target=lambda: daemon.docker_ok("pull", f"{way.host}/{name}")) for _ in range(3)]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join()
    assert way.blob_bytes() < 3_100_000 + 3 * 2000
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_a_client_that_goes_away_ends_its_pull_alone(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "gone:1", 3_000_000, seed=10)
    way.trouble = lambda method, path: Trouble(delay_s=0.03) if method == "GET" and "/blobs/" in path else None
    argv = ["docker", "-H", daemon.host, "pull", f"{way.host}/{name}"]
    impatient = subprocess.Popen(argv, stdout=subprocess.PIPE)
    patient = threading.Thread(target=lambda: daemon.docker_ok("pull", f"{way.host}/{name}"))
    assert impatient.stdout is not None
    impatient.stdout.readline()
    patient.start()
    time.sleep(0.2)
    impatient.terminate()
    impatient.communicate(timeout=10)
    patient.join()
    assert way.host in daemon.docker_ok("images")
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_what_is_here_costs_one_head(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = offered(daemon, registry, "head:1", 1000, seed=11)
    daemon.docker_ok("pull", f"{way.host}/{name}")
    way.seen.clear()
    out = daemon.docker_ok("pull", f"{way.host}/{name}")
    assert "Image is up to date" in out
    assert [(seen.method, seen.path) for seen in way.seen] == [("HEAD", "/v2/head/manifests/1")]
    daemon.docker_ok("rmi", f"{way.host}/{name}")


def test_a_killed_daemon_goes_on_from_the_byte_it_had(
    own_daemon: Daemon, registry: Registry, way: TroubledRegistry
) -> None:
    name = offered(own_daemon, registry, "killed:1", 40_000_000, seed=12)
    way.trouble = lambda method, path: Trouble(delay_s=0.01) if method == "GET" and "/blobs/" in path else None
    pulling = subprocess.Popen(
        ["docker", "-H", own_daemon.host, "pull", f"{way.host}/{name}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    partial = own_daemon.root / "content" / "partial"
    wait_until(lambda: sum(p.stat().st_blocks * 512 for p in partial.iterdir()) > 15_000_000, "nothing comes")
    own_daemon.kill()
    pulling.communicate()
    wait_until(lambda: not _workers(own_daemon), "workers outlive their daemon")
    got = way.blob_bytes()
    way.seen.clear()
    way.trouble = lambda method, path: None
    own_daemon.start()
    assert way.host not in own_daemon.docker_ok("images")
    own_daemon.docker_ok("pull", f"{way.host}/{name}")
    expected = hashlib.sha256(random.Random(12).randbytes(40_000_000)).hexdigest()
    assert files_of(own_daemon, f"{way.host}/{name}") == expected
    assert way.blob_bytes() <= 41_000_000 - 0.8 * min(got, 15_000_000)
    assert left_over(own_daemon) == []


def _workers(daemon: Daemon) -> list[str]:
    mark = str(daemon.base).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(mark in os.readlink(fd).encode() for fd in (process / "fd").iterdir()):
                found.append(process.name)
        except OSError:
            continue
    return [pid for pid in found if pid != str(os.getpid())]


def test_an_upload_that_is_cut_goes_on(daemon: Daemon, registry: Registry, way: TroubledRegistry) -> None:
    name = f"{way.host}/upload/cut:1"
    daemon.docker_ok("import", "-", name, data=tar_of(50_000_000, 13))
    cuts = [Trouble(cut_upload_after=10_000_000) for _ in range(4)]

    def trouble(method: str, path: str) -> Trouble | None:
        return cuts.pop() if method in ("PATCH", "PUT") and "/blobs/uploads/" in path and cuts else None

    way.trouble = trouble
    daemon.docker_ok("push", name)
    assert cuts == []
    daemon.docker_ok("rmi", name)
    daemon.docker_ok("pull", name)
    assert files_of(daemon, name) == hashlib.sha256(random.Random(13).randbytes(50_000_000)).hexdigest()
    daemon.docker_ok("rmi", name)


def test_what_is_too_large_for_a_proxy_goes_in_chunks(
    daemon: Daemon, registry: Registry, way: TroubledRegistry
) -> None:
    name = f"{way.host}/upload/chunks:1"
    daemon.docker_ok("import", "-", name, data=tar_of(50_000_000, 14))
    seen = []

    def trouble(method: str, path: str) -> Trouble | None:
        if method == "PATCH":
            seen.append(path)
            return Trouble(status=413) if len(seen) == 1 else None
        return None

    way.trouble = trouble
    daemon.docker_ok("push", name)
    assert len(seen) >= 3
    daemon.docker_ok("rmi", name)
    daemon.docker_ok("pull", name)
    daemon.docker_ok("rmi", name)


def test_a_push_through_a_killed_daemon_is_done_again_or_pullable(
    own_daemon: Daemon, registry: Registry, way: TroubledRegistry
) -> None:
    name = f"{way.host}/push/killed:1"
    own_daemon.docker_ok("import", "-", name, data=tar_of(60_000_000, 15))
    argv = ["docker", "-H", own_daemon.host, "push", name]
    pushing = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: any(seen.method == "POST" for seen in way.seen), "no push begins")
    own_daemon.kill()
    pushing.communicate(timeout=30)
    assert pushing.returncode != 0
    own_daemon.start()
    assert list((own_daemon.root / "content" / "ingest").iterdir()) == []
    own_daemon.docker_ok("push", name)
    own_daemon.docker_ok("rmi", name)
    own_daemon.docker_ok("pull", name)


def test_a_full_disk_is_told_and_not_filled_for_ever(
    needs_root: None, registry: Registry, way: TroubledRegistry, busybox_tar: Path, tmp_path: Path, daemon: Daemon
) -> None:
    name = offered(daemon, registry, "full/disk:1", _LAYER_BYTES, seed=16)
    base = tmp_path / "small"
    base.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", base], check=True)
    try:
        with serving(base / "daemon", busybox_tar) as small:
            pulled = small.docker("pull", f"{way.host}/{name}")
            assert pulled.code == 1
            assert "no space left on device" in pulled.err.lower()
            assert left_over(small) == []
            assert way.host not in small.docker_ok("images")
            little = offered(daemon, registry, "full/little:1", 1_000_000, seed=17)
            small.docker_ok("pull", f"{way.host}/{little}")
    finally:
        subprocess.run(["umount", "-l", base], check=True)
