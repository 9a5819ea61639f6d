"""Creating a container: the request completed from the image and docker's defaults, checked, and recorded."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from lamina.container import names
from lamina.container.config import (
    ContainerConfig,
    EndpointRequest,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    RestartPolicy,
)
from lamina.container.errors import ContainerNotFound, NameInUse
from lamina.container.links import checked_links
from lamina.container.mounts import MountPlan, fill_volume, inherited_points, plan_mounts
from lamina.container.record import Record
from lamina.container.settings import LARGEST_LIMIT, donor_in
from lamina.container.store import ContainerStore
from lamina.container.times import rfc3339
from lamina.container.validation import (
    check_config,
    check_host,
    check_namespaces,
    check_networking,
    check_remapped,
    check_strings,
)
from lamina.container.warnings import warnings, without_effectless
from lamina.errors import InvalidArgument
from lamina.image.store import Image, ImageStore
from lamina.linux.cgroups import Hierarchies
from lamina.linux.tasks import to_the_end
from lamina.linux.user_namespace import IdMap
from lamina.network.errors import NetworkNotFound
from lamina.network.store import NetworkStore
from lamina.oci.config import Healthcheck, RunConfig
from lamina.runtime import defaults
from lamina.runtime.runtimes import Runtimes
from lamina.runtime.spec import DEFAULT_VARIABLES
from lamina.snapshot import Snapshots
from lamina.volume import Hold, VolumeInUse, VolumeMounts, VolumeNotFound, VolumeStore

_SHM_BYTES = 64 << 20


@dataclass(frozen=True)
class CreateRequest:
    """``POST /containers/create``: what was asked for, and the image that it is to stand on."""

    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig
    image: Image
    name: str | None = None


class Creation:
    """Makes records, read-write layers and volumes for new containers."""

    def __init__(
        self,
        store: ContainerStore,
        images: ImageStore,
        snapshots: Snapshots,
        volumes: VolumeStore,
        volume_mounts: VolumeMounts,
        hierarchies: Hierarchies,
        runtimes: Runtimes,
        networks: NetworkStore,
        idmap: IdMap | None = None,
    ) -> None:
        """*idmap* tells whom the users of new containers are on the host, unless these ask for the host's user namespace."""
        self._store = store
        self._images = images
        self._snapshots = snapshots
        self._volumes = volumes
        self._volume_mounts = volume_mounts
        self._hierarchies = hierarchies
        self._runtimes = runtimes
        self._networks = networks
        self._idmap = idmap

    async def create(self, request: CreateRequest) -> tuple[Record, list[str]]:
        """Make a container and return its record, with warnings for the user. On failure nothing is left but used names of volumes.

        The image and the volumes are not removed meanwhile. Raises NameInUse, ImageNotFound, InvalidArgument's kinds or
        UnsupportedOption.
        """
        container_id = secrets.token_hex(32)
        config, asked = self._checked(request, container_id)
        host = without_effectless(asked, self._hierarchies)
        name = self._reserve_name(request.name, container_id)
        hold = self._volumes.hold()
        try:
            with self._images.hold(request.image.image_id) as held, hold:

                def find_image(name: str) -> Image:
                    image = self._images.find(name)
                    held.add(image.image_id)
                    return image

                inherited = inherited_points(host.volumes_from or [], self._store)
                plan = await plan_mounts(config, host, inherited, self._volumes, hold, find_image)
                idmap = None if host.userns_mode == "host" else self._idmap
                self._snapshots.create(container_id, remapped=idmap is not None)
                await self._fill_volumes(plan, container_id, request.image)
                plan.make_sources()
                networks = _networks(config, host, request.networking, self._network_named)
                record = _record(container_id, name, request, config, host, plan, networks, idmap)
                await self._store.put(record)
        except BaseException:
            self._store.release_name(name)
            await to_the_end(self._undo(container_id, hold))
            raise
        return record, list(warnings(config, asked, self._hierarchies))

    async def _undo(self, container_id: str, hold: Hold) -> None:
        """Remove what was made for a container that did not come to be."""
        await self._snapshots.remove(container_id)
        for name in hold.made_anonymous:
            with suppress(VolumeInUse, VolumeNotFound):  # its name was seen and used, or it was removed, meanwhile
                await self._volumes.remove(name)

    def _checked(self, request: CreateRequest, container_id: str) -> tuple[ContainerConfig, HostConfig]:
        """The request, complete, with nothing in it that is wrong or not supported."""
        check_config(request.config, request.host_config)
        config = complete_config(request.config, request.image.config.run, container_id, host_uts=_shows_host(request))
        host = complete_host_config(request.host_config, self._hierarchies, self._runtimes.default.tool.name)
        check_host(config, host, runtimes=self._runtimes.names)
        if self._idmap is not None and host.userns_mode != "host":
            check_remapped(host)
        check_networking(request.config, host, request.networking)
        check_namespaces(host, self._store)
        check_strings(command_of(config), config.env or [])
        host = msgspec.structs.replace(host, links=checked_links(host.links or [], self._store) or None)
        return config, self._with_ids_of_donors(host)

    def _with_ids_of_donors(self, host: HostConfig) -> HostConfig:
        """The modes that join other containers, with these ones' IDs, as a name may come to be another's."""
        modes = {}
        for field in ("network_mode", "ipc_mode", "pid_mode"):
            donor = donor_in(getattr(host, field))
            with suppress(ContainerNotFound):  # a network's is looked for at the start only
                if donor is not None:
                    modes[field] = f"container:{self._store.find(donor).id}"
        return msgspec.structs.replace(host, **modes)

    def _network_named(self, name: str) -> str:
        """A network's name; one that does not exist is looked for again at the start, as docker does."""
        try:
            return self._networks.find(name).name
        except NetworkNotFound:
            return name

    def _reserve_name(self, wanted: str | None, container_id: str) -> str:
        if wanted:
            return self._store.reserve_name(wanted, container_id)
        for attempt in range(100):
            candidate = names.generate(attempt)
            if not self._store.has_name(candidate):
                return self._store.reserve_name(candidate, container_id)
        raise NameInUse(candidate, "others")

    async def _fill_volumes(self, plan: MountPlan, container_id: str, image: Image) -> None:
        if not plan.to_fill:
            return
        running = {point.name for record in self._store if record.state.has_process for point in record.mounts}
        async with self._snapshots.mounted(container_id, image.config.diff_ids) as rootfs:
            for volume, target in plan.to_fill:
                async with self._volume_mounts.mounted(volume.name, container_id):
                    if not volume.options or not any(volume.path.iterdir()):
                        in_use = volume.name in running or bool(volume.options)
                        await fill_volume(volume, rootfs, target, in_use=in_use)


