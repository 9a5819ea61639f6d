"""Containers as ``inspect`` and ``ps`` show them (Engine API: ContainerInspectResponse, ContainerSummary)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from lamina.container.config import ContainerConfig, EndpointRequest, HostConfig
from lamina.container.health import Health, Probe
from lamina.container.links import shown_links
from lamina.container.networking import dns_names
from lamina.container.record import NEVER, Joined, MountPoint, NetworkEndpoint, Record
from lamina.container.times import parse_rfc3339, rfc3339
from lamina.engine import Engine

_LEFT_OUT = frozenset(
    "ExposedPorts Healthcheck ArgsEscaped NetworkDisabled MacAddress StopSignal StopTimeout Shell Mounts Tmpfs StorageOpt Sysctls "
    "Runtime Init Annotations MemorySwappiness OomKillDisable KernelMemory".split()
)
_UNITS = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def inspect(record: Record, engine: Engine, sizes: tuple[int, int] | None = None) -> dict[str, Any]:
    """``GET /containers/{id}/json``; *sizes* are of the read-write layer and of the whole root, in bytes."""
    directory = engine.processes.directory(record.id)
    running = record.state.has_process
    keeps_log = record.host_config.log_config.type != "none"
    result: dict[str, Any] = {
        "Id": record.id,
        "Created": record.created,
        "Path": record.path,
        "Args": record.args,
        "State": _state(record, engine.health.of(record.id)),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf") if record.state.started_at != NEVER else "",
        "HostnamePath": str(directory / "hostname") if record.state.started_at != NEVER else "",
        "HostsPath": str(directory / "hosts") if record.state.started_at != NEVER else "",
        "LogPath": str(engine.processes.log_path(record.id)) if keeps_log and record.state.started_at != NEVER else "",
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": engine.lowers.name,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": engine.execs.ids_of(record.id) or None,
        "HostConfig": _without_empty(record.host_config) | {"Links": shown_links(record, engine.containers)},
        "GraphDriver": {
            "Name": engine.lowers.name,
            "Data": {
                "UpperDir": str(engine.snapshots.upper(record.id)),
                "MergedDir": str(engine.snapshots.rootfs(record.id)) if running else "",
            },
        },
        "Mounts": [_mount(point) for point in record.mounts],
        "Config": _without_empty(record.config),
        "NetworkSettings": network_settings(record, engine),
    }
    if sizes is not None:
        result["SizeRw"], result["SizeRootFs"] = sizes
    return result


def summary(
    record: Record, engine: Engine, sizes: tuple[int, int] | None = None, names_in_others: Sequence[str] = ()
) -> dict[str, Any]:
    """An entry of ``GET /containers/json``; *names_in_others* are those that links to the container give it."""
    result: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}", *names_in_others],
        "Image": record.image_name,
        "ImageID": record.image_id,
        "Command": " ".join([record.path, *(_quoted(a) for a in record.args)]),
        "Created": record.created_ns // 1_000_000_000,
        "Ports": _ports(record),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status_text(record),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {"Networks": {name: _endpoint(record, name, engine) for name in record.networks}},
        "Mounts": [_mount(point) for point in record.mounts],
    }
    if sizes is not None:
        result["SizeRw"], result["SizeRootFs"] = sizes
    return result


def status_text(record: Record, now_ns: int | None = None) -> str:
    """``Up 5 seconds``, ``Exited (0) 2 minutes ago``, ``Created``."""
    state = record.state
    now = time.time_ns() if now_ns is None else now_ns
    if state.status == "created":
        return "Created"
    if state.has_process:
        up = f"Up {elapsed((now - parse_rfc3339(state.started_at)) / 1e9)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        shown = {None: "", "starting": " (health: starting)"}.get(state.health, f" ({state.health})")
        return f"{up}{shown}"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {elapsed((now - parse_rfc3339(state.finished_at)) / 1e9)} ago"
    if state.finished_at == NEVER:
        return state.status.capitalize()
    return f"Exited ({state.exit_code}) {elapsed((now - parse_rfc3339(state.finished_at)) / 1e9)} ago"


def elapsed(seconds: float) -> str:
    """A length of time as docker says it (go-units, HumanDuration)."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if seconds < 120:
        return "About a minute"
    if 3600 <= seconds < 5400:
        return "About an hour"
    # docker changes to the larger unit only when there are two of it
    limits = {"minute": 60 * 60, "hour": 48 * 3600, "day": 14 * 86400, "week": 60 * 86400, "month": 2 * 365 * 86400}
    for size, unit in reversed(_UNITS):
        if unit == "year" or seconds < limits[unit]:
            return f"{int(seconds // size)} {unit}s"
    return "2 years"


