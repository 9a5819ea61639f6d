"""A registry's answers, kind and hostile, from a server of the test's own; what real registries say is in the tests of builds."""

from __future__ import annotations

import base64
import json
import lzma
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lamina.layer.ingest import Limits
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffID, Digest
from lamina.oci.reference import Reference
from lamina.registry import Access, Credentials, connection
from lamina.registry.access import HUB_KEY, credentials_for
from lamina.registry.errors import AccessDenied, NotInRegistry, RegistryRefused, RegistryUnreachable, WrongBytes
from lamina.registry.hosts import Settings
from lamina.registry.incoming import fetch_layer
from lamina.registry.layouts import LayoutPlace
from lamina.registry.places import RegistryPlace
from lamina.registry.repository import Repository
from lamina.registry.tokens import Challenge

DATA = b"the bytes of a blob"
MANIFEST = b'{"schemaVersion":2}'

Answer = Callable[["Handler"], None]


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    path: str
    authorization: str | None
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says; what was asked is kept."""

    server: Server
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        given = self.headers.get("Authorization") or self.headers.get("Proxy-Authorization")
        self.server.asked.append(Asked(self.path, given, self.body))
        self.server.reply(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = answer  # noqa: N815 - http.server's names

    def send(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


def access_to(name: str, credentials: Credentials | None = None, proxy: str = "") -> Access:
    """A way to a registry, through a proxy if there is one."""
    return Access.of(Reference.parse(name), Settings(), credentials, {"HTTPS_PROXY": proxy} if proxy else None)


class Server(ThreadingHTTPServer):
    """A registry on a loopback port."""

    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.reply: Answer = lambda handler: handler.send(200)
        self.asked: list[Asked] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def repository(self, credentials: Credentials | None = None) -> Repository:
        return Repository(access_to(f"{self.host}/some/where", credentials))


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy servers are asked again at once."""
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Server]:
    """A registry that speaks TLS, with a certificate of its own making."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: there is no certificate for a server")
    path = tmp_path / "certificate.pem"
    argv = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*argv, "-keyout", path, "-out", tmp_path / "only"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "only").read_bytes())
    with Server(path) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def with_token(server: Server, wanted: str) -> Answer:
    """Lets in who has the token "secret-token", which *wanted* in the Authorization of a token's request buys."""

    def reply(handler: Handler) -> None:
        if handler.path.startswith("/token"):
            allowed = handler.headers.get("Authorization", "") == wanted or wanted in handler.body.decode()
            handler.send(*((200, json.dumps({"token": "secret-token"}).encode()) if allowed else (401,)))
        elif handler.headers.get("Authorization") == "Bearer secret-token":
            handler.send(200, MANIFEST, Content_Type="application/vnd.oci.image.manifest.v1+json")
        else:
            challenge = (
                f'Bearer realm="http://{server.host}/token",service="the registry",scope="repository:some/where:pull"'
            )
            handler.send(401, WWW_Authenticate=challenge)

    return reply


def test_a_challenge_is_read_with_its_quotes() -> None:
    text = 'Bearer realm="https://auth.example/token", service="a, b",scope="repository:x:pull,push"'
    assert Challenge.parse(text) == Challenge("bearer", "https://auth.example/token", "a, b", "repository:x:pull,push")
    assert Challenge.parse("") == Challenge("")


def test_a_token_is_fetched_with_the_name_and_password(server: Server) -> None:
    server.reply = with_token(server, "Basic " + base64.b64encode(b"me:pass").decode())
    media_type, data = server.repository(Credentials("me", "pass")).manifest("tag")
    assert (media_type, data) == ("application/vnd.oci.image.manifest.v1+json", MANIFEST)
    asked = next(asked.path for asked in server.asked if asked.path.startswith("/token"))
    assert "service=the+registry" in asked
    assert "scope=repository%3Asome%2Fwhere%3Apull" in asked


def test_a_token_is_fetched_with_an_identity_token(server: Server) -> None:
    server.reply = with_token(server, "refresh_token=lasting")
    assert server.repository(Credentials(identity_token="lasting")).manifest("tag")[1] == MANIFEST


def test_who_has_no_right_is_told_so(server: Server) -> None:
    server.reply = with_token(server, "Basic nobody")
    with pytest.raises(AccessDenied, match=r"pull access denied for 127\.0\.0\.1:\d+/some/where"):
        server.repository().manifest("tag")


def test_a_password_does_not_follow_a_redirect_to_another_host(server: Server) -> None:
    with Server() as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        other.reply = lambda handler: handler.send(200, DATA)

        def reply(handler: Handler) -> None:
            if handler.headers.get("Authorization"):
                place = f"http://localhost:{other.server_address[1]}/elsewhere"
                handler.send(307, Location=place) if "blobs" in handler.path else handler.send(200)
            else:
                handler.send(401, WWW_Authenticate='Basic realm="x"')

        server.reply = reply
        repository = server.repository(Credentials("me", "pass"))
        assert repository.read_blob(Digest.of(DATA)) == DATA
        assert [asked.authorization for asked in other.asked] == [None]
        other.shutdown()


