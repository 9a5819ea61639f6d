"""Credentials for remote sources: which of a build's secrets a server is told, by BuildKit's names for them.

An *authorization* is the value of the header of that name, or empty text for none.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit, urlunsplit


def http_authorization(url: str, secrets: Mapping[str, str]) -> str:
    """For a download: ``HTTP_AUTH_TOKEN_<host>``, a bearer's token, or ``HTTP_AUTH_HEADER_<host>`` as it is."""
    host = urlsplit(url).hostname or ""
    token = secrets.get(f"HTTP_AUTH_TOKEN_{host}", "").strip()
    return f"Bearer {token}" if token else secrets.get(f"HTTP_AUTH_HEADER_{host}", "").strip()


def git_authorization(remote: str, secrets: Mapping[str, str]) -> str:
    """For a repository: ``GIT_AUTH_HEADER`` as it is or ``GIT_AUTH_TOKEN``, a password; first those with ``.<host>`` behind it.

    Only for http and https; ssh has keys, and git's own protocol nothing.
    """
    parts = urlsplit(remote)
    if parts.scheme not in ("http", "https"):
        return ""
    for suffix in (f".{parts.netloc.rpartition('@')[2]}", ""):
        header = secrets.get(f"GIT_AUTH_HEADER{suffix}", "").strip()
        if header:
            return header
        token = secrets.get(f"GIT_AUTH_TOKEN{suffix}", "").strip()
        if token:
            return basic("x-access-token", token)
    return ""


def split_credentials(url: str) -> tuple[str, str]:
    """A URL without the name and password in it, and these as an Authorization; empty if there are none."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    """A name and password as an Authorization (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
