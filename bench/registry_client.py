"""One client of a registry under load: ``HOST WHAT TIMES``. It makes ready, says so, waits for a line, does its work, and says so.

Asked to do nothing, it puts what the others read.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import sys

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_SIZES = {"1": 1 << 20, "100": 100_000_000}
_READ_BYTES = 1 << 20


def main(host: str, what: str, times: int) -> None:
    """The process. *what* is ``manifest``, or ``pull-`` or ``push-`` with a size in MB."""
    connection = http.client.HTTPConnection(host, timeout=120)
    kind, _, size = what.partition("-")
    blob = random.Random(5).randbytes(_SIZES.get(size, 1000))
    if times == 0:
        _put(connection, "bench/read", blob, _digest(blob))
        _put(connection, "bench/read", b"{}", _digest(b"{}"))
        pointer = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _digest(b"{}"), "size": 2}
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": _digest(blob), "size": len(blob)}
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": pointer, "layers": [layer]}
        path = "/v2/bench/read/manifests/1"
        _ask(connection, "PUT", path, 201, json.dumps(manifest).encode(), {"Content-Type": _MANIFEST})
        return
    fresh = [os.urandom(len(blob)) for _ in range(times)] if kind == "push" else []
    digests = [_digest(data) for data in fresh]
    path = f"/v2/bench/read/blobs/{_digest(blob)}" if kind == "pull" else "/v2/bench/read/manifests/1"
    print("ready", flush=True)
    sys.stdin.readline()
    if kind == "push":
        for data, digest in zip(fresh, digests, strict=True):
            _put(connection, "bench/push", data, digest)
    else:
        for _ in range(times):
            _ask(connection, "GET", path, 200, None, {"Accept": _MANIFEST})
    print("done", flush=True)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _put(connection: http.client.HTTPConnection, name: str, data: bytes, digest: str) -> None:
    location = _ask(connection, "POST", f"/v2/{name}/blobs/uploads/", 202)
    path = "/" + location.split("/", 3)[3] if "://" in location else location
    _ask(connection, "PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", 201, data)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    expected: int,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> str:
    """One request, whose answer is read to its end; returns its Location."""
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    while response.read(_READ_BYTES):
        pass
    if response.status != expected:
        raise RuntimeError(f"{method} {path}: {response.status}")
    return response.getheader("Location") or ""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
