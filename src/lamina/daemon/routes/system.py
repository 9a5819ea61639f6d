"""Ping, version, info, events, disk use (Engine API, "System"), and lamina's own verify."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from lamina.api import versions
from lamina.api.filters import Filters
from lamina.container.log_options import DRIVERS, JOURNAL
from lamina.container.times import parse_moment, rfc3339
from lamina.daemon.render import builds as render_builds
from lamina.daemon.render import containers as render_containers
from lamina.daemon.render import images as render_images
from lamina.daemon.render import volumes as render_volumes
from lamina.daemon.router import Route
from lamina.engine import Engine, disk_use
from lamina.engine.events import Event
from lamina.engine.info import host_facts, lamina_version
from lamina.http import Request, Response, StreamingResponse, json_response
from lamina.http.message import InvalidRequest, encode_json
from lamina.oci.digest import Digest, ImageID
from lamina.oci.reference import DEFAULT_DOMAIN
from lamina.registry.hosts import Settings
from lamina.runtime import cdi
from lamina.runtime.probe import Tool

_EVENT_FILTERS = ("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope",
                  "secret", "service", "type", "volume")  # fmt: skip

_DISK_KINDS = ("container", "image", "volume", "build-cache")
_NAMED_KINDS = ("config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume")


def routes(engine: Engine) -> list[Route]:
    """The endpoints of this module."""
    resource = _System(engine)
    return [
        Route("GET", "/_ping", resource.ping),
        Route("HEAD", "/_ping", resource.ping),
        Route("GET", "/version", resource.version),
        Route("GET", "/info", resource.info),
        Route("GET", "/events", resource.events),
        Route("GET", "/system/df", resource.disk_use),
    ]


class _System:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._facts = host_facts()

    async def ping(self, request: Request) -> Response:
        headers = {
            "Builder-Version": "1",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
            "Swarm": "inactive",
        }
        return Response(200, b"OK", "text/plain; charset=utf-8", headers)

    async def version(self, request: Request) -> Response:
        tools = self._engine.tools
        engine_details = {
            "ApiVersion": versions.CURRENT,
            "MinAPIVersion": versions.MINIMUM,
            "Os": "linux",
            "Arch": _go_architecture(self._facts.architecture),
            "KernelVersion": self._facts.kernel,
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
        }
        components = [{"Name": "Engine", "Version": lamina_version(), "Details": engine_details}]
        components += [_component(tool) for tool in (tools.runtime, tools.monitor, tools.init) if tool is not None]
        return json_response(
            {
                "Platform": {"Name": "lamina"},
                "Components": components,
                "Version": lamina_version(),
                "ApiVersion": versions.CURRENT,
                "MinAPIVersion": versions.MINIMUM,
                "GitCommit": "",
                "GoVersion": "",
                "Os": "linux",
                "Arch": _go_architecture(self._facts.architecture),
                "KernelVersion": self._facts.kernel,
                "BuildTime": "",
            }
        )

    async def info(self, request: Request) -> Response:
        return json_response(self._info())

    def _info(self) -> dict[str, Any]:
        engine, facts = self._engine, self._facts
        statuses = [record.state.status for record in engine.containers]
        running, paused = statuses.count("running"), statuses.count("paused")
        layout = engine.hierarchies.layout
        has_memory = engine.hierarchies.directory("/", "memory") is not None
        init = engine.tools.init
        warnings = [] if engine.network_service.pool else ["WARNING: the bridge network is not available"]
        return {
            "ID": engine.network_service.ids["bridge"][:36],
            "Containers": len(statuses),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(statuses) - running - paused,
            "Images": sum(1 for _ in engine.images),
            "Driver": engine.lowers.name,
            "DriverStatus": [["Layers", "indexed in place" if engine.lowers.name == "erofs" else "extracted"]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": [name for name in DRIVERS if name != "journald" or JOURNAL.exists()],
            },
            "MemoryLimit": has_memory,
            "SwapLimit": has_memory,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "OomKillDisable": layout != "v2",
            "IPv4Forwarding": True,
            "Debug": False,
            "NFd": 0,
            "NGoroutines": 0,
            "SystemTime": rfc3339(time.time_ns()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if layout == "v2" else "1",
            "NEventsListener": engine.events.listener_count,
            "KernelVersion": facts.kernel,
            "OperatingSystem": facts.operating_system,
            "OSVersion": facts.os_version,
            "OSType": "linux",
            "Architecture": facts.architecture,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _registry_config(engine.exchange.settings),
            "NCPU": facts.cpus,
            "MemTotal": facts.memory,
            "GenericResources": None,
            "DockerRootDir": str(engine.options.root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": facts.name,
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": lamina_version(),
            "Runtimes": {name: {"path": path} for name, path in engine.runtimes.paths.items()},
            "DefaultRuntime": engine.tools.runtime.name,
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": init.name if init else "",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": engine.tools.runtime.version},
            "InitCommit": {"ID": init.version if init else ""},
            "SecurityOptions": [
                "name=seccomp,profile=builtin",
                *(["name=userns"] if engine.options.userns_remap else []),
            ],
            "CDISpecDirs": [str(directory) for directory in cdi.DIRECTORIES],
            "Warnings": warnings,
        }

    async def events(self, request: Request) -> StreamingResponse:
        filters = Filters.parse(request.query("filters"), _EVENT_FILTERS)
        since, until = request.query("since"), request.query("until")
        since_ns = parse_moment(since) if since else None
        until_ns = parse_moment(until) if until else None
        if since_ns is not None and until_ns is not None and since_ns > until_ns:
            raise InvalidRequest(f"`since` time ({since}) cannot be after `until` time ({until})")
        stream = self._engine.events.follow(
            lambda event: _event_matches(event, filters), since_ns=since_ns, until_ns=until_ns
        )
        return StreamingResponse(_render_events(stream), is_endless=True)

    async def disk_use(self, request: Request) -> Response:
        """What is not asked for by ``type`` is not measured, and null."""
        engine = self._engine
        kinds = request.query_all("type") or list(_DISK_KINDS)
        for kind in kinds:
            if kind not in _DISK_KINDS:
                raise InvalidRequest(f"unknown object type: {kind}")
        shown: dict[str, Any] = dict.fromkeys(("Images", "Containers", "Volumes", "BuildCache")) | {"LayersSize": 0}
        if "image" in kinds:
            shown["LayersSize"] = await disk_use.layers_bytes(engine)
            shown["Images"] = [render_images.summary(image, engine, shared=True) for image in engine.images]
        if "container" in kinds:
            shown["Containers"] = [_container_use(use, engine) for use in await disk_use.containers_use(engine)]
        if "volume" in kinds:
            shown["Volumes"] = [render_volumes.summary(use) for use in await disk_use.volumes_use(engine)]
        if "build-cache" in kinds:
            shown["BuildCache"] = [render_builds.cache_item(item) for item in await disk_use.cache_use(engine)]
        return json_response(shown)


def _registry_config(settings: Settings) -> dict[str, Any]:
    mirrors = list(settings.mirrors)
    subnets = [text for text in settings.insecure if "/" in text]
    hosts = {text: False for text in settings.insecure if "/" not in text}
    return {
        "InsecureRegistryCIDRs": [*subnets, "127.0.0.0/8", "::1/128"],
        "IndexConfigs": {
            name: {"Name": name, "Mirrors": own, "Secure": secure, "Official": name == DEFAULT_DOMAIN}
            for name, own, secure in ((DEFAULT_DOMAIN, mirrors, True), *((host, [], False) for host in hosts))
        },
        "Mirrors": mirrors or None,
    }


def _container_use(use: disk_use.ContainerUse, engine: Engine) -> dict[str, Any]:
    """A container with its sizes. What it has written has its log in it here, as that takes disk, too; docker counts it nowhere."""
    image_id = ImageID(Digest(use.record.image_id))
    image_bytes = render_images.size_of(engine.images.get(image_id), engine) if image_id in engine.images else 0
    return render_containers.summary(use.record, engine, (use.written + use.log, use.written + image_bytes))


async def _render_events(stream: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for event in stream:
        fields: dict[str, Any] = {
            "Type": event.kind,
            "Action": event.action,
            "Actor": {"ID": event.actor_id, "Attributes": dict(event.attributes)},
            "scope": "local",
            "time": event.time_ns // 1_000_000_000,
            "timeNano": event.time_ns,
        }
        if event.kind in ("container", "image"):
            fields |= {"status": event.action, "id": event.actor_id}
        if "image" in event.attributes:
            fields["from"] = event.attributes["image"]
        yield encode_json(fields) + b"\n"


def _event_matches(event: Event, filters: Filters) -> bool:
    """docker's rules (moby, daemon/events/filter.go): a container's events are those of its image, too."""
    name = event.attributes.get("name", "")
    image = name if event.kind == "image" else event.attributes.get("image", "")
    action = event.action.partition(":")[0] if filters.values_of("event") else ""
    return (
        filters.allows("type", event.kind)
        and filters.allows("event", event.action, action)
        and filters.allows("scope", "local")
        and all(filters.allows_prefix(kind, event.actor_id, name) for kind in _NAMED_KINDS)
        and filters.allows("image", event.actor_id, image, _without_tag(image))
        and filters.allows_labels(event.attributes)
    )


def _without_tag(image: str) -> str:
    repository, colon, tag = image.rpartition(":")
    return repository if colon and "/" not in tag else image


def _component(tool: Tool) -> dict[str, Any]:
    return {"Name": tool.name, "Version": tool.version, "Details": {"GitCommit": ""}}


def _go_architecture(machine: str) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
