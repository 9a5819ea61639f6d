"""HTTP with one registry, on behalf of one repository: what the registry speaks, who asks, and what is worth trying again.

urllib3 does connections, TLS, proxies and redirects (without the Authorization to another host). Nothing secret goes over HTTP unless
the registry itself is one of this machine's that speaks no HTTPS. Everything blocks.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from lamina.registry.access import Access
from lamina.registry.errors import AccessDenied, RegistryRefused, RegistryUnreachable
from lamina.registry.tokens import Challenge, answer

_TIMEOUT = urllib3.Timeout(connect=30, read=300)
_MAXIMUM_ERROR = 64 << 10
_PORTS = {"http": 80, "https": 443}
# what a registry asks us to wait for may be hours: who wants that is told what the registry said
_AGAIN = urllib3.Retry(
    total=8, connect=2, read=2, redirect=5, status=3, other=0, backoff_factor=0.3,
    status_forcelist=(429, 502, 503, 504), raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
_ONCE = urllib3.Retry(total=0, redirect=0)

Response = urllib3.BaseHTTPResponse


class Session:
    """Requests below a repository's path. Every method raises RegistryUnreachable, AccessDenied and RegistryRefused."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._base = ""
        self._pool: urllib3.PoolManager | None = None
        self._authorization = ""

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        writes: bool = False,
    ) -> Response:
        """Send a request; a challenge is answered, once. The answer's body is still to be read."""
        if not self._base:
            self._connect()
        repository = self._access.reference.path
        url = f"{self._base}/v2/{repository}/{path}"
        response = self._send(method, url, headers or {}, body=body)
        if response.status == 401:
            finish(response)
            self._authorize(response, f"repository:{repository}:{'pull,push' if writes else 'pull'}")
            response = self._send(method, url, headers or {}, body=body)
        return response

    def upload(self, location: str, parameter: str, file: IO[bytes], size: int) -> Response:
        """Send a file where the registry wants it, with one more parameter in the URL."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        url = self._safe(location)
        url += ("&" if urlsplit(url).query else "?") + parameter
        return self._send("PUT", url, headers, body=file, retries=_ONCE)

    def expect(self, response: Response, what: str, status: int) -> None:
        """Refuse any other status, with the registry's own words (distribution-spec, "Error Codes") if it has some."""
        if response.status == status:
            return
        reason = _told(response)
        finish(response)
        if response.status in (401, 403):
            raise AccessDenied(self._access.reference.familiar_repository, reason)
        raise RegistryRefused(what, response.status, reason)

    def read(self, response: Response, limit: int, what: str) -> bytes:
        """The whole body, which is refused if it is longer than *limit* bytes."""
        with self.telling():
            data = response.read(limit + 1, decode_content=False)
        if len(data) > limit:
            raise RegistryRefused(what, response.status, f"more than {limit} bytes")
        return data

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What fails on the way to the registry, as an error of ours."""
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            cause = getattr(error, "reason", None)
            raise RegistryUnreachable(
                self._access.host, str(cause if isinstance(cause, Exception) else error)
            ) from None

    def _connect(self) -> None:
        """Find out what the registry speaks. A loopback one may speak HTTP, or HTTPS that nobody vouches for."""
        with self.telling():
            self._pool = _pool(self._access)
        attempts = ["https", "http"] if self._access.may_be_insecure else ["https"]
        for scheme in attempts:
            self._base = f"{scheme}://{self._access.host}"
            try:
                retries = _ONCE if len(attempts) > 1 else _AGAIN
                finish(self._send("GET", f"{self._base}/v2/", {}, retries=retries))
            except RegistryUnreachable:
                if scheme == attempts[-1]:
                    self._base = ""
                    raise
            else:
                return

    def _authorize(self, response: Response, scope: str) -> None:
        challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
        if challenge.realm.startswith("http://") and self._base.startswith("https:"):
            raise RegistryRefused(
                self._access.host, 401, f"and wants its tokens asked for without TLS: {challenge.realm}"
            )
        repository = self._access.reference.familiar_repository
        assert self._pool is not None
        with self.telling():
            self._authorization = answer(challenge, self._access.credentials, scope, repository, self._pool)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | IO[bytes] | None = None,
        retries: urllib3.Retry = _AGAIN,
    ) -> Response:
        assert self._pool is not None
        sent = {**headers, "User-Agent": "lamina"}
        with self.telling():
            if self._authorization and _origin(urlsplit(url)) == _origin(urlsplit(self._base)):
                sent["Authorization"] = self._authorization
            return self._pool.request(
                method, url, headers=sent, body=body, preload_content=False, retries=retries, timeout=_TIMEOUT
            )

    def _safe(self, location: str) -> str:
        """Where to upload: a registry behind a proxy that does its TLS may not know of that, and give an http URL of itself."""
        with self.telling():
            url, base = urlsplit(urljoin(f"{self._base}/", location)), urlsplit(self._base)
            if url.scheme == base.scheme or url.scheme == "https":
                return url.geturl()
        if url.scheme == "http" and url.hostname == base.hostname:
            return url._replace(scheme=base.scheme, netloc=base.netloc).geturl()
        raise RegistryRefused(self._access.host, 202, f"and wants the upload without TLS: {location[:200]}")


def finish(response: Response) -> None:
    """Give the connection back; one whose answer goes on and on is closed instead."""
    try:
        goes_on = len(response.read(_MAXIMUM_ERROR)) == _MAXIMUM_ERROR
    except (urllib3.exceptions.HTTPError, OSError):
        goes_on = True
    if goes_on:
        response.close()
    response.release_conn()


def _told(response: Response) -> str:
    with suppress(Exception):
        document = json.loads(response.read(_MAXIMUM_ERROR))
        texts = [str(error.get("message") or error.get("code")) for error in document["errors"]]
        return "; ".join(texts)
    return response.reason or ""


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    """What two URLs of one server have in common."""
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _pool(access: Access) -> urllib3.PoolManager:
    """Connections, through a proxy if the environment says so. Raises ValueError or HTTPError for a proxy that cannot be."""
    context = ssl.create_default_context()
    if access.may_be_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # nobody but this machine answers
        return urllib3.PoolManager(ssl_context=context)
    settings = {name.lower().removesuffix("_proxy"): url for name, url in access.proxies.items() if url}
    settings = settings or getproxies()
    proxy = settings.get("https")
    if not proxy or proxy_bypass(access.host, settings):
        return urllib3.PoolManager(ssl_context=context)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    account = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=account) if account else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, ssl_context=context)
