"""Containers as ``inspect`` and ``ps`` show them (Engine API: ContainerInspectResponse, ContainerSummary)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from lamina.container.config import ContainerConfig, HostConfig
from lamina.container.health import Health, Probe
from lamina.container.links import shown_links
from lamina.container.record import NEVER, MountPoint, NetworkEndpoint, Record
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
        "NetworkSettings": network_settings(record),
    }
    if sizes is not None:
        result["SizeRw"], result["SizeRootFs"] = sizes
    return result


def summary(
    record: Record, sizes: tuple[int, int] | None = None, names_in_others: Sequence[str] = ()
) -> dict[str, Any]:
    """An entry of ``GET /containers/json``; *names_in_others* are those that links to the container give it."""
    result: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}", *names_in_others],
        "Image": record.image_name,
        "ImageID": record.image_id,
        "Command": " ".join([record.path, *(_quoted(a) for a in record.args)]),
        "Created": record.created_ns // 1_000_000_000,
        "Ports": _exposed(record),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status_text(record),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {"Networks": network_settings(record)["Networks"]},
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


def network_settings(record: Record) -> dict[str, Any]:
    """docker's NetworkSettings: the fields of the default bridge twice, as old clients read them at the top."""
    endpoint = record.endpoint or NetworkEndpoint(network=record.host_config.network_mode)
    on_bridge = endpoint.network == "bridge"
    networks = {}
    for name, request in record.networks.items():
        joined = endpoint if endpoint.network == name else NetworkEndpoint(network=name)
        networks[name] = {
            "IPAMConfig": msgspec.to_builtins(request.ipam_config) if request and request.ipam_config else None,
            "Links": None,
            "Aliases": request.aliases if request else None,
            "DriverOpts": None,
            "GwPriority": request.gw_priority if request else 0,
            "NetworkID": joined.network_id,
            "EndpointID": joined.endpoint_id,
            "Gateway": joined.gateway,
            "IPAddress": joined.ip,
            "MacAddress": joined.mac,
            "IPPrefixLen": joined.prefix_len,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    return {
        "Bridge": "",
        "SandboxID": endpoint.endpoint_id,
        "SandboxKey": _sandbox(record),
        "Ports": dict.fromkeys(record.config.exposed_ports or {}) if record.state.has_process else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": endpoint.endpoint_id if on_bridge else "",
        "Gateway": endpoint.gateway if on_bridge else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": endpoint.ip if on_bridge else "",
        "IPPrefixLen": endpoint.prefix_len if on_bridge else 0,
        "IPv6Gateway": "",
        "MacAddress": endpoint.mac if on_bridge else "",
        "Networks": networks,
    }


def _sandbox(record: Record) -> str:
    """Where the network's namespace is to be found; the host's has no place of its own."""
    if record.endpoint is not None and record.endpoint.network == "host":
        return f"/proc/{record.state.pid}/ns/net"
    return record.endpoint.sandbox if record.endpoint is not None else ""


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


def _exposed(record: Record) -> list[dict[str, Any]]:
    if not record.state.has_process:
        return []
    ports = []
    for text in record.config.exposed_ports or {}:
        number, _, protocol = text.partition("/")
        if number.isdigit():
            ports.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return ports


def _quoted(word: str) -> str:
    """docker shows an argument with spaces in single quotes."""
    return f"'{word}'" if " " in word else word