def network_settings(record: Record, engine: Engine) -> dict[str, Any]:
    """docker's NetworkSettings: the fields of the default bridge twice, as old clients read them at the top."""
    joined = record.joined or Joined()
    first = next(iter(joined.endpoints.values()), None)
    bridge = joined.endpoints.get("bridge") or NetworkEndpoint(network="bridge")
    return {
        "Bridge": "",
        "SandboxID": first.endpoint_id if first is not None else "",
        "SandboxKey": _sandbox(record),
        "Ports": published_ports(record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.endpoint_id,
        "Gateway": bridge.gateway,
        "GlobalIPv6Address": bridge.ip6,
        "GlobalIPv6PrefixLen": bridge.prefix_len6,
        "IPAddress": bridge.ip,
        "IPPrefixLen": bridge.prefix_len,
        "IPv6Gateway": bridge.gateway6,
        "MacAddress": bridge.mac,
        "Networks": {name: _endpoint(record, name, engine) for name in record.networks},
    }


def _endpoint(record: Record, name: str, engine: Engine) -> dict[str, Any]:
    """A container's place in one network (Engine API, EndpointSettings)."""
    request = record.networks[name] or EndpointRequest()
    endpoint = record.endpoint(name) or NetworkEndpoint(network=name)
    network = engine.network_definitions.named(name)
    is_own = network is not None and not network.is_built_in
    return {
        "IPAMConfig": msgspec.to_builtins(request.ipam_config) if request.ipam_config else None,
        "Links": request.links,
        "Aliases": request.aliases,
        "MacAddress": endpoint.mac or request.mac_address,
        "DriverOpts": request.driver_opts,
        "GwPriority": request.gw_priority,
        "NetworkID": endpoint.network_id or (network.id if network is not None and is_own else ""),
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.ip,
        "IPPrefixLen": endpoint.prefix_len,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.ip6,
        "GlobalIPv6PrefixLen": endpoint.prefix_len6,
        "DNSNames": dns_names(record, request) if is_own else None,
    }


def published_ports(record: Record) -> dict[str, list[dict[str, str]] | None]:
    """A running container's ports, each with the places on the host that lead to it; none for one that is exposed alone."""
    if not record.state.has_process:
        return {}
    ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(record.config.exposed_ports or {})
    for place in record.joined.ports if record.joined is not None else ():
        name = f"{place.container_port}/{place.protocol}"
        ports[name] = [*(ports.get(name) or []), {"HostIp": place.host_ip, "HostPort": str(place.host_port)}]
    return ports


def _sandbox(record: Record) -> str:
    """Where the network's namespace is to be found; the host's has no place of its own."""
    if record.joined is not None and "host" in record.joined.endpoints:
        return f"/proc/{record.state.pid}/ns/net"
    return record.joined.sandbox if record.joined is not None else ""


def _mount(point: MountPoint) -> dict[str, Any]:
    """A mount; what has no volume has no name and no driver either."""
    fields: dict[str, Any] = msgspec.to_builtins(point)
    return {name: value for name, value in fields.items() if value != "" or name not in ("Name", "Driver")}


def _without_empty(config: ContainerConfig | HostConfig) -> dict[str, Any]:
    """The fields, less those that docker leaves out when they are empty, and those that its specification says are no null."""
    fields: dict[str, Any] = msgspec.to_builtins(config)
    return {name: value for name, value in fields.items() if value is not None or name not in _LEFT_OUT}


def _state(record: Record, health: Health) -> dict[str, Any]:
    state = record.state
    shown: dict[str, Any] = {
        "Status": state.status,
        "Running": state.is_running,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health is not None:
        shown["Health"] = {
            "Status": state.health,
            "FailingStreak": health.failing_streak,
            "Log": [_probe(probe) for probe in health.probes],
        }
    return shown


def _probe(probe: Probe) -> dict[str, Any]:
    return {
        "Start": rfc3339(probe.start_ns),
        "End": rfc3339(probe.end_ns),
        "ExitCode": probe.exit_code,
        "Output": probe.output,
    }


def _ports(record: Record) -> list[dict[str, Any]]:
    """A running container's ports as ``ps`` shows them (Engine API, Port)."""
    found: list[dict[str, Any]] = []
    for text, places in published_ports(record).items():
        number, _, protocol = text.partition("/")
        inner = {"PrivatePort": int(number), "Type": protocol or "tcp"} if number.isdigit() else None
        if inner is not None:
            found += [{"IP": p["HostIp"], **inner, "PublicPort": int(p["HostPort"])} for p in places or []] or [inner]
    return found


def _quoted(word: str) -> str:
    """docker shows an argument with spaces in single quotes."""
    return f"'{word}'" if " " in word else word
