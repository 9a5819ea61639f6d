"""One repository of a registry over HTTP (OCI distribution-spec 1.1).

Everything here blocks and is meant for a thread or a worker process. urllib3 does connections, TLS, proxies, redirects (without the
Authorization to another host) and what is worth trying again.
"""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from lamina.oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from lamina.oci.digest import Digest
from lamina.registry.access import Access
from lamina.registry.errors import AccessDenied, NotInRegistry, RegistryRefused, RegistryUnreachable, WrongBytes
from lamina.registry.tokens import Challenge, answer

_TIMEOUT = urllib3.Timeout(connect=30, read=300)
_MANIFESTS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
_MAXIMUM_DOCUMENT = 32 << 20
_MAXIMUM_ERROR = 64 << 10
_READ_BYTES = 1 << 20
_AGAIN = urllib3.Retry(
    total=8, connect=2, read=2, redirect=5, status=3, other=0, backoff_factor=0.3,
    status_forcelist=(429, 502, 503, 504), raise_on_status=False, respect_retry_after_header=True,
)  # fmt: skip
_ONCE = urllib3.Retry(total=0, redirect=0)


class Repository:
    """The blobs and manifests of one repository. Every method raises RegistryUnreachable, AccessDenied and RegistryRefused."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._path = access.reference.path
        self._base = ""
        self._pool: urllib3.PoolManager | None = None
        self._authorization = ""

    @property
    def name(self) -> str:
        """``docker.io/library/busybox``."""
        return self._access.reference.repository

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """A manifest's media type and bytes, by tag or digest. Raises NotInRegistry, WrongBytes if it is not what the digest says."""
        what = f"{self.name}:{reference}" if ":" not in reference else f"{self.name}@{reference}"
        response = self._ask("GET", f"manifests/{reference}", headers={"Accept": ", ".join(_MANIFESTS)})
        try:
            if response.status == 404:
                raise NotInRegistry(what)
            self._expect(response, what, 200)
            data = _limited(response, what)
        finally:
            _finish(response)
        if ":" in reference and Digest.of(data) != reference:
            raise WrongBytes(what, reference)
        return response.headers.get("Content-Type", "").partition(";")[0].strip(), data

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has a blob."""
        response = self._ask("HEAD", f"blobs/{digest}")
        if response.status not in (200, 404):
            self._expect(response, f"{self.name}@{digest}", 200)
        _finish(response)
        return response.status == 200

    def read_blob(self, digest: Digest, limit: int = _MAXIMUM_DOCUMENT) -> bytes:
        """A small blob's bytes. Raises NotInRegistry, WrongBytes, or RegistryRefused if it is longer than *limit*."""
        with self.open_blob(digest) as blob:
            data = blob.read(limit + 1)
        if len(data) > limit:
            raise RegistryRefused(f"{self.name}@{digest}", 200, f"more than {limit} bytes")
        if Digest.of(data) != digest:
            raise WrongBytes(self.name, digest)
        return data

    def open_blob(self, digest: Digest) -> Blob:
        """A blob's bytes as they come; whoever reads them has to verify them. Raises NotInRegistry."""
        what = f"{self.name}@{digest}"
        response = self._ask("GET", f"blobs/{digest}")
        if response.status != 200:
            try:
                if response.status == 404:
                    raise NotInRegistry(what)
                self._expect(response, what, 200)
            finally:
                _finish(response)
        return Blob(response, self._access.host)

    def put_blob(self, digest: Digest, size: int, open_file: Callable[[], IO[bytes]]) -> None:
        """Store a blob whose bytes *open_file* gives, from their beginning each time it is called."""
        what = f"{self.name}@{digest}"
        begun = self._ask("POST", "blobs/uploads/", writes=True)
        self._expect(begun, what, 202)
        _finish(begun)
        place = urljoin(f"{self._base}/", begun.headers.get("Location", ""))
        place += ("&" if urlsplit(place).query else "?") + f"digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with open_file() as file:
            done = self._send("PUT", place, headers, body=file, retries=_ONCE)
        self._expect(done, what, 201)
        _finish(done)

    def put_data(self, data: bytes) -> Digest:
        """Store a small blob, unless it is there; returns its digest."""
        digest = Digest.of(data)
        if not self.has_blob(digest):
            self.put_blob(digest, len(data), lambda: io.BytesIO(data))
        return digest

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a file as a blob, unless it is there."""
        if not self.has_blob(digest):
            self.put_blob(digest, path.stat().st_size, lambda: open(path, "rb"))  # noqa: SIM115 - put_blob closes it

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Store a manifest under a tag or its digest."""
        done = self._ask("PUT", f"manifests/{reference}", headers={"Content-Type": media_type}, body=data, writes=True)
        self._expect(done, f"{self.name}:{reference}", 201)
        _finish(done)

    # requests

    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        writes: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request below the repository's path; a challenge is answered, once. The answer's body is still to be read."""
        if not self._base:
            self._connect()
        url = f"{self._base}/v2/{self._path}/{path}"
        response = self._send(method, url, dict(headers or {}), body=body)
        if response.status == 401:
            _finish(response)
            actions = "pull,push" if writes else "pull"
            scope = f"repository:{self._path}:{actions}"
            challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
            assert self._pool is not None
            self._authorization = answer(
                challenge, self._access.credentials, scope, self._access.reference.familiar_repository, self._pool
            )
            response = self._send(method, url, dict(headers or {}), body=body)
        return response

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        *,
        body: Any = None,
        retries: urllib3.Retry = _AGAIN,
    ) -> urllib3.BaseHTTPResponse:
        assert self._pool is not None
        if self._authorization and urlsplit(url).netloc == self._access.host:
            headers["Authorization"] = self._authorization
        headers["User-Agent"] = "lamina"
        try:
            return self._pool.request(
                method, url, headers=headers, body=body, preload_content=False, retries=retries, timeout=_TIMEOUT
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RegistryUnreachable(self._access.host, _reason(error)) from None

    def _connect(self) -> None:
        """Find out what the registry speaks. A loopback one may speak HTTP, or HTTPS that nobody vouches for."""
        self._pool = _pool(self._access)
        attempts = ["https", "http"] if self._access.may_be_insecure else ["https"]
        for scheme in attempts:
            self._base = f"{scheme}://{self._access.host}"
            retries = _ONCE if len(attempts) > 1 else _AGAIN
            try:
                _finish(self._send("GET", f"{self._base}/v2/", {}, retries=retries))
            except RegistryUnreachable:
                if scheme == attempts[-1]:
                    self._base = ""
                    raise
            else:
                return

    def _expect(self, response: urllib3.BaseHTTPResponse, what: str, status: int) -> None:
        if response.status == status:
            return
        reason = _told(response)
        if response.status in (401, 403):
            raise AccessDenied(self._access.reference.familiar_repository, reason)
        raise RegistryRefused(what, response.status, reason)


class Blob:
    """A blob's bytes as they come from the registry."""

    def __init__(self, response: urllib3.BaseHTTPResponse, host: str) -> None:
        self._response = response
        self._host = host

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, *error: object) -> None:
        self._response.close()

    def read(self, size: int) -> bytes:
        """Up to *size* bytes, fewer only at the end. Raises RegistryUnreachable if the registry breaks off."""
        pieces = []
        try:
            while size and (data := self._response.read(min(size, _READ_BYTES), decode_content=False)):
                pieces.append(data)
                size -= len(data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RegistryUnreachable(self._host, _reason(error)) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _pool(access: Access) -> urllib3.PoolManager:
    context = ssl.create_default_context()
    if access.may_be_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return urllib3.PoolManager(ssl_context=context)
    settings = {name.lower().removesuffix("_proxy"): url for name, url in access.proxies.items() if url}
    settings = settings or getproxies()
    proxy = settings.get("https")
    if proxy and not proxy_bypass(access.host, settings):
        return urllib3.ProxyManager(proxy, ssl_context=context)
    return urllib3.PoolManager(ssl_context=context)


def _limited(response: urllib3.BaseHTTPResponse, what: str) -> bytes:
    try:
        data = response.read(_MAXIMUM_DOCUMENT + 1, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise RegistryUnreachable(what, _reason(error)) from None
    if len(data) > _MAXIMUM_DOCUMENT:
        raise RegistryRefused(what, response.status, f"more than {_MAXIMUM_DOCUMENT} bytes")
    return data


def _finish(response: urllib3.BaseHTTPResponse) -> None:
    """Give the connection back; one whose answer goes on and on is closed instead."""
    try:
        goes_on = len(response.read(_MAXIMUM_ERROR)) == _MAXIMUM_ERROR
    except (urllib3.exceptions.HTTPError, OSError):
        goes_on = True
    if goes_on:
        response.close()
    response.release_conn()


def _told(response: urllib3.BaseHTTPResponse) -> str:
    """A registry's own words (distribution-spec, "Error Codes"), else the status's."""
    with suppress(Exception):
        document = json.loads(response.read(_MAXIMUM_ERROR))
        texts = [str(error.get("message") or error.get("code")) for error in document["errors"]]
        return "; ".join(texts)
    return response.reason or ""


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None)
    return str(cause if isinstance(cause, BaseException) else error)
