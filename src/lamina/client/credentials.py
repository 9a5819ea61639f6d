"""Registries' credentials as docker keeps them: ``config.json``, with what its credential helpers give (docker login's own places)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lamina.oci.reference import DEFAULT_DOMAIN

_HUB = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105 - the name under which helpers keep a token


def auths(domains: Iterable[str]) -> dict[str, dict[str, str]]:
    """What is known of all registries that the file names and of some others, by docker's names for registries.

    The form is that of ``X-Registry-Config``; a registry that nothing is known of is left out. Helpers are asked of registries that the
    file names, as docker login does where they keep what it learned, and of *domains*.
    """
    document = _document()
    known = (document.get("auths") or {}, document.get("credHelpers") or {})
    names = dict.fromkeys([*known[0], *known[1], *(_HUB if domain == DEFAULT_DOMAIN else domain for domain in domains)])
    found = {name: _from_helper(document, name) or _from_file(document, name) for name in names}
    return {name: entry for name, entry in found.items() if entry}


def _document() -> Mapping[str, Any]:
    directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        document = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _from_file(document: Mapping[str, Any], name: str) -> dict[str, str]:
    entries = document.get("auths") or {}
    for candidate in (name, f"https://{name}", f"http://{name}"):
        entry = entries.get(candidate)
        if entry:
            return {key: str(value) for key, value in entry.items() if key in ("auth", "identitytoken")}
    return {}


def _from_helper(document: Mapping[str, Any], name: str) -> dict[str, str]:
    """What ``docker-credential-HELPER get`` says (docker-credential-helpers' protocol)."""
    helper = (document.get("credHelpers") or {}).get(name) or document.get("credsStore")
    if not helper:
        return {}
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=name.encode(), capture_output=True, timeout=30, check=True
        )
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}
    return {"identitytoken": secret} if user == _TOKEN_USER else {"username": user, "password": secret}
