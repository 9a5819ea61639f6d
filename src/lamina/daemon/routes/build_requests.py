"""What a client asks of a build, read from docker's query parameters or from lamina's own JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lamina.api.filters import Filters
from lamina.build.cache import kept
from lamina.build.cache.kept import PruneRequest
from lamina.build.cache.places import CacheSource, CacheTarget
from lamina.build.request import BuildRequest, Entitlement, LocalContext, StepLimits
from lamina.container.times import parse_moment
from lamina.daemon.registry_auth import AuthConfig, credentials_of_all
from lamina.errors import Unsupported
from lamina.http import Request, documents
from lamina.http.message import InvalidRequest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.runtime.limits import check_resources, check_ulimits
from lamina.runtime.security import SecurityOptions
from lamina.runtime.settings import Resources, Ulimit

_NOTHING = ("", "0", "null", "[]", "{}", "false", "no", "none")
_SHM_BYTES = 64 << 20
_NETWORKS = {"": "bridge", "default": "bridge", "bridge": "bridge", "host": "host", "none": "none"}
_ENTITLEMENTS: Mapping[str, Entitlement] = {name: name for name in ("network.host", "security.insecure")}
_UNSUPPORTED = ("outputs",)
_OPTIONS_LIMIT = 8 << 20


class _NamedContext(msgspec.Struct):
    """``--build-context``: a directory of this machine with its device and inode, or a text that says what else."""

    source: str
    device: int = 0
    inode: int = 0

    @property
    def meaning(self) -> LocalContext | str:
        """As the builder takes it."""
        is_directory = self.source.startswith("/") and "\0" not in self.source
        return LocalContext(Path(self.source), (self.device, self.inode)) if is_directory else self.source


class _Limits(msgspec.Struct):
    """The limits of RUN's processes; zeros and empty texts are none. Memory in bytes, times in microseconds."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    ulimits: list[_Ulimit] = []
    cgroup_parent: str = ""
    security_opt: list[str] = []

    @property
    def meaning(self) -> StepLimits:
        """As the builder takes it. Raises InvalidArgument."""
        resources = Resources(
            memory=self.memory or None,
            memory_swap=max(self.memory_swap, -1) or None,
            cpu_shares=self.cpu_shares or None,
            cpu_period=self.cpu_period or None,
            cpu_quota=max(self.cpu_quota, -1) or None,
            cpuset_cpus=self.cpuset_cpus,
            cpuset_mems=self.cpuset_mems,
        )
        ulimits = [Ulimit(ulimit.name, ulimit.soft, ulimit.hard) for ulimit in self.ulimits]
        check_resources(resources)
        check_ulimits(ulimits)
        return StepLimits(resources, ulimits, self.cgroup_parent, SecurityOptions.parse(self.security_opt))


class _Ulimit(msgspec.Struct, rename="pascal"):
    """A resource limit in docker's words."""

    name: str
    soft: int = 0
    hard: int = 0


