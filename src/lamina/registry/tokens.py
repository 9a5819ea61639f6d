"""How a registry wants to be told who asks: the challenge of a 401, and the token that answers it.

RFC 7235 for challenges; docker's "Token Authentication Specification" and its OAuth form for tokens.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode

import urllib3

from lamina.registry.access import Credentials
from lamina.registry.errors import AccessDenied, RegistryUnreachable

_CLIENT = "lamina"
_MAXIMUM_ANSWER = 1 << 20
_TIMEOUT = urllib3.Timeout(connect=30, read=60)
_AGAIN = urllib3.Retry(total=3, redirect=3, backoff_factor=0.3, respect_retry_after_header=False)
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for: the *scheme* in lower case, and for a bearer's token where it is to be had."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Read a WWW-Authenticate header; what it does not say is empty."""
        scheme, _, rest = text.strip().partition(" ")
        found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        return cls(scheme.lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", ""))


def answer(
    challenge: Challenge, credentials: Credentials | None, scope: str, repository: str, pool: urllib3.PoolManager
) -> str:
    """The Authorization header that answers a challenge, with a token fetched if it needs one.

    Raises AccessDenied if there is nothing to answer with, RegistryUnreachable if no token is given, and what urllib3 does if the
    server for tokens does not answer.
    """
    if challenge.scheme == "basic" and credentials is not None and credentials.username:
        return basic(credentials)
    if challenge.scheme == "bearer" and challenge.realm:
        return f"Bearer {_token(challenge, credentials, scope, repository, pool)}"
    raise AccessDenied(repository, "no basic auth credentials" if challenge.scheme == "basic" else "")


def basic(credentials: Credentials) -> str:
    """A name and password as an Authorization (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()


def _token(
    challenge: Challenge, credentials: Credentials | None, scope: str, repository: str, pool: urllib3.PoolManager
) -> str:
    fields = {"service": challenge.service, "scope": challenge.scope or scope}
    if credentials is not None and credentials.identity_token:
        form = fields | {
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "client_id": _CLIENT,
        }
        response = pool.request(
            "POST", challenge.realm, fields=form, encode_multipart=False, preload_content=False, timeout=_TIMEOUT
        )
    else:
        headers = {"Authorization": basic(credentials)} if credentials and credentials.username else {}
        url = f"{challenge.realm}{'&' if '?' in challenge.realm else '?'}{urlencode(fields)}"
        response = pool.request("GET", url, headers=headers, preload_content=False, timeout=_TIMEOUT, retries=_AGAIN)
    data = response.read(_MAXIMUM_ANSWER)
    response.close()
    if response.status in (401, 403):
        raise AccessDenied(repository)
    try:
        document = json.loads(data)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if response.status != 200 or not isinstance(token, str) or not (token.isascii() and token.isprintable()):
        raise RegistryUnreachable(challenge.realm, f"no token was given (status {response.status})")
    return token
