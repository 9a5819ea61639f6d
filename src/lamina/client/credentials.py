"""Registries' credentials as docker keeps them: ``config.json``, or what its credential helpers keep (docker login's own places)."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import LaminaError
from lamina.oci.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from lamina.registry import Credentials

HUB = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105 - the name under which helpers keep a token
_HELPER_TIMEOUT_S = 60


class CredentialsNotKept(LaminaError):
    """A helper, or config.json, did not take credentials, or did not let them go."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"Error saving credentials: {what}: {reason}")


def key_of(server: str) -> str:
    """What docker calls a registry in its configuration: its host, and the default one by a URL."""
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return HUB if host in ("", DEFAULT_DOMAIN, "index.docker.io", "registry-1.docker.io") else host


def auths(domains: Iterable[str]) -> dict[str, dict[str, str]]:
    """What is known of all registries that the file names and of some others, by docker's names for registries.

    The form is that of ``X-Registry-Config``; a registry that nothing is known of is left out. Helpers are asked of registries that the
    file names, as docker login does where they keep what it learned, and of *domains*.
    """
    document = _document()
    known = (document.get("auths") or {}, document.get("credHelpers") or {})
    names = dict.fromkeys([*known[0], *known[1], *map(key_of, domains)])
    found = {name: _from_helper(document, name) or _from_file(document, name) for name in names}
    return {name: entry for name, entry in found.items() if entry}


def known_of(server: str) -> dict[str, str]:
    """What is known of one registry, in the form of ``X-Registry-Auth``; nothing if nothing is."""
    document, name = _document(), key_of(server)
    return _from_helper(document, name) or _from_file(document, name)


def as_credentials(entry: Mapping[str, str]) -> Credentials:
    """What is known of a registry, as the registry client takes it."""
    from lamina.registry import Credentials

    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth") and not username:
        username, _, password = base64.b64decode(entry["auth"] + "==").decode(errors="replace").partition(":")
    tokens = (entry.get("identitytoken", ""), entry.get("registrytoken", ""))
    return Credentials(username, password.strip("\0"), *tokens)


def auth_headers(server: str) -> dict[str, str]:
    """``X-Registry-Auth`` for a request about one registry, if something is known of it."""
    entry = known_of(server)
    if not entry:
        return {}
    data = json.dumps(entry | {"serveraddress": key_of(server)}).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(data).decode()}


def keep(server: str, username: str, password: str, identity_token: str) -> str | None:
    """Keep what a login learned, with the helper that is configured or in the file; returns the file's path for the latter.

    Raises CredentialsNotKept.
    """
    document, name = dict(_document(strictly=True)), key_of(server)
    helper = _helper_of(document, name)
    if helper:
        secret = identity_token or password
        answer = {"ServerURL": name, "Username": _TOKEN_USER if identity_token else username, "Secret": secret}
        _ask_helper(helper, "store", json.dumps(answer))
        document["auths"] = {**(document.get("auths") or {}), name: {}}
        _write(document)
        return None
    pair = f"{username}:{'' if identity_token else password}"
    entry = {"auth": base64.b64encode(pair.encode()).decode()}
    if identity_token:
        entry["identitytoken"] = identity_token
    document["auths"] = {**(document.get("auths") or {}), name: entry}
    return _write(document)


def forget(server: str) -> bool:
    """Forget a registry; whether anything was known of it. Raises CredentialsNotKept."""
    document, name = dict(_document(strictly=True)), key_of(server)
    entries = dict(document.get("auths") or {})
    was_known = bool(_from_helper(document, name)) or any(key in entries for key in _names_in_file(name))
    helper = _helper_of(document, name)
    if helper and _from_helper(document, name):
        _ask_helper(helper, "erase", name)
    if any(key in entries for key in _names_in_file(name)):
        for key in _names_in_file(name):
            entries.pop(key, None)
        document["auths"] = entries
        _write(document)
    return was_known


def _path() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def _document(*, strictly: bool = False) -> Mapping[str, Any]:
    """What the file says; nothing if there is none. Raises CredentialsNotKept if it cannot be read and is to be, *strictly*."""
    try:
        document = json.loads(_path().read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
        reason = "it is no JSON object"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = str(error)
    if strictly:
        raise CredentialsNotKept(str(_path()), reason)
    return {}


def _write(document: Mapping[str, Any]) -> str:
    """Replace the file, readable by nobody else; a link stays one."""
    path = _path().resolve()
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(temporary, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(document, file, indent="\t")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CredentialsNotKept(str(path), error.strerror or str(error)) from None
    return str(path)


def _names_in_file(name: str) -> tuple[str, ...]:
    return (name, f"https://{name}", f"http://{name}")


def _from_file(document: Mapping[str, Any], name: str) -> dict[str, str]:
    entries = document.get("auths") or {}
    for candidate in _names_in_file(name):
        entry = entries.get(candidate)
        if isinstance(entry, dict) and entry:
            return {
                key: str(value) for key, value in entry.items() if key in ("auth", "identitytoken", "registrytoken")
            }
    return {}


def _helper_of(document: Mapping[str, Any], name: str) -> str:
    return str((document.get("credHelpers") or {}).get(name) or document.get("credsStore") or "")


def _from_helper(document: Mapping[str, Any], name: str) -> dict[str, str]:
    """What ``docker-credential-HELPER get`` says (docker-credential-helpers' protocol)."""
    helper = _helper_of(document, name)
    if not helper:
        return {}
    try:
        answer = json.loads(_ask_helper(helper, "get", name))
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (CredentialsNotKept, ValueError, KeyError, TypeError):
        return {}
    return {"identitytoken": secret} if user == _TOKEN_USER else {"username": user, "password": secret}


def _ask_helper(helper: str, action: str, text: str) -> bytes:
    """Run a helper. Raises CredentialsNotKept."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, action], input=text.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).decode(errors="replace").strip()
        raise CredentialsNotKept(program, said or f"it ended with {error.returncode}") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise CredentialsNotKept(program, str(error)) from None
    return done.stdout