class BuildBody(msgspec.Struct):
    """``POST /lamina/build``: a build of a directory of the daemon's machine, read where it lies, of a *remote*, or of a tar that follows.

    *device* and *inode* are those of the directory as the client sees it. *dockerfile_text* and *dockerignore_text* are of files
    outside the context. *secrets* are base64 by ID, *ssh* paths of agents' sockets. With *check* nothing is built and the answer is
    what lint has to say; with *events* it is one JSON object an event instead of the classic texts. *epoch* is SOURCE_DATE_EPOCH.
    """

    context: str = ""
    device: int = 0
    inode: int = 0
    remote: str = ""
    dockerfile: str = "Dockerfile"
    dockerfile_text: str | None = None
    dockerignore_text: str | None = None
    tags: list[str] = []
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    targets: list[str] = []
    no_cache: bool = False
    no_cache_filter: list[str] = []
    network: str = ""
    extra_hosts: list[str] = []
    shm_size: int = 0
    jobs: int = 4
    secrets: dict[str, bytes] = {}
    ssh: dict[str, str] = {}
    quiet: bool = False
    events: bool = False
    check: bool = False
    squash: bool = False
    for_output: bool = False
    keep_failed: bool = False
    explain: bool = False
    contexts: dict[str, _NamedContext] = {}
    platform: str = ""
    limits: _Limits = msgspec.field(default_factory=_Limits)
    allow: list[str] = []
    epoch: str = ""
    cache_from: list[dict[str, str]] = []
    cache_to: list[dict[str, str]] = []
    auths: dict[str, AuthConfig] = {}
    push: bool = False
    pull: bool = False

    @property
    def local(self) -> LocalContext | None:
        """The directory that is the context, if one is. Raises InvalidRequest."""
        if not self.context:
            return None
        if not self.context.startswith("/") or "\0" in self.context:
            raise InvalidRequest(f"the build context must be an absolute path: {self.context!r}")
        return LocalContext(Path(self.context), (self.device, self.inode))

    @property
    def wanted(self) -> BuildRequest:
        """The build. Raises InvalidArgument's kinds."""
        return BuildRequest(
            dockerfile=self.dockerfile,
            dockerfile_text=_bytes(self.dockerfile_text),
            dockerignore_text=_bytes(self.dockerignore_text),
            tags=[Reference.parse_tagged(text) for text in self.tags],
            build_args=self.build_args,
            labels=self.labels,
            targets=self.targets,
            use_cache=not self.no_cache,
            no_cache_filter=frozenset(self.no_cache_filter),
            network=_network(self.network),
            extra_hosts=self.extra_hosts,
            shm_size=self.shm_size or _SHM_BYTES,
            jobs=self.jobs,
            source_date_epoch_s=_epoch(self.epoch or self.build_args.get("SOURCE_DATE_EPOCH", "")),
            warn=True,
            squash=self.squash,
            for_output=self.for_output,
            keep_failed=self.keep_failed,
            explain=self.explain,
            contexts={name.lower(): given.meaning for name, given in self.contexts.items()},
            secrets=self.secrets,
            ssh={name: Path(path) for name, path in self.ssh.items()},
            platform=_platform(self.platform),
            limits=self.limits.meaning,
            entitlements=frozenset(map(_entitlement, self.allow)),
            cache_from=[CacheSource.of(fields) for fields in self.cache_from],
            cache_to=[CacheTarget.of(fields) for fields in self.cache_to] or _inline(self.build_args),
            credentials={name: given.meaning for name, given in self.auths.items()},
            push=self.push,
            pull=self.pull,
        )


async def read_framed(request: Request) -> tuple[BuildBody, AsyncIterator[bytes]]:
    """The options on a body's first line, and the rest of it. Raises InvalidRequest."""
    pieces = aiter(request.body)
    head = bytearray()
    async for piece in pieces:
        head += piece
        if b"\n" in piece or len(head) > _OPTIONS_LIMIT:
            break
    line, _, rest = bytes(head).partition(b"\n")
    if len(line) > _OPTIONS_LIMIT:
        raise InvalidRequest(f"the options of a build are longer than {_OPTIONS_LIMIT} bytes")
    try:
        options = documents.decode(line, BuildBody)
    except documents.InvalidDocument as error:
        raise InvalidRequest(f"invalid JSON: {error}") from None

    async def remaining() -> AsyncIterator[bytes]:
        yield rest
        async for piece in pieces:
            yield piece

    return options, remaining()


