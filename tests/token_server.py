"""A server that gives tokens for docker-registry (docker's "Token Authentication Specification"): for names and passwords, and for refresh
tokens. Tokens are JSON Web Tokens that openssl signs with a key of the test's own."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SERVICE, ISSUER = "the-registry", "the-issuer"


@dataclass
class TokenServer:
    """Lets *user* in with *password* for everything, and everybody for what is below ``public/``, to pull."""

    directory: Path
    user: str
    password: str
    url: str = ""
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    refresh: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def certificate(self) -> Path:
        return self.directory / "token.crt"

    def config(self) -> str:
        """The lines for docker-registry's configuration."""
        fields = f"realm: '{self.url}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: '{self.certificate}'"
        return f"auth: {{token: {{{fields}}}}}"

    def token(self, scopes: list[str], *, known: bool) -> str:
        """A token for what may be had of some scopes."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            wanted = actions.split(",")
            allowed = wanted if known else [a for a in wanted if a == "pull" and name.startswith("public/")]
            access.append({"type": kind, "name": name, "actions": allowed})
        pem = self.certificate.read_text()
        der = "".join(line for line in pem.splitlines() if not line.startswith("-"))
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": self.user if known else "", "nbf": now - 10, "iat": now - 10}
        claims |= {"exp": now + 300, "jti": secrets.token_hex(8), "access": access}
        signed = f"{_part({'typ': 'JWT', 'alg': 'RS256', 'x5c': [der]})}.{_part(claims)}"
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.directory / "token.key")]
        signature = subprocess.run(argv, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        owner = self.server.owner
        pair = base64.b64encode(f"{owner.user}:{owner.password}".encode()).decode()
        self._give(asked, known=given == pair, refused=bool(given) and given != pair)

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        known = asked.get("refresh_token") == [self.server.owner.refresh]
        asked["scope"] = " ".join(asked.get("scope", [])).split()
        self._give(asked, known=known, refused=not known)

    def _give(self, asked: dict[str, list[str]], *, known: bool, refused: bool) -> None:
        owner = self.server.owner
        owner.asked.append(asked)
        answer: dict[str, Any] = {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
        if not refused:
            answer = {"token": owner.token(asked.get("scope", []), known=known)}
            if asked.get("offline_token") == ["true"] and known:
                answer["refresh_token"] = owner.refresh
        data = json.dumps(answer).encode()
        self.send_response(401 if refused else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: TokenServer


@contextmanager
def giving_tokens(directory: Path, user: str, password: str) -> Iterator[TokenServer]:
    """A server for tokens on a loopback port."""
    directory.mkdir(parents=True, exist_ok=True)
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens", "-days", "2"]
    argv += ["-keyout", str(directory / "token.key"), "-out", str(directory / "token.crt")]
    subprocess.run(argv, check=True, capture_output=True)
    tokens = TokenServer(directory, user, password)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.owner = tokens
        tokens.url = f"http://127.0.0.1:{server.server_address[1]}/token"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield tokens
        finally:
            server.shutdown()
