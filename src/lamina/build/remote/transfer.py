"""One file over HTTP: a GET, its redirects and its bytes, in a worker process that can be killed.

``transfer`` blocks and is meant for ``run_in_worker``. It speaks http and https alone, wherever a redirect leads: the openers that
urllib makes by default would follow one to ftp, and take a password in a URL for a part of the host's name.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import posixpath
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import collapse_rfc2231_value, parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from urllib.error import URLError
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

from lamina.build.remote.credentials import split_credentials
from lamina.build.remote.sources import redacted
from lamina.errors import InvalidArgument, Unavailable
from lamina.oci.digest import Digest

_READ_BYTES = 1 << 20
_MAXIMUM_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RACY_NS = 2_000_000_000
_NOT_MODIFIED = 304
_UNNAMED = "__unnamed__"
_UNSAFE_NAME = "download"
_MAXIMUM_NAME = 255
_KEPT_IN_PATHS = "/%:@!$&'()*+,;=~"


class InvalidUrl(InvalidArgument):
    """A text is no URL that can be asked for."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"invalid URL {redacted(url)!r}: {reason}")


class DownloadFailed(Unavailable):
    """A server does not answer, breaks off, or is not who it should be."""

    def __init__(self, url: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"failed to download {redacted(url)}: {reason}")
        self._hint = hint

    @property
    def hint(self) -> str | None:
        """What the user can do about it, where that is known."""
        return self._hint


class DownloadRefused(InvalidArgument):
    """The server answers, but with another status than 200."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"failed to download {redacted(url)}: the server answered {status} {reason}".rstrip())
        self.status = status


class DownloadTooLarge(InvalidArgument):
    """What the server sends is larger than a download may be."""

    def __init__(self, url: str, limit_bytes: int) -> None:
        super().__init__(f"failed to download {redacted(url)}: it is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class ChecksumMismatch(InvalidArgument):
    """The bytes are not those that ``--checksum`` names."""

    def __init__(self, url: str, actual: str, expected: str) -> None:
        super().__init__(f"digest mismatch for {redacted(url)}: {actual} (expected: {expected})")
        self.actual = actual
        self.expected = expected


@dataclass(frozen=True)
class Transfer:
    """What to ask for.

    *etag* and *last_modified* are what an earlier answer said, to be told whether anything changed since; *proxies*
    is an environment that may name some; *authorization* is a header's value, for the URL's own host alone.
    """

    url: str
    etag: str = ""
    last_modified: str = ""
    checksum: Digest | None = None
    authorization: str = field(default="", repr=False)
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    maximum_bytes: int = 1 << 40
    timeout_s: float = 60


@dataclass(frozen=True)
class Transferred:
    """What came: its name, its bytes' digest and number, its time (0 where the server told none), and what to ask with next time."""

    name: str
    digest: Digest
    size_bytes: int
    mtime_ns: int
    etag: str
    last_modified: str


