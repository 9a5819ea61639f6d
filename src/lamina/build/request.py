"""What a build is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lamina.build.cache.places import CacheSource, CacheTarget
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.registry import Credentials
from lamina.runtime.security import SecurityOptions
from lamina.runtime.settings import Resources, Ulimit


@dataclass(frozen=True)
class LocalContext:
    """A directory of this machine as a context.

    *identity* is what the client's stat(2) says of the directory (device, inode), so that a client whose files are others than the
    daemon's is found out.
    """

    directory: Path
    identity: tuple[int, int]


@dataclass(frozen=True)
class StepLimits:
    """What bounds the processes of RUN. No step's outcome is taken to depend on it."""

    resources: Resources = field(default_factory=Resources)
    ulimits: Sequence[Ulimit] = ()
    cgroup_parent: str = ""
    security: SecurityOptions = field(default_factory=SecurityOptions)


PREDEFINED_ARGS = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "ftp_proxy",
                   "no_proxy", "all_proxy")  # fmt: skip
"""What a command sees without an ARG, and what is part of no cache key and no history."""

Entitlement = Literal["network.host", "security.insecure"]
"""What a Dockerfile gets only if the build says so; of the host's network, ``--network=host`` says it as well."""


@dataclass(frozen=True)
class BuildRequest:
    """A build's options. ``targets`` empty means the last stage; ``source_date_epoch_s`` bounds every time that the image has.

    ``platform`` is what is built for, None for the host's. ``dockerfile_text`` and ``dockerignore_text`` are of a Dockerfile that is not
    in the context and of what stands beside it; they go before the context's own. ``credentials`` are by registry, in docker's words for
    these. With ``push`` the image goes to the registries of its tags, with ``pull`` the bases come from theirs even if they are stored.

    With ``warn`` the build tells what lint has to say. ``secrets`` are values by ID, which reach nothing but the file that a step asks
    for; ``ssh`` are agents' sockets by ID. ``squash`` makes one layer of what the last target puts on its base. With ``for_output`` the
    images are wanted for what is got out of them, and are there for later builds alone unless they have a name. ``keep_failed`` keeps
    the state that a RUN which fails leaves, as an image; ``explain`` has each step tell why it was carried out.
    ``contexts`` are further ones by name in lower case: a directory, or a URL, repository or ``image://REFERENCE``.
    """

    dockerfile: str = "Dockerfile"
    dockerfile_text: bytes | None = None
    dockerignore_text: bytes | None = None
    tags: Sequence[Reference] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[str] = ()
    use_cache: bool = True
    no_cache_filter: frozenset[str] = frozenset()
    network: str = "bridge"
    extra_hosts: Sequence[str] = ()
    shm_size: int = 64 << 20
    jobs: int = 4
    source_date_epoch_s: int | None = None
    warn: bool = False
    squash: bool = False
    keep_failed: bool = False
    explain: bool = False
    for_output: bool = False
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ssh: Mapping[str, Path] = field(default_factory=dict)
    contexts: Mapping[str, LocalContext | str] = field(default_factory=dict)
    platform: Platform | None = None
    limits: StepLimits = field(default_factory=StepLimits)
    entitlements: frozenset[Entitlement] = frozenset()
    cache_from: Sequence[CacheSource] = ()
    cache_to: Sequence[CacheTarget] = ()
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    push: bool = False
    pull: bool = False

    @property
    def proxies(self) -> dict[str, str]:
        """The proxy settings among the build arguments."""
        return {name: value for name, value in self.build_args.items() if name in PREDEFINED_ARGS}
