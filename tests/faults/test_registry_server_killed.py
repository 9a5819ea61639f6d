"""lamina's registry, killed while blobs come in and while garbage goes: what was acknowledged is there, what was not is not."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from registries import OwnRegistry, serving_own

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Client:
    """Pushes and pulls, and keeps what was acknowledged."""

    def __init__(self, registry: OwnRegistry) -> None:
        self._registry = registry
        self._pool = urllib3.PoolManager(retries=False, maxsize=4)
        self.acknowledged: dict[str, bytes] = {}

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._pool.request(method, f"http://{self._registry.host}{path}", body=body, headers=sent, timeout=20)

    def push(self, name: str, tag: str, *blobs: bytes) -> bytes:
        """Push an image whose layers are *blobs*; returns its manifest. Raises HTTPError, AssertionError."""
        for blob in (b"{}", *blobs):
            if self.ask("HEAD", f"/v2/{name}/blobs/{digest(blob)}").status == 200:
                continue
            begun = self.ask("POST", f"/v2/{name}/blobs/uploads/")
            assert begun.status == 202
            done = self.ask("PUT", f"{begun.headers['Location']}?digest={digest(blob)}", blob)
            assert done.status == 201, done.data
        layers = [{"mediaType": "a/b", "digest": digest(blob), "size": len(blob)} for blob in blobs]
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        data = json.dumps({**document, "annotations": {"tag": tag}}).encode()
        put = self.ask("PUT", f"/v2/{name}/manifests/{tag}", data, Content_Type=OCI_MANIFEST)
        assert put.status == 201, put.data
        self.acknowledged[f"{name}:{tag}"] = data
        return data

    def check(self, reference: str, manifest: bytes) -> None:
        """An image is there, to its last byte."""
        name, _, tag = reference.partition(":")
        got = self.ask("GET", f"/v2/{name}/manifests/{tag}")
        assert got.data == manifest
        for layer in json.loads(manifest)["layers"]:
            blob = self.ask("GET", f"/v2/{name}/blobs/{layer['digest']}")
            assert blob.status == 200, f"{reference}: {layer['digest']} is lost"
            assert digest(blob.data) == layer["digest"]


@pytest.fixture
def eager(tmp_path: Path) -> Iterator[OwnRegistry]:
    """A registry that collects without end, and keeps little that nobody needs."""
    with serving_own(tmp_path / "eager", "--collect-every", "0.05", "--keep-unused", "2") as made:
        yield made


def test_every_acknowledged_push_is_pullable_however_often_the_server_is_killed(eager: OwnRegistry) -> None:
    """Images with common layers come and go, garbage is collected all the while, and the server is killed eight times."""
    client, ended = Client(eager), threading.Event()
    gone: set[str] = set()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        number = 0
        while not ended.is_set():
            number += 1
            blobs = [random.Random(chance.randrange(6)).randbytes(200_000 + 1000 * k) for k in range(3)]
            name = f"r{seed}:{number}"
            try:
                client.push(f"r{seed}", str(number), *blobs)
                if number % 3 == 0:
                    client.acknowledged.pop(name)
                    gone.add(name)
                    client.ask("DELETE", f"/v2/r{seed}/manifests/{number}")
            except (urllib3.exceptions.HTTPError, AssertionError, OSError):
                time.sleep(0.02)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            time.sleep(0.7)
            eager.kill()
            eager.start()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(client.acknowledged) >= 8
    for reference, manifest in dict(client.acknowledged).items():
        client.check(reference, manifest)
    for path in eager.root.glob("blobs/*/*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert eager.blobs()
    assert list((eager.root / "trash").iterdir()) == []


def test_what_nobody_needs_goes_and_what_somebody_is_pushing_stays(tmp_path: Path) -> None:
    with serving_own(tmp_path / "own", "--collect-every", "0") as own:
        client = Client(own)
        client.push("kept", "1", b"kept layer")
        data = client.push("gone", "1", b"gone layer", b"kept layer")
        assert client.ask("DELETE", f"/v2/gone/manifests/{digest(data)}").status == 202
        begun = client.ask("POST", "/v2/kept/blobs/uploads/")
        client.ask("PATCH", begun.headers["Location"], b"on its way")

        def collect(*options: str) -> str:
            import subprocess

            from registries import LAMINA

            argv = [LAMINA, "registry", "serve", "--root", str(own.root), "--garbage-collect", *options]
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

        gone = hashlib.sha256(b"gone layer").hexdigest()
        assert collect() == "removed 0 blobs, 0 bytes\n"  # it was needed a moment ago
        assert collect("--keep-unused", "-5", "--dry-run") == "would remove 1 blobs, 10 bytes\n"
        assert gone in own.blobs()
        assert collect("--keep-unused", "-5") == "removed 1 blobs, 10 bytes\n"
        assert gone not in own.blobs()
        client.check("kept:1", client.acknowledged["kept:1"])
        whole = b"on its way"
        put = client.ask("PUT", f"{begun.headers['Location']}?digest={digest(whole)}")
        assert put.status == 201
        abandoned = client.ask("POST", "/v2/kept/blobs/uploads/").headers["Location"]
        collect("--keep-uploads", "-5")
        assert client.ask("PATCH", abandoned, b"x").status == 404
        assert list((own.root / "uploads").iterdir()) == []


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    with serving_own(tmp_path / "own") as own:
        client = Client(own)
        place = client.ask("POST", "/v2/resumed/blobs/uploads/").headers["Location"]
        assert client.ask("PATCH", place, data[:2_000_000]).status == 202
        own.kill()
        own.start()
        state = client.ask("GET", place)
        assert (state.status, state.headers["Range"]) == (204, "0-1999999")
        assert client.ask("PATCH", place, data[2_000_000:], Content_Range="2000000-2999999").status == 202
        assert client.ask("PUT", f"{place}?digest={digest(data)}").status == 201
        assert client.ask("GET", f"/v2/resumed/blobs/{digest(data)}").data == data


def test_a_client_that_goes_away_in_the_middle_goes_on(tmp_path: Path) -> None:
    import socket

    with serving_own(tmp_path / "own") as own:
        client = Client(own)
        place = client.ask("POST", "/v2/left/blobs/uploads/").headers["Location"]
        with socket.create_connection(("127.0.0.1", own.port)) as raw:
            raw.sendall(f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 5000)
            time.sleep(0.3)
        time.sleep(0.2)
        assert client.ask("GET", place).headers["Range"] == "0-4999"
        rest = client.ask("PATCH", place, b"y" * 10, Content_Range="5000-5009")
        assert rest.status == 202
        data = b"x" * 5000 + b"y" * 10
        assert client.ask("PUT", f"{place}?digest={digest(data)}").status == 201