def test_bytes_that_do_not_match_their_digest_are_refused(server: Server) -> None:
    server.reply = lambda handler: handler.send(200, b"other bytes")
    digest = Digest.of(DATA)
    with pytest.raises(WrongBytes):
        server.repository().read_blob(digest)
    with pytest.raises(WrongBytes):
        server.repository().manifest(digest)


def test_a_blob_that_is_compressed_on_its_way_is_taken_as_it_came(server: Server) -> None:
    server.reply = lambda handler: handler.send(200, DATA, Content_Encoding="gzip")
    with server.repository().open_blob(Digest.of(DATA)) as blob:
        assert blob.read(1 << 20) == DATA


def test_what_is_not_there_is_told_by_name(server: Server) -> None:
    server.reply = lambda handler: handler.send(200 if handler.path == "/v2/" else 404)
    repository = server.repository()
    assert not repository.has_blob(Digest.of(DATA))
    with pytest.raises(NotInRegistry, match="some/where:tag"):
        repository.manifest("tag")
    with pytest.raises(NotInRegistry):
        repository.open_blob(Digest.of(DATA))


def test_a_refusal_is_told_in_the_registry_s_own_words(server: Server) -> None:
    body = json.dumps({"errors": [{"code": "TOOBIG", "message": "the manifest is too big"}]}).encode()
    server.reply = lambda handler: handler.send(*((400, body) if handler.command == "PUT" else (200,)))
    with pytest.raises(RegistryRefused, match="the registry answered 400 toobig: the manifest is too big"):
        server.repository().put_manifest("tag", "application/json", MANIFEST)


def test_an_answer_that_never_ends_is_not_read_to_its_end(server: Server) -> None:
    def reply(handler: Handler) -> None:
        if handler.path == "/v2/":
            handler.send(200)
            return
        handler.send_response(500)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(bytes(1 << 20))
        except OSError:
            handler.close_connection = True

    server.reply = reply
    with pytest.raises(RegistryRefused, match="500"):
        server.repository().manifest("tag")


def test_a_blob_that_breaks_off_is_told(server: Server) -> None:
    def reply(handler: Handler) -> None:
        if handler.path == "/v2/":
            handler.send(200)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(DATA)
        handler.close_connection = True

    server.reply = reply
    with server.repository().open_blob(Digest.of(DATA)) as blob, pytest.raises(RegistryUnreachable):
        blob.read(1000)


@pytest.mark.parametrize("location", ["/upload/here?state=x", "http://{host}/upload/here?state=x", "/upload/here"])
def test_an_upload_goes_where_the_registry_says(server: Server, location: str) -> None:
    def reply(handler: Handler) -> None:
        if handler.command == "POST":
            handler.send(202, Location=location.format(host=server.host))
        else:
            handler.send({"HEAD": 404, "PUT": 201}.get(handler.command, 200))

    server.reply = reply
    digest = server.repository().put_data(DATA)
    put = server.asked[-1]
    joined = "&" if "?" in location else "?"
    assert put.path == f"/upload/here{'?state=x' if '?' in location else ''}{joined}digest={digest}"
    assert put.body == DATA


def test_an_upload_of_a_registry_with_tls_goes_over_tls(secure: Server) -> None:
    """One behind a proxy that does its TLS gives http URLs of itself."""

    def reply(handler: Handler) -> None:
        if handler.headers.get("Authorization") is None:
            handler.send(401, WWW_Authenticate='Basic realm="x"')
        elif handler.command == "POST":
            handler.send(202, Location=f"http://{secure.host}/upload")
        else:
            handler.send({"HEAD": 404, "PUT": 201}.get(handler.command, 200))

    secure.reply = reply
    digest = secure.repository(Credentials("me", "pass")).put_data(DATA)
    put = secure.asked[-1]
    assert (put.path, put.body) == (f"/upload?digest={digest}", DATA)
    assert put.authorization is not None


def test_nothing_is_sent_without_tls_that_began_with_it(secure: Server, server: Server) -> None:
    def to_another_host(handler: Handler) -> None:
        if handler.command == "POST":
            handler.send(202, Location=f"http://localhost:{server.server_address[1]}/upload")
        else:
            handler.send({"HEAD": 404}.get(handler.command, 200))

    secure.reply = to_another_host
    with pytest.raises(RegistryRefused, match="without TLS"):
        secure.repository().put_data(DATA)
    secure.reply = lambda handler: handler.send(401, WWW_Authenticate=f'Bearer realm="http://{server.host}/token"')
    with pytest.raises(RegistryRefused, match="without TLS"):
        secure.repository(Credentials("me", "pass")).manifest("tag")
    upper = f'Bearer realm="HTTP://{server.host}/token"'
    secure.reply = lambda handler: handler.send(401, WWW_Authenticate=upper)
    with pytest.raises(RegistryRefused, match="without TLS"):
        secure.repository(Credentials("me", "pass")).manifest("tag")

    def to_another_token_server(handler: Handler) -> None:
        if handler.path == "/token":
            handler.send(307, Location=f"http://{server.host}/token")
        else:
            handler.send(401, WWW_Authenticate=f'Bearer realm="https://{secure.host}/token"')

    secure.reply = to_another_token_server
    with pytest.raises(RegistryUnreachable, match="no token was given"):
        secure.repository(Credentials(identity_token="secret")).manifest("tag")
    assert server.asked == []