def read_query(request: Request) -> BuildRequest:
    """The parameters of docker's ``POST /build``. Raises InvalidArgument's kinds, and Unsupported for what lamina does not honour."""
    if request.query("version") == "2":
        raise Unsupported("BuildKit's protocol is not served yet: use DOCKER_BUILDKIT=0")
    for name in _UNSUPPORTED:
        if request.query(name).lower() not in _NOTHING:
            raise Unsupported(f"build option {name!r} is not supported by lamina yet")
    build_args = _map(request, "buildargs")
    return BuildRequest(
        dockerfile=request.query("dockerfile") or "Dockerfile",
        tags=[Reference.parse_tagged(text) for text in request.query_all("t") if text],
        build_args=build_args,
        labels=_map(request, "labels"),
        targets=[name for name in (request.query("target"),) if name],
        source_date_epoch_s=_epoch(build_args.get("SOURCE_DATE_EPOCH", "")),
        use_cache=not request.flag("nocache"),
        network=_network(request.query("networkmode")),
        extra_hosts=[h for text in request.query_all("extrahosts") for h in text.split(",") if h],
        shm_size=request.integer("shmsize") or _SHM_BYTES,
        squash=request.flag("squash"),
        platform=_platform(request.query("platform")),
        limits=_limits(request).meaning,
        cache_from=[
            CacheSource.of({"type": "registry", "ref": name})
            for name in _json(request, "cachefrom", list[str] | None) or []
            if name
        ],
        cache_to=_inline(build_args),
        pull=request.flag("pull"),
        credentials=credentials_of_all(request),
    )


def read_prune(request: Request) -> PruneRequest:
    """The parameters of ``POST /build/prune``. Raises InvalidRequest."""
    filters = Filters.parse(request.query("filters"), ("until", "unused-for", *kept.FIELDS))
    fields = {}
    for name in filters:
        if len(filters[name]) > 1:
            raise InvalidRequest(f"filter {name} expects only one value")
        fields[name] = next(iter(filters[name]), "")
    moments = [parse_moment(fields.pop(name)) for name in ("until", "unused-for") if name in fields]
    return PruneRequest(
        everything=request.flag("all"),
        used_before_ns=min(moments, default=None),
        fields=fields,
        reserved_bytes=request.integer("reserved-space") or request.integer("keep-storage") or 0,
        maximum_bytes=request.integer("max-used-space") or 0,
        minimum_free_bytes=request.integer("min-free-space") or 0,
    )


def _inline(build_args: Mapping[str, str]) -> list[CacheTarget]:
    """BuildKit's older way to ask for an inline cache."""
    return [CacheTarget()] if build_args.get("BUILDKIT_INLINE_CACHE", "").lower() in ("1", "true") else []


def _limits(request: Request) -> _Limits:
    return _Limits(
        memory=request.integer("memory") or 0,
        memory_swap=request.integer("memswap") or 0,
        cpu_shares=request.integer("cpushares") or 0,
        cpu_period=request.integer("cpuperiod") or 0,
        cpu_quota=request.integer("cpuquota") or 0,
        cpuset_cpus=request.query("cpusetcpus"),
        cpuset_mems=request.query("cpusetmems"),
        ulimits=_json(request, "ulimits", list[_Ulimit] | None) or [],
        cgroup_parent=request.query("cgroupparent"),
        security_opt=request.query_all("securityopt"),
    )


def _epoch(text: str) -> int | None:
    """SOURCE_DATE_EPOCH as reproducible-builds.org has it: seconds, given as a build argument."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 11:
        raise InvalidRequest(f"invalid SOURCE_DATE_EPOCH: {text}")
    return int(text)


def _platform(text: str) -> Platform | None:
    if "," in text:
        raise Unsupported("an image is built for one platform at a time: give --platform one")
    return Platform.parse(text) if text else None


def _entitlement(name: str) -> Entitlement:
    if name not in _ENTITLEMENTS:
        raise InvalidRequest(f"invalid entitlement: {name}")
    return _ENTITLEMENTS[name]


def _network(name: str) -> str:
    """The network of RUN; one of a user's own is looked for when a step needs it."""
    if name.startswith("container:"):
        raise Unsupported(f"build network {name!r}: a step can join networks, and not another container's")
    return _NETWORKS.get(name, name)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def _map(request: Request, name: str) -> dict[str, str]:
    values = _json(request, name, dict[str, str | None] | None) or {}
    return {key: value for key, value in values.items() if value is not None}


def _json(request: Request, name: str, kind: Any) -> Any:
    """A parameter that is JSON of a form; None if it is missing or empty. Raises InvalidRequest."""
    text = request.query(name)
    try:
        return msgspec.json.decode(text, type=kind) if text else None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid {name}: {error}") from None