def transfer(request: Transfer, fd: int) -> Transferred | None:
    """Write what is behind a URL to a file, durably; None, and nothing written, if it is what the earlier answer was. Blocking.

    Raises InvalidUrl, DownloadFailed, DownloadRefused, DownloadTooLarge, ChecksumMismatch, and OSError for the file.
    """
    with _ask(request) as response:
        if response.status == _NOT_MODIFIED and (request.etag or request.last_modified):
            return None
        if not 200 <= response.status < 300:
            raise DownloadRefused(request.url, response.status, response.reason or "")
        etag = response.headers.get("ETag", "")
        if request.etag and _opaque(etag) == _opaque(request.etag):
            # some servers tell a tag and do not understand it when they are asked with it
            return None
        digest, size = _write(request, response, fd)
        last_modified = response.headers.get("Last-Modified", "")
        mtime_ns = _unix_ns(last_modified)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
        os.fsync(fd)
        if time.time_ns() - mtime_ns < _RACY_NS:
            # the time has whole seconds: a file that changed this moment may change again without it (RFC 9110, 8.8.2.2)
            last_modified = ""
        return Transferred(_file_name(request.url, response), digest, size, mtime_ns, etag, last_modified)


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """The proxy that an environment has for a URL; empty for none.

    As Go's httpproxy: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` or their lower case, and never for this host itself.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    name = f"{parts.scheme}_proxy"
    proxy = environment.get(name.upper()) or environment.get(name) or ""
    exceptions = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if host == "localhost" or _is_in("127.0.0.0/8", host) or _is_in("::1/128", host):
        return ""
    return "" if any(_is_exception(word.strip().lower(), host, port) for word in exceptions.split(",")) else proxy


def _is_exception(word: str, host: str, port: int | None) -> bool:
    """Whether a word of NO_PROXY, an address, a network or the end of a name, maybe with a port, means a host."""
    if word == "*" or _is_in(word, host):
        return True
    name, colon, number = word.rpartition(":")
    if colon and number.isdigit():
        return port == int(number) and _is_exception(name.strip("[]"), host, port)
    suffix = word.removeprefix("*")
    if suffix.startswith("."):
        return host.endswith(suffix)
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _is_in(network: str, host: str) -> bool:
    """Whether a host is an address of a network; False where either is a name."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _ask(request: Transfer) -> HTTPResponse:
    """Send the request, and again wherever it is redirected; the answer is the last one's."""
    url, authorization = _checked(request.url)
    authorization = request.authorization or authorization
    for _ in range(_MAXIMUM_REDIRECTS + 1):
        response = _get(url, request, authorization)
        location = response.headers.get("Location")
        if response.status not in _REDIRECTS or not location:
            return response
        response.close()
        target, _ = _checked(urljoin(url, location))
        if not _may_know_secrets(url, target):
            authorization = ""
        url = target
    raise DownloadFailed(request.url, f"stopped after {_MAXIMUM_REDIRECTS} redirects")


def _get(url: str, request: Transfer, authorization: str) -> HTTPResponse:
    headers = {
        "User-Agent": "lamina",
        "If-None-Match": request.etag,
        "If-Modified-Since": request.last_modified,
        "Authorization": authorization,
    }
    message = Request(url, headers={name: value for name, value in headers.items() if value})  # noqa: S310 - checked
    proxy = proxy_for(url, request.proxies)
    if proxy:
        _set_proxy(message, proxy)
    try:
        answer = _opener(url).open(message, timeout=request.timeout_s)
    except (OSError, HTTPException, ValueError) as error:
        raise _failure(url, error, request.timeout_s) from None
    assert isinstance(answer, HTTPResponse)
    return answer


def _opener(url: str) -> OpenerDirector:
    """Opens http, or https, and returns an answer whatever its status."""
    opener = OpenerDirector()
    opener.addheaders = []
    is_secure = url.startswith("https:")
    # the authorities that the host trusts take longer to read than a small file to come
    opener.add_handler(HTTPSHandler(context=ssl.create_default_context()) if is_secure else HTTPHandler())
    return opener


def _set_proxy(message: Request, proxy: str) -> None:
    host, authorization = split_credentials(proxy if "://" in proxy else f"http://{proxy}")
    if not re.match("http://[^/]", host):
        raise InvalidUrl(proxy, "a proxy's URL must begin with http://")
    if authorization:
        message.add_header("Proxy-Authorization", authorization)
    message.set_proxy(urlsplit(host).netloc, "http")


