"""A registry behind a network that does what the test says: it cuts, corrupts, slows down, refuses, and counts."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_BLOCK = 64 << 10
_DROPPED = ("connection", "transfer-encoding", "keep-alive")


@dataclass
class Trouble:
    """What befalls one request. Bytes are those of the body that the registry sends, or of the one that it is sent."""

    cut_after: int | None = None
    cut_upload_after: int | None = None
    corrupt_at: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    claim_length: int | None = None
    without_ranges: bool = False


@dataclass(frozen=True)
class Seen:
    """A request that came by: ``sent`` bytes of a body went to the client."""

    method: str
    path: str
    range: str
    status: int
    sent: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_any(self) -> None:
        with suppress(ConnectionError, BrokenPipeError, TimeoutError):
            self._pass_on()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _pass_on(self) -> None:
        trouble = self.server.troubled.trouble_for(self.command, self.path) or Trouble()
        if trouble.status is not None:
            self._read_body()
            self._refuse(trouble)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.troubled.port, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _DROPPED}
            if trouble.without_ranges:
                headers.pop("Range", None)
            body = self._body(trouble)
            chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
            if body is None:
                upstream.request(self.command, self.path, headers=headers)
            else:
                upstream.request(self.command, self.path, body=body, headers=headers, encode_chunked=chunked)
            self._answer(upstream.getresponse(), trouble)
        except _Cut:
            self.close_connection = True
        finally:
            upstream.close()

    def _refuse(self, trouble: Trouble) -> None:
        assert trouble.status is not None
        self.send_response(trouble.status)
        for name, value in trouble.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(trouble.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(trouble.body)
        self._note(trouble.status, 0)

    def _answer(self, answer: http.client.HTTPResponse, trouble: Trouble) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _DROPPED and not (name.lower() == "content-length" and trouble.claim_length):
                self.send_header(name, value)
        if trouble.claim_length:
            self.send_header("Content-Length", str(trouble.claim_length))
        self.end_headers()
        sent = 0
        try:
            while self.command != "HEAD" and (data := answer.read(_BLOCK)):
                if trouble.delay_s:
                    time.sleep(trouble.delay_s)
                if trouble.corrupt_at is not None and sent <= trouble.corrupt_at < sent + len(data):
                    at = trouble.corrupt_at - sent
                    data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
                if trouble.cut_after is not None and sent + len(data) >= trouble.cut_after:
                    data = data[: trouble.cut_after - sent]
                    self.wfile.write(data)
                    sent += len(data)
                    raise _Cut
                self.wfile.write(data)
                sent += len(data)
            if trouble.claim_length:
                raise _Cut
        finally:
            self._note(answer.status, sent)

    def _body(self, trouble: Trouble) -> Any:
        """The request's body as it comes; it breaks off where the trouble says."""
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        length = int(self.headers.get("Content-Length") or 0)
        if not chunked and not length:
            return None

        def pieces() -> Iterator[bytes]:
            taken = 0
            for data in self._chunks() if chunked else self._plain(length):
                taken += len(data)
                yield data
                if trouble.cut_upload_after is not None and taken >= trouble.cut_upload_after:
                    raise _Cut

        return pieces()

    def _plain(self, length: int) -> Iterator[bytes]:
        while length and (data := self.rfile.read(min(length, _BLOCK))):
            length -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield from self._plain(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _read_body(self) -> None:
        for _ in (
            self._chunks()
            if self.headers.get("Transfer-Encoding")
            else self._plain(int(self.headers.get("Content-Length") or 0))
        ):
            pass

    def _note(self, status: int, sent: int) -> None:
        seen = Seen(self.command, self.path, self.headers.get("Range") or "", status, sent)
        self.server.troubled.seen.append(seen)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


class _Cut(Exception):
    """The connection ends here."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    troubled: TroubledRegistry

    def handle_error(self, *arguments: Any) -> None:
        """Cut connections are the purpose."""


@dataclass
class TroubledRegistry:
    """The way to a registry on a loopback *port*. ``trouble`` decides by method and path what befalls a request."""

    port: int
    host: str = ""
    trouble: Callable[[str, str], Trouble | None] = lambda method, path: None
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def trouble_for(self, method: str, path: str) -> Trouble | None:
        with self.lock:
            return self.trouble(method, path)

    def blob_bytes(self) -> int:
        """How many bytes of blobs went to clients."""
        return sum(s.sent for s in self.seen if s.method == "GET" and re.search("/blobs/sha", s.path))

    def count(self, method: str, part: str = "") -> int:
        """Requests of a kind that came by."""
        return sum(s.method == method and part in s.path for s in self.seen)


@contextmanager
def troubled(host: str) -> Iterator[TroubledRegistry]:
    """A way to the registry at a loopback *host*."""
    registry = TroubledRegistry(int(host.rpartition(":")[2]))
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.troubled = registry
        registry.host = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield registry
        finally:
            server.shutdown()