def _record(
    container_id: str,
    name: str,
    request: CreateRequest,
    config: ContainerConfig,
    host: HostConfig,
    plan: MountPlan,
    networks: dict[str, EndpointRequest | None],
    idmap: IdMap | None,
) -> Record:
    path, *args = command_of(config)
    now = time.time_ns()
    return Record(
        id=container_id,
        name=name,
        created=rfc3339(now),
        created_ns=now,
        image_id=str(request.image.image_id),
        image_name=request.config.image,
        path=path,
        args=args,
        config=config,
        host_config=host,
        mounts=plan.points,
        networks=networks,
        diff_ids=[str(d) for d in request.image.config.diff_ids],
        anonymous_volumes=plan.anonymous,
        image_mounts=plan.images,
        idmap=idmap,
    )


def _shows_host(request: CreateRequest) -> bool:
    """Whether the container bears its host's name."""
    return request.host_config.uts_mode == "host" or request.host_config.network_mode == "host"


def complete_config(
    config: ContainerConfig, image: RunConfig, container_id: str, *, host_uts: bool = False
) -> ContainerConfig:
    """The request's config with the image's in the places that were left empty (docker's rules for each field).

    With *host_uts* the host's name is the container's unless another was asked for.
    """
    entrypoint, cmd = _words(config.entrypoint), _words(config.cmd)
    if not entrypoint:
        cmd = cmd or image.cmd or []
        entrypoint = (image.entrypoint or []) if config.entrypoint is None else []
    elif entrypoint == [""]:
        entrypoint = []  # one empty word takes the image's away, and its command with it
    return msgspec.structs.replace(
        config,
        hostname=config.hostname or (os.uname().nodename if host_uts else container_id[:12]),
        user=config.user or image.user or "",
        env=merge_env(image.env or [], config.env or []),
        cmd=cmd or None,
        entrypoint=entrypoint or None,
        working_dir=config.working_dir or image.working_dir or "",
        labels={**(image.labels or {}), **(config.labels or {})},
        exposed_ports=_union(image.exposed_ports, config.exposed_ports),
        volumes=_union(image.volumes, config.volumes),
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=_merged_check(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
        on_build=config.on_build or image.on_build,
    )


def _merged_check(wanted: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The request's check, with the image's fields where it has none: to change the interval one need not repeat the command."""
    if wanted is None or image is None:
        return wanted or image
    fields = {name: getattr(wanted, name) or getattr(image, name) for name in Healthcheck.__struct_fields__}
    return Healthcheck(**fields)


def complete_host_config(host: HostConfig, hierarchies: Hierarchies, runtime: str) -> HostConfig:
    """The request's host config with docker's defaults, as ``inspect`` shows them."""
    own = msgspec.structs.replace(
        host,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        log_config=LogConfig(host.log_config.type or "json-file", host.log_config.config or {}),
        restart_policy=host.restart_policy if host.restart_policy.name else RestartPolicy("no", 0),
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("private" if hierarchies.layout == "v2" else "host"),
        shm_size=host.shm_size or _SHM_BYTES,
        memory_swap=host.memory_swap or min(2 * max(host.memory, 0), LARGEST_LIMIT),
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        oom_kill_disable=bool(host.oom_kill_disable),
        pids_limit=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        security_opt=host.security_opt or (["label=disable"] if _sees_host(host) else host.security_opt),
        runtime=host.runtime or runtime,
        console_size=host.console_size or [0, 0],
    )
    if own.privileged:
        return msgspec.structs.replace(own, masked_paths=None, readonly_paths=None)
    return msgspec.structs.replace(
        own,
        masked_paths=list(defaults.MASKED_PATHS) if own.masked_paths is None else own.masked_paths,
        readonly_paths=list(defaults.READONLY_PATHS) if own.readonly_paths is None else own.readonly_paths,
    )


def _sees_host(host: HostConfig) -> bool:
    """Whether docker would give the container no SELinux label of its own, and says so."""
    return host.privileged or "host" in (host.ipc_mode, host.pid_mode)


def command_of(config: ContainerConfig) -> list[str]:
    """Entry point and command in one. Raises InvalidArgument if both are empty."""
    words = [*_words(config.entrypoint), *_words(config.cmd)]
    if not words:
        raise InvalidArgument("no command specified")
    return words


def merge_env(base: Sequence[str], over: Sequence[str]) -> list[str]:
    """The request's variables, and behind them those of the image that it does not name; a name without ``=`` takes one away."""
    merged: dict[str, str] = {}
    for entry in over:
        name = entry.partition("=")[0]
        if not name:
            raise InvalidArgument(f"invalid environment variable: {entry}")
        merged[name] = entry
    for entry in base:
        merged.setdefault(entry.partition("=")[0], entry)
    # one without a value takes away what every container has, too, where it is that
    return [entry for entry in merged.values() if "=" in entry or entry in DEFAULT_VARIABLES]


def _networks(
    config: ContainerConfig, host: HostConfig, networking: NetworkingConfig, find: Callable[[str], str]
) -> dict[str, EndpointRequest | None]:
    """The networks that a container is to be in, that of its mode first; *find* gives a network's name by what a client calls it."""
    if config.network_disabled:
        return {}
    name = host.network_mode
    if name.startswith("container:"):
        return {}
    given = dict(networking.endpoints_config or {})
    first = given.pop(name, None) or given.pop("default", None)
    named = {find(other): request for other, request in given.items()}
    return {find(name): first or named.get(find(name)), **{n: r for n, r in named.items() if n != find(name)}}


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _union(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    merged = {**(first or {}), **(second or {})}
    return merged or None
