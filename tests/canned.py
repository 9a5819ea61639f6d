"""A daemon that only says what it was given, for what a real one does not say at will: both command lines must show it alike."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from conftest import LAMINA, Result

_VERSION = "1.51"


class Canned:
    """Answers by path, without version and query."""

    def __init__(self, socket_path: Path, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self._host = f"unix://{socket_path}"

    def docker(self, *args: str) -> Result:
        """Run the real docker command line."""
        return self._run(["docker", *args])

    def lamina(self, *args: str) -> Result:
        """Run the lamina command line."""
        return self._run([str(LAMINA), *args])

    def _run(self, argv: list[str]) -> Result:
        env = {**os.environ, "LAMINA_HOST": self._host, "DOCKER_HOST": self._host}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=env, check=False)
        return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(directory: Path, answers: Mapping[str, Any]) -> Iterator[Canned]:
    """Serve *answers* on a socket in a directory."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            path = re.sub(r"^/v[\d.]+", "", self.path.partition("?")[0])
            self._answer(json.dumps(answers.get(path, {"message": "nothing"})).encode() + b"\n", path in answers)

        def _answer(self, body: bytes, known: bool = True) -> None:
            self.send_response(200 if known else 404)
            for name, value in (("Api-Version", _VERSION), ("OSType", "linux"), ("Content-Length", len(body))):
                self.send_header(name, str(value))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

    path = directory / "canned.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Canned(path, answers)
        finally:
            server.shutdown()
            thread.join()
