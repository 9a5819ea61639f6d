"""A build whose client goes away leaves nothing behind, whatever it was doing: the fixture's daemon looks for what is left."""

from __future__ import annotations

import io
import socket
import tarfile
import time

from conftest import Daemon

DOCKERFILE = b"FROM busybox\nRUN sleep 60\n"


def test_a_build_that_is_given_up_at_any_moment_leaves_nothing(own_daemon: Daemon) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        header = tarfile.TarInfo("Dockerfile")
        header.size = len(DOCKERFILE)
        tar.addfile(header, io.BytesIO(DOCKERFILE))
    body = context.getvalue()
    head = f"POST /v1.51/build HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n"
    for turn in range(40):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(own_daemon.socket_path))
            client.sendall(head.encode() + body)
            time.sleep(0.02 + turn * 0.005)
    deadline = time.monotonic() + 20
    mounts = own_daemon.run_root / "rootfs"
    while list(mounts.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(mounts.iterdir()) == []
    assert "Traceback" not in own_daemon.log
