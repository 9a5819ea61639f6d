"""The git command, run for a repository that is hostile.

Git gets an environment made here and nothing of the daemon's, reads no configuration of the host's, asks nobody for a password, runs no
hooks, uses no keys of the daemon's user, and speaks only http, https, ssh and git's own protocol, for submodules too. What stands on its
command line was checked by GitRepository; credentials do not: they are configuration in the environment, which other users cannot read.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from lamina.build.remote.credentials import split_credentials
from lamina.build.remote.sources import redacted
from lamina.errors import Unavailable, Unsupported
from lamina.linux import processes

_UMASK = 0o022
_SHOWN_CHARACTERS = 2000
_TOKEN_SCOPES = ("https://github.com/", "https://www.github.com/")
"""Hosts all of whose repositories are given a token, for the submodules' sake; elsewhere it is the one repository's (as BuildKit)."""

_CONFIGURATION = {
    "advice.detachedHead": "false",
    "core.hooksPath": os.devnull,
    "core.logAllRefUpdates": "false",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "init.defaultBranch": "master",
    "maintenance.auto": "false",
}

_SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=30", "ServerAliveInterval=15", "IdentityFile=none")


class GitMissing(Unsupported):
    """The git command is not installed."""

    def __init__(self) -> None:
        super().__init__("a git repository cannot be fetched: the git command is not installed on the daemon's host")

    @property
    def hint(self) -> str | None:
        """What the user can do about it."""
        return "install it: apt-get install git"


class GitFailed(Unavailable):
    """Git could not do something with a repository; *reason* is what it said."""

    def __init__(self, purpose: str, remote: str, reason: str) -> None:
        super().__init__(f"failed to {purpose} {redacted(remote)}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class GitAccess:
    """How repositories may be reached.

    *authorization* is a header's value (see ``credentials``); *known_hosts* the text of ssh's file of that name, without which any
    host is believed; *ssh_agent* the socket of the agent whose keys may be used; *environment* may name proxies, the daemon's where None.
    """

    authorization: str = field(default="", repr=False)
    known_hosts: str = ""
    ssh_agent: Path | None = None
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    timeout_s: float = 3600


class Git:
    """Runs git for one repository; *remote* is how that is to be called, without credentials."""

    def __init__(self, remote: str, access: GitAccess, directory: Path) -> None:
        """Prepare an environment; a file for ssh may be left in *directory*."""
        authorization = ""
        if remote.startswith(("http://", "https://")):
            remote, authorization = split_credentials(remote)
        self.remote = remote
        known_hosts = Path(os.devnull)
        if access.known_hosts:
            known_hosts = directory / "known_hosts"
            known_hosts.write_text(access.known_hosts, encoding="utf-8")
        configuration = dict(_CONFIGURATION)
        if access.authorization:
            scope = next((s for s in _TOKEN_SCOPES if remote.startswith(s)), remote)
            configuration[f"http.{scope}.extraHeader"] = f"Authorization: {access.authorization}"
        elif authorization:
            # what stands in a URL holds for submodules relative to it, too
            scope = urlunsplit((*urlsplit(remote)[:2], "/", "", ""))
            configuration[f"http.{scope}.extraHeader"] = f"Authorization: {authorization}"
        self._environment = _environment(access, configuration, known_hosts)

    async def run(self, purpose: str, *args: str, cwd: Path = Path("/")) -> str:
        """Run a git command and return its output. Raises GitFailed with what it complained of, GitMissing."""
        try:
            done = await processes.run(["git", *args], cwd=cwd, env=self._environment, umask=_UMASK, own_group=True)
        except FileNotFoundError:
            raise GitMissing from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip() or f"git ended with {done.returncode}"
            raise GitFailed(purpose, self.remote, said[-_SHOWN_CHARACTERS:])
        return done.stdout.decode(errors="replace")


def _environment(access: GitAccess, configuration: Mapping[str, str], known_hosts: Path) -> dict[str, str]:
    surrounding = os.environ if access.environment is None else access.environment
    environment = {
        **{name: value for name, value in surrounding.items() if name.lower().endswith("_proxy")},
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "http:https:ssh:git",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": _ssh_command(known_hosts),
        "GIT_SSH_VARIANT": "ssh",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(configuration)),
    }
    if access.ssh_agent is not None:
        environment["SSH_AUTH_SOCK"] = str(access.ssh_agent)
    for number, (key, value) in enumerate(configuration.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _ssh_command(known_hosts: Path) -> str:
    """Ssh without the daemon's user's configuration, keys and known hosts."""
    checking = "no" if str(known_hosts) == os.devnull else "yes"
    options = (
        *_SSH_OPTIONS,
        f"StrictHostKeyChecking={checking}",
        f"UserKnownHostsFile={known_hosts}",
        f"GlobalKnownHostsFile={os.devnull}",
    )
    return shlex.join(["ssh", "-F", os.devnull, *(word for option in options for word in ("-o", option))])
