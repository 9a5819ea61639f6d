"""HTTP with one server, about one repository: what the server speaks, who asks, and what is worth trying again.

urllib3 does connections, TLS, proxies and redirects (without the Authorization to another host). Nothing secret goes over HTTP unless
the server itself is one that may speak it. Everything blocks; several threads may ask at once.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from lamina.registry.access import Access, Learned
from lamina.registry.errors import AccessDenied, LoginFailed, RegistryRefused, RegistryUnreachable
from lamina.registry.hosts import Host, is_own
from lamina.registry.tokens import Challenge, answer, fetch_token

_READING = urllib3.Timeout(connect=15, read=60)
_WRITING = urllib3.Timeout(connect=15, read=600)
_MAXIMUM_ERROR = 64 << 10
_LONGEST_WAIT_S = 60.0
FIRST_PAUSE_S = 0.5
"""How long a busy server that does not say is left alone the first time."""
_CONNECTIONS = 8
_PORTS = {"http": 80, "https": 443}

Response = urllib3.BaseHTTPResponse
Body = bytes | IO[bytes] | Iterator[bytes]


_CONNECTING = urllib3.Retry(
    connect=1, read=2, redirect=False, status=False, other=0, backoff_factor=0.3, allowed_methods=None,
    respect_retry_after_header=False,
)  # fmt: skip
_ONCE = urllib3.Retry(total=0, redirect=False, respect_retry_after_header=False)
_BUSY = (429, 500, 502, 503, 504)
_BUSY_ATTEMPTS = 6
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10


class Connection:
    """Requests below a repository's path at one server. Every method raises RegistryUnreachable, AccessDenied and RegistryRefused."""

    def __init__(self, host: Host, access: Access) -> None:
        self.host = host
        self._access = access
        self._repository = host.path_of(access.reference.path)
        learned = access.learned.get(host.base)
        self._base = learned.base if learned else ""
        self._authorization = learned.authorization if learned else ""
        if not self._authorization and not host.is_mirror and access.credentials and access.credentials.registry_token:
            self._authorization = f"Bearer {access.credentials.registry_token}"
        self._pool: urllib3.PoolManager | None = None
        self._finding_out = threading.Lock()

    def close(self) -> None:
        """Let go of what is open."""
        if self._pool is not None:
            self._pool.clear()

    @property
    def learned(self) -> Learned:
        """What was found out of the server so far."""
        return Learned(self._base, self._authorization)

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        writes: bool = False,
        also_reads: Sequence[str] = (),
    ) -> Response:
        """Send a request about the repository; a challenge is answered, once. The answer's body is still to be read.

        A mirror is told in containerd's way which registry it is asked for. *also_reads* are other repositories that the request is
        about.
        """
        asked = dict(query or {})
        if self.host.is_mirror:
            asked["ns"] = self._access.reference.domain
        below = f"{self._repository}/{path}" + (f"?{urlencode(asked, safe=':/')}" if asked else "")
        scopes = [f"repository:{self._repository}:{'pull,push' if writes else 'pull'}"]
        if method == "DELETE":
            scopes = [f"repository:{self._repository}:delete,pull,push"]
        scopes += [f"repository:{name}:pull" for name in also_reads]
        return self.ask_server(method, below, headers=headers, body=body, scopes=scopes, writes=writes)

    def ask_server(
        self,
        method: str,
        below: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        scopes: Sequence[str] = (),
        writes: bool = False,
    ) -> Response:
        """The same of any path below the server's base, or with a leading slash of any path there."""
        timeout = _WRITING if writes else _READING
        if not self._base:
            response = self._first(method, below, headers or {}, body, timeout)
        else:
            response = self._send(method, self._url(below), headers or {}, body=body, timeout=timeout)
        if response.status == 401:
            finish(response)
            self._authorize(response, scopes)
            response = self._send(method, self._url(below), headers or {}, body=body, timeout=timeout)
        return response

    def log_in(self) -> str:
        """Find out whether the server knows who is asking; returns an identity token if one is given, else an empty text.

        Raises LoginFailed.
        """
        response = self._first("GET", "", {}, None, _READING)
        url, given = self._url(""), ""
        if response.status == 401:
            challenge = self._challenge(response)
            finish(response)
            credentials = self._access.credentials
            try:
                if challenge.scheme == "bearer" and challenge.realm:
                    with self.telling():
                        token = fetch_token(challenge, credentials, (), "", self._connected(), lasting=True)
                    self._authorization, given = f"Bearer {token.access}", token.refresh
                else:
                    with self.telling():
                        self._authorization = answer(challenge, credentials, (), "", self._connected())
            except AccessDenied as error:
                raise LoginFailed(f'Get "{url}": unauthorized: {error.reason or "authentication required"}') from None
            response = self._send("GET", url, {})
        finish(response)
        if response.status != 200:
            raise LoginFailed(f"login attempt to {url} failed with status: {response.status} {response.reason}")
        return given

    def follow(self, location: str) -> str:
        """The URL that a server's Location means, or that is meant relative to its base. Raises RegistryRefused for one without TLS.

        A registry behind a proxy that does its TLS may not know of that, and give an http URL of itself.
        """
        try:
            url, base = urlsplit(urljoin(f"{self._base}/", location)), urlsplit(self._base)
        except ValueError as error:
            raise RegistryRefused(self.host.name, 202, f"and wants the upload at {location[:200]!r}: {error}") from None
        if location and (url.scheme == base.scheme or url.scheme == "https"):
            return url.geturl()
        if url.scheme == "http" and url.hostname == base.hostname:
            return url._replace(scheme=base.scheme, netloc=base.netloc).geturl()
        raise RegistryRefused(self.host.name, 202, f"and wants the upload without TLS: {location[:200]}")

    def send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Response:
        """Send something to a URL of ``follow``, once: a body that is read on its way cannot be sent again."""
        return self._send(method, url, headers, body=body, retries=_ONCE, timeout=_WRITING)

    def reauthorize(self, response: Response) -> None:
        """Answer the challenge of a 401 to ``send``. Raises AccessDenied."""
        finish(response)
        self._authorize(response, [f"repository:{self._repository}:pull,push"])

    def expect(self, response: Response, what: str, *statuses: int, writes: bool = False) -> None:
        """Refuse any other status, with the registry's own words (distribution-spec, "Error Codes") if it has some."""
        if response.status in statuses:
            return
        reason = told(response)
        finish(response)
        if response.status in (401, 403):
            raise AccessDenied(self._access.reference.familiar_repository, reason, writes=writes)
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
        """What fails on the way to the server, as an error of ours."""
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            cause = getattr(error, "reason", None)
            raise RegistryUnreachable(self.host.name, str(cause if isinstance(cause, Exception) else error)) from None

    def _first(
        self, method: str, below: str, headers: Mapping[str, str], body: bytes | None, timeout: urllib3.Timeout
    ) -> Response:
        """The first request, which finds out what the server speaks; an insecure one may speak HTTP, or HTTPS that nobody vouches for."""
        base = self.host.base
        bases = [base, base.replace("https://", "http://", 1)] if self.host.may_fall_back else [base]
        with self._finding_out:
            for candidate in [self._base] if self._base else bases:  # another thread may have found it out meanwhile
                retries = _CONNECTING if candidate == bases[-1] else _ONCE
                url = _below(candidate, below)
                try:
                    response = self._send(method, url, headers, body=body, retries=retries, timeout=timeout)
                except RegistryUnreachable:
                    if candidate == bases[-1]:
                        raise
                else:
                    self._base = candidate
                    return response
        raise AssertionError("unreachable")

    def _url(self, below: str) -> str:
        return _below(self._base, below)

    def _challenge(self, response: Response) -> Challenge:
        """What a 401 asks for. Raises RegistryRefused for a server of tokens without TLS where the registry has it."""
        challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
        with self.telling():
            scheme = urlsplit(challenge.realm).scheme
        if challenge.scheme == "bearer" and self._base.startswith("https:") and scheme != "https":
            raise RegistryRefused(self.host.name, 401, f"and wants its tokens asked for without TLS: {challenge.realm}")
        return challenge

    def _authorize(self, response: Response, scopes: Sequence[str]) -> None:
        challenge = self._challenge(response)
        repository = self._access.reference.familiar_repository
        credentials = None if self.host.is_mirror else self._access.credentials
        with self.telling():
            self._authorization = answer(challenge, credentials, scopes, repository, self._connected())

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        retries: urllib3.Retry = _CONNECTING,
        timeout: urllib3.Timeout = _READING,
    ) -> Response:
        """A request and, unless *body* can be sent only once, whatever is worth it when the server is busy, for a while."""
        for attempt in range(1, _BUSY_ATTEMPTS + 1):
            response = self._follow_redirects(method, url, headers, body, retries, timeout)
            pause_s = _pause_s(response, attempt)
            if response.status not in _BUSY or pause_s is None or not isinstance(body, bytes | None):
                break
            finish(response)
            time.sleep(pause_s)
        return response

    def _follow_redirects(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        retries: urllib3.Retry,
        timeout: urllib3.Timeout,
    ) -> Response:
        """One request, and where its answer leads to; urllib3 would read a redirect's body to its end, which there may be none of."""
        with self.telling():
            for _ in range(_MOST_REDIRECTS + 1):
                sent = {"User-Agent": "lamina", **headers}
                if _origin(urlsplit(url)) in (_origin(urlsplit(self._base)), _origin(urlsplit(self.host.base))):
                    sent |= self.host.headers
                    if self._authorization:
                        sent["Authorization"] = self._authorization
                response = self._connected().request(
                    method,
                    url,
                    headers=sent,
                    body=body,
                    preload_content=False,
                    redirect=False,
                    retries=retries,
                    timeout=timeout,
                )
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location or not isinstance(body, bytes | None):
                    return response
                finish(response)
                following = urljoin(url, location)
                if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
                    raise ValueError(f"a redirect leads away from TLS, to {following[:200]}")
                url = following
            raise ValueError(f"more than {_MOST_REDIRECTS} redirects")

    def _connected(self) -> urllib3.PoolManager:
        if self._pool is None:
            self._pool = _pool(self.host, self._access.proxies)
        return self._pool


