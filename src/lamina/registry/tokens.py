"""How a registry wants to be told who asks: the challenge of a 401, and the token that answers it.

RFC 7235 for challenges; docker's "Token Authentication Specification" and its OAuth form for tokens.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import urllib3

from lamina.registry.access import Credentials
from lamina.registry.errors import AccessDenied, RegistryUnreachable

_CLIENT = "lamina"
_MAXIMUM_ANSWER = 1 << 20
_TIMEOUT = urllib3.Timeout(connect=15, read=60)
_AGAIN = urllib3.Retry(
    total=5, redirect=3, backoff_factor=0.5, allowed_methods=None, status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"])*?(?:^|,)\s*(bearer|basic)\b\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for: the *scheme* in lower case, and for a bearer's token where it is to be had."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Read a WWW-Authenticate header, the best challenge of it; what it does not say is empty."""
        found = list(_SCHEME.finditer(text[:16384]))
        if not found:
            return cls(text.strip().partition(" ")[0].lower())
        ends = [*(match.start(1) for match in found[1:]), len(text)]
        parts = [(match.group(1).lower(), text[match.end() : end]) for match, end in zip(found, ends, strict=True)]
        scheme, rest = next((part for part in parts if part[0] == "bearer"), parts[0])
        fields = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        return cls(scheme, fields.get("realm", ""), fields.get("service", ""), fields.get("scope", ""))


@dataclass(frozen=True)
class Token:
    """What a server for tokens gives: one for the registry, and where it was asked for one that lasts."""

    access: str
    refresh: str = ""


def answer(
    challenge: Challenge,
    credentials: Credentials | None,
    scopes: Sequence[str],
    repository: str,
    pool: urllib3.PoolManager,
) -> str:
    """The Authorization header that answers a challenge, with a token fetched if it needs one.

    Raises AccessDenied if there is nothing to answer with, RegistryUnreachable if no token is given, and what urllib3 does if the
    server for tokens does not answer.
    """
    if challenge.scheme == "basic" and credentials is not None and credentials.username:
        return basic(credentials)
    if challenge.scheme == "bearer" and challenge.realm:
        return f"Bearer {fetch_token(challenge, credentials, scopes, repository, pool).access}"
    raise AccessDenied(repository, "no basic auth credentials" if challenge.scheme == "basic" else "")


def basic(credentials: Credentials) -> str:
    """A name and password as an Authorization (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()


def fetch_token(
    challenge: Challenge,
    credentials: Credentials | None,
    scopes: Sequence[str],
    repository: str,
    pool: urllib3.PoolManager,
    *,
    lasting: bool = False,
) -> Token:
    """Ask the server that a challenge names for a token; for one that *lasts*, too, as a login does. Raises as ``answer``."""
    wanted = list(dict.fromkeys((*challenge.scope.split(), *scopes)))
    fields = [("service", challenge.service)] if challenge.service else []
    fields += [("scope", scope) for scope in wanted]
    if credentials is not None and credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": challenge.service,
            "client_id": _CLIENT,
            "scope": " ".join(wanted),
            "refresh_token": credentials.identity_token,
        }
        response = pool.request(
            "POST",
            challenge.realm,
            fields=form,
            encode_multipart=False,
            redirect=False,  # what it sends is secret
            preload_content=False,
            timeout=_TIMEOUT,
            retries=_AGAIN,
        )
    else:
        headers = {}
        if credentials is not None and credentials.username:
            headers["Authorization"] = basic(credentials)
            fields.append(("account", credentials.username))
        if lasting:
            fields += [("client_id", _CLIENT), ("offline_token", "true")]
        url = f"{challenge.realm}{'&' if '?' in challenge.realm else '?'}{urlencode(fields)}"
        response = pool.request("GET", url, headers=headers, preload_content=False, timeout=_TIMEOUT, retries=_AGAIN)
    data = response.read(_MAXIMUM_ANSWER)
    response.close()
    if response.status in (401, 403):
        raise AccessDenied(repository, _reason(data))
    return _token(challenge, response.status, data)


def _token(challenge: Challenge, status: int, data: bytes) -> Token:
    document: Any = None
    try:
        document = json.loads(data)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if status != 200 or not isinstance(token, str) or not (token.isascii() and token.isprintable()):
        raise RegistryUnreachable(challenge.realm, f"no token was given (status {status})")
    refresh = document.get("refresh_token")
    return Token(token, refresh if isinstance(refresh, str) else "")


def _reason(data: bytes) -> str:
    """Why a server gives no token, in its own words if it has some: ``{"errors": […]}`` or ``{"details": …}``."""
    try:
        document = json.loads(data)
        errors = document.get("errors") or [{"message": document.get("details") or ""}]
        return str(errors[0].get("message") or "")[:1000]
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        return ""