def _checked(url: str) -> tuple[str, str]:
    """A URL as it is sent, without fragment, name and password; and these as an Authorization. Raises InvalidUrl."""
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise InvalidUrl(url, "control characters are not allowed")
    try:
        bare, authorization = split_credentials(url)
        parts = urlsplit(bare)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidUrl(url, str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise InvalidUrl(url, f"the scheme {parts.scheme!r} is not supported")
    if not host or " " in host:
        raise InvalidUrl(url, "it names no host")
    path, query = quote(parts.path, safe=_KEPT_IN_PATHS), quote(parts.query, safe=_KEPT_IN_PATHS + "?")
    return urlunsplit((parts.scheme, parts.netloc, path or "/", query, "")), authorization


def _may_know_secrets(origin: str, target: str) -> bool:
    """Whether what is sent to one URL may be sent to the other: the same host, and no less secret."""
    one, other = urlsplit(origin), urlsplit(target)
    return one.hostname == other.hostname and (one.scheme == other.scheme or other.scheme == "https")


def _write(request: Transfer, response: HTTPResponse, fd: int) -> tuple[Digest, int]:
    """Write an answer's body to a file; its digest and size."""
    length = response.length
    if length is not None and length > request.maximum_bytes:
        raise DownloadTooLarge(request.url, request.maximum_bytes)
    states = {
        name: hashlib.new(name) for name in {"sha256", *([request.checksum.algorithm] if request.checksum else [])}
    }
    size = 0
    with open(fd, "wb", closefd=False, buffering=0) as file:
        for data in _body(request, response):
            size += len(data)
            if size > request.maximum_bytes:
                raise DownloadTooLarge(request.url, request.maximum_bytes)
            for state in states.values():
                state.update(data)
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
    if length is not None and size < length:
        raise DownloadFailed(request.url, f"the server broke off after {size} of {length} bytes")
    digests = {name: Digest(f"{name}:{state.hexdigest()}") for name, state in states.items()}
    if request.checksum and digests[request.checksum.algorithm] != request.checksum:
        raise ChecksumMismatch(request.url, digests[request.checksum.algorithm], request.checksum)
    return digests["sha256"], size


def _body(request: Transfer, response: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            data = response.read(_READ_BYTES)
        except (OSError, HTTPException, ValueError) as error:
            raise _failure(request.url, error, request.timeout_s) from None
        if not data:
            return
        yield data


def _failure(url: str, error: Exception, timeout_s: float) -> DownloadFailed:
    """What went wrong between us and a server, in words."""
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadFailed(
            url,
            f"the server's certificate is not trusted: {error.verify_message}",
            "a certificate authority of your own belongs to those that the daemon's host trusts (update-ca-certificates)",
        )
    if isinstance(error, ssl.SSLError):
        return DownloadFailed(url, f"TLS: {error.reason or error}")
    if isinstance(error, TimeoutError):
        return DownloadFailed(url, f"the server did not answer for {timeout_s:g} s")
    strerror = error.strerror if isinstance(error, OSError) else None
    return DownloadFailed(url, strerror or str(error) or type(error).__name__)


def _opaque(etag: str) -> str:
    """A tag without the mark of a weak one."""
    return etag.removeprefix("W/")


def _unix_ns(date: str) -> int:
    """An HTTP date as nanoseconds since 1970; 0 for none, or for one before that."""
    try:
        return max(int(parsedate_to_datetime(date).timestamp()), 0) * 1_000_000_000
    except (ValueError, TypeError, OverflowError):
        return 0


def _file_name(url: str, response: HTTPResponse) -> str:
    """The name a download has in a directory: the path's last part, as both of docker's builders take it.

    Where the path has none, the one that the server tells (Content-Disposition; classic builder), else ``__unnamed__`` (BuildKit).
    """
    name = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    if not name:
        told = response.headers.get_param("filename", "", "Content-Disposition")
        name = posixpath.basename(collapse_rfc2231_value(told)) if told else _UNNAMED
    return safe_file_name(name)


def safe_file_name(name: str) -> str:
    """A name that is one in a directory: no path, nothing unprintable (buildkit, pathutil.SafeFileName)."""
    name = posixpath.basename(name.strip())
    if name in ("", ".", "..") or len(os.fsencode(name)) > _MAXIMUM_NAME or re.search(r"[\x00-\x1f\x7f-\x9f]", name):
        return _UNSAFE_NAME
    return name