def _pause_s(response: Response, attempt: int) -> float | None:
    """How long to wait before a busy server is asked again; None if that is too long, or was tried often enough.

    A server may ask for some patience (Retry-After), but not for hours: who wants those is told what it said.
    """
    if attempt == _BUSY_ATTEMPTS:
        return None
    text = response.headers.get("Retry-After", "")
    with suppress(urllib3.exceptions.InvalidHeader):
        if text:
            wanted = urllib3.Retry().parse_retry_after(text)
            return wanted if wanted <= _LONGEST_WAIT_S else None
    return FIRST_PAUSE_S * 2.0 ** (attempt - 1)


def finish(response: Response) -> None:
    """Give the connection back; one whose answer goes on and on is closed instead."""
    try:
        goes_on = len(response.read(_MAXIMUM_ERROR)) == _MAXIMUM_ERROR
    except (urllib3.exceptions.HTTPError, OSError):
        goes_on = True
    if goes_on:
        response.close()
    response.release_conn()


def told(response: Response) -> str:
    """What a registry says of an error: ``manifest unknown: …``."""
    with suppress(Exception):
        document = json.loads(response.read(_MAXIMUM_ERROR))
        texts = []
        for error in document["errors"]:
            words = (str(error.get("code", "")).lower().replace("_", " "), str(error.get("message") or ""))
            texts.append(": ".join(word for word in words if word))
        return "; ".join(texts)[:1000]
    return response.reason or ""


def _below(base: str, below: str) -> str:
    """A URL below a base, or with a leading slash of its server."""
    if below.startswith("/"):
        parts = urlsplit(base)
        return f"{parts.scheme}://{parts.netloc}{below}"
    return f"{base}/{below}"


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    """What two URLs of one server have in common."""
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _pool(host: Host, proxies: Mapping[str, str]) -> urllib3.PoolManager:
    """Connections, through a proxy if the environment says so. Raises OSError, ValueError or HTTPError for what cannot be."""
    context = _tls(host)
    settings = {name.lower().removesuffix("_proxy"): url for name, url in proxies.items() if url}
    settings = settings or getproxies()
    scheme = urlsplit(host.base).scheme
    proxy = settings.get(scheme)
    if not proxy or is_own(host.name) or proxy_bypass(host.name, settings):
        return urllib3.PoolManager(ssl_context=context, maxsize=_CONNECTIONS)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    account = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=account) if account else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, ssl_context=context, maxsize=_CONNECTIONS)


def _tls(host: Host) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if host.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # an administrator said so
    for authority in host.authorities:
        context.load_verify_locations(authority)
    for certificate, key in host.certificates:
        context.load_cert_chain(certificate, key)
    return context