@pytest.mark.parametrize("location", ["http://[x", "", "ftp://elsewhere/x"])
def test_a_place_for_an_upload_that_is_none_is_an_error_of_ours(server: Server, location: str) -> None:
    status = {"HEAD": 404, "POST": 202}
    server.reply = lambda handler: handler.send(status.get(handler.command, 404), Location=location)
    with pytest.raises((RegistryUnreachable, RegistryRefused)):
        server.repository().put_data(DATA)


@pytest.mark.parametrize("takes_ranges", [True, False])
def test_a_blob_that_breaks_off_is_gone_on_with(server: Server, takes_ranges: bool) -> None:
    data = bytes(range(256)) * 5000

    def reply(handler: Handler) -> None:
        if handler.path == "/v2/":
            handler.send(200)
            return
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and takes_ranges else 0
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        if wanted:
            handler.wfile.write(data[start:])
        else:
            handler.wfile.write(data[:700_000])
            handler.close_connection = True

    server.reply = reply
    with server.repository().open_blob(Digest.of(data)) as blob:
        assert blob.read(len(data) + 1) == data


def test_a_registry_that_is_asked_too_often_is_heard(server: Server) -> None:
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "you have reached your limit"}]}).encode()
    server.reply = lambda handler: handler.send(
        *((200,) if handler.path == "/v2/" else (429, body)), Retry_After="9999"
    )
    with pytest.raises(RegistryRefused, match="429 toomanyrequests: you have reached your limit"):
        server.repository().manifest("tag")


def test_a_token_that_no_header_can_have_is_refused(server: Server) -> None:
    def reply(handler: Handler) -> None:
        if handler.path.startswith("/token"):
            handler.send(200, json.dumps({"token": "two\nlines"}).encode())
        else:
            handler.send(401, WWW_Authenticate=f'Bearer realm="http://{server.host}/token"')

    server.reply = reply
    with pytest.raises(RegistryUnreachable, match="no token was given"):
        server.repository().manifest("tag")


def test_a_proxy_is_told_who_asks(server: Server) -> None:
    server.reply = lambda handler: handler.send(403)
    for proxy in (f"http://me:pass@{server.host}", f"me:pass@{server.host}"):
        with pytest.raises(RegistryUnreachable):
            Repository(access_to("registry.example/x", proxy=proxy)).manifest("tag")
    assert {asked.authorization for asked in server.asked} == {"Basic " + base64.b64encode(b"me:pass").decode()}


def test_a_proxy_that_cannot_be_is_an_error_of_ours() -> None:
    access = access_to("registry.example/x", proxy="socks5://127.0.0.1:1")
    with pytest.raises(RegistryUnreachable):
        Repository(access).manifest("tag")


def test_no_more_than_a_blob_s_size_is_taken(server: Server, tmp_path: Path) -> None:
    """What follows a compressed stream is part of the blob, and has no other bound."""
    layer = lzma.compress(bytes(1024))
    server.reply = lambda handler: handler.send(200, layer + os.urandom(1 << 20))
    place = RegistryPlace(access_to(f"{server.host}/some/where:tag"))
    descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(layer), len(layer))
    paths = [tmp_path / name for name in ("tar", "tree")]
    with pytest.raises(WrongBytes):
        fetch_layer(place, descriptor, DiffID(Digest.of(bytes(1024))), paths[0], paths[1], Limits())
    assert [path.exists() for path in paths] == [False] * 2


def test_credentials_are_found_by_docker_s_names_for_registries() -> None:
    known = {HUB_KEY: Credentials("hub"), "https://registry.example": Credentials("example")}
    assert credentials_for(Reference.parse("busybox"), known) == Credentials("hub")
    assert credentials_for(Reference.parse("registry.example/x"), known) == Credentials("example")
    assert credentials_for(Reference.parse("other.example/x"), known) is None
    by_url = {"https://other.example/v1/": Credentials("other"), "docker.io": Credentials("hub")}
    assert credentials_for(Reference.parse("other.example/x"), by_url) == Credentials("other")
    assert credentials_for(Reference.parse("busybox"), by_url) == Credentials("hub")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost:5000/x", True),
        ("127.1.2.3/x", True),
        ("[::1]:5000/x", True),
        ("registry.example/x", False),
        ("registry-1.docker.io", False),
    ],
)
def test_only_this_machine_s_registries_may_be_insecure(name: str, expected: bool) -> None:
    assert Settings().is_insecure(name.partition("/")[0]) is expected


def test_a_layout_follows_no_link_out_of_its_directory(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(DATA)
    digest = Digest.of(DATA)
    place = LayoutPlace(tmp_path / "layout")
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / digest.hex).symlink_to(tmp_path / "outside")
    with pytest.raises(NotInRegistry):
        place.read_blob(digest)
    with pytest.raises(NotInRegistry, match="latest in"):
        place.manifest()
