"""config.json: settings in the words of the OCI runtime specification (config.md, config-linux.md)."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from lamina.errors import InvalidArgument
from lamina.runtime import defaults
from lamina.runtime.capabilities import effective_set
from lamina.runtime.cdi import inject
from lamina.runtime.seccomp import default_profile
from lamina.runtime.settings import ContainerSettings, Device, Resources, Throttle, Ulimit
from lamina.runtime.users import Identity, resolve

_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_VARIABLES = ("PATH", "HOSTNAME", "TERM", "HOME")
"""The variables that a container has if nobody says otherwise."""
_NAMESPACES = ("user", "network", "pid", "ipc", "uts", "cgroup")
_INIT_PATH = "/sbin/docker-init"


class InvalidSetting(InvalidArgument):
    """A setting of the container cannot be honoured."""


class Spec(msgspec.Struct, frozen=True):
    """A finished config.json, with what was changed to make it fit this host."""

    config: bytes
    warnings: list[str]


def build_spec(container_id: str, settings: ContainerSettings) -> Spec:
    """The runtime's configuration for a container whose root file system is mounted.

    Raises InvalidSetting, UserNotFound, UnknownCapability or DeviceUnresolvable.
    """
    warnings: list[str] = []
    identity = resolve(settings.rootfs, settings.user, settings.additional_groups)
    capabilities = effective_set(settings.cap_add, settings.cap_drop, privileged=settings.privileged)
    namespaces = settings.namespaces
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": _process(settings, identity, capabilities, warnings),
        "root": {"path": str(settings.rootfs), "readonly": settings.readonly_rootfs},
        "mounts": _mounts(settings),
        "linux": _linux(container_id, settings, capabilities),
        "annotations": dict(settings.annotations),
    }
    if namespaces.uts == "private":
        config["hostname"] = settings.hostname
        if settings.domainname:
            config["linux"]["sysctl"]["kernel.domainname"] = settings.domainname
    inject(config, settings.cdi_devices)
    return Spec(msgspec.json.encode(config), warnings)


def build_process(settings: ContainerSettings) -> Spec:
    """The runtime's configuration for one more process in a running container; what is not the process's own does not count.

    Raises as ``build_spec`` does.
    """
    warnings: list[str] = []
    identity = resolve(settings.rootfs, settings.user, settings.additional_groups)
    capabilities = effective_set(settings.cap_add, settings.cap_drop, privileged=settings.privileged)
    return Spec(msgspec.json.encode(_process(settings, identity, capabilities, warnings)), warnings)


def process_environment(env: Iterable[str], identity: Identity, *, hostname: str, terminal: bool) -> list[str]:
    """docker's environment: PATH, HOSTNAME and with a terminal TERM, then what was given, then HOME if nobody set it."""
    base = [_DEFAULT_PATH, *([f"HOSTNAME={hostname}"] if hostname else []), *(["TERM=xterm"] if terminal else [])]
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in env:
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    merged.setdefault("HOME", f"HOME={identity.home}")
    return list(merged.values())


def _process(
    settings: ContainerSettings, identity: Identity, capabilities: list[str], warnings: list[str]
) -> dict[str, Any]:
    args = [_INIT_PATH, "--", *settings.args] if settings.init_path else list(settings.args)
    active = capabilities if identity.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": settings.terminal,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "args": args,
        "env": process_environment(settings.env, identity, hostname=settings.hostname, terminal=settings.terminal),
        "cwd": settings.cwd or "/",
        "capabilities": {"bounding": capabilities, "effective": active, "permitted": active},
        "rlimits": rlimits(settings.ulimits, warnings),
        "noNewPrivileges": settings.security.no_new_privileges,
    }
    if settings.oom_score_adj:
        process["oomScoreAdj"] = settings.oom_score_adj
    if settings.console_size and any(settings.console_size):
        process["consoleSize"] = {"height": settings.console_size[0], "width": settings.console_size[1]}
    if settings.security.apparmor and _has_apparmor():
        process["apparmorProfile"] = settings.security.apparmor
    return process


def _has_apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def rlimits(ulimits: Sequence[Ulimit], warnings: list[str]) -> list[dict[str, Any]]:
    """Resource limits, clamped to what this process may give: without CAP_SYS_RESOURCE a hard limit can only be lowered."""
    result = []
    for ulimit in ulimits:
        kind = getattr(resource, f"RLIMIT_{ulimit.name.upper()}", None)
        if kind is None:
            raise InvalidSetting(f"invalid ulimit type: {ulimit.name}")
        own = resource.getrlimit(kind)[1]
        ceiling = own if own != resource.RLIM_INFINITY and not _may_raise_limits() else None
        hard = _clamp(ulimit.hard, ceiling)
        soft = _clamp(ulimit.soft, hard if ceiling is not None or ulimit.hard >= 0 else None)
        if (hard, soft) != (_unsigned(ulimit.hard), _unsigned(ulimit.soft)):
            warnings.append(
                f"ulimit {ulimit.name} is lowered to {soft}:{hard}, the most that this host lets the daemon give"
            )
        result.append({"type": f"RLIMIT_{ulimit.name.upper()}", "soft": soft, "hard": hard})
    return result


def _may_raise_limits() -> bool:
    return "CAP_SYS_RESOURCE" in effective_set(["SYS_RESOURCE"], (), privileged=False)


def _clamp(value: int, ceiling: int | None) -> int:
    number = _unsigned(value)
    return number if ceiling is None else min(number, ceiling)


def _unsigned(value: int) -> int:
    return value if value >= 0 else (1 << 64) - 1


def _mounts(settings: ContainerSettings) -> list[dict[str, Any]]:
    """Defaults, less those that the container replaces, then its own, parents before what lies in them."""
    own = [
        {"destination": m.destination, "type": m.kind, "source": m.source, "options": list(m.options)}
        for m in settings.mounts
    ]
    if settings.init_path:
        own.append({"destination": _INIT_PATH, "type": "bind", "source": settings.init_path, "options": ["bind", "ro"]})
    replaced = {m["destination"] for m in own}
    base = defaults.mounts(
        privileged=settings.privileged,
        shm_size=settings.shm_size,
        host_ipc=settings.namespaces.ipc == "host",
    )
    kept = [m for m in base if m["destination"] not in replaced]
    return kept + sorted(own, key=lambda m: str(m["destination"]).count("/"))


def _linux(container_id: str, settings: ContainerSettings, capabilities: list[str]) -> dict[str, Any]:
    own_network = settings.namespaces.network != "host"
    rules = defaults.device_rules(privileged=settings.privileged)
    devices = []
    for device in settings.devices:
        for node, rule in _devices(device):
            devices.append(node)
            rules.append(rule)
    if settings.privileged:
        devices += [node for node in _host_devices() if node["path"] not in {d["path"] for d in devices}]
    rules += [_device_rule(text) for text in settings.device_cgroup_rules]
    masked = defaults.MASKED_PATHS if settings.masked_paths is None else settings.masked_paths
    readonly = defaults.READONLY_PATHS if settings.readonly_paths is None else settings.readonly_paths
    shows_all = settings.privileged or settings.security.shows_system_paths
    sysctls = defaults.sysctls(own_network=own_network, remapped=settings.idmap is not None)
    linux: dict[str, Any] = {
        "cgroupsPath": f"{settings.cgroup_parent.rstrip('/')}/{container_id}",
        "namespaces": [{"type": "mount"}, *_namespaces(settings)],
        "devices": devices,
        "resources": resources_document(settings.resources) | {"devices": rules},
        "sysctl": sysctls | dict(settings.sysctls),
        "maskedPaths": [] if shows_all else list(masked),
        "readonlyPaths": [] if shows_all else list(readonly),
    }
    if settings.idmap is not None:
        linux["uidMappings"] = [_mapping(settings.idmap.uid_start, settings.idmap.uid_count)]
        linux["gidMappings"] = [_mapping(settings.idmap.gid_start, settings.idmap.gid_count)]
    profile = settings.security.seccomp
    if profile == "default" and not settings.privileged:
        linux["seccomp"] = default_profile(capabilities)
    elif not isinstance(profile, str):
        linux["seccomp"] = profile
    return linux


def _mapping(start: int, count: int) -> dict[str, int]:
    return {"containerID": 0, "hostID": start, "size": count}


def _namespaces(settings: ContainerSettings) -> list[dict[str, str]]:
    result = []
    for kind in _NAMESPACES:
        wanted: str = getattr(settings.namespaces, kind)
        if wanted == "private":
            result.append({"type": kind})
        elif wanted != "host":
            result.append({"type": kind, "path": wanted})
    return result


def _devices(device: Device) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A device node with the rule that lets it be used; a directory stands for all devices in it and below."""
    failed = f'error gathering device information while adding custom device "{device.host_path}"'
    try:
        status = os.stat(device.host_path)
    except OSError as error:
        raise InvalidSetting(f"{failed}: {_in_go_s_words(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        nodes = [
            _node(device.path.rstrip("/") + path.removeprefix(device.host_path.rstrip("/")), found)
            for path, found in _device_files(device.host_path)
        ]
    elif _is_device(status):
        nodes = [_node(device.path, status)]
    else:
        nodes = []
    if not nodes:
        raise InvalidSetting(f"{failed}: not a device node")
    for node in nodes:
        yield node, {"allow": True, "access": device.access, **{key: node[key] for key in ("type", "major", "minor")}}


def _in_go_s_words(error: OSError) -> str:
    """What clients look for in a message, as the exit code of ``docker run`` depends on it."""
    return (error.strerror or str(error)).lower()


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _device_files(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """The device nodes in a directory and below; what every container has of its own is left out."""
    for directory, names, files in os.walk(top):
        names[:] = [n for n in names if n not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev")]
        for name in files:
            path = f"{directory}/{name}"
            with suppress(FileNotFoundError):
                status = os.lstat(path)
                if path != "/dev/console" and _is_device(status):
                    yield path, status


def _node(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _host_devices() -> list[dict[str, Any]]:
    """Every device of the host's /dev, for privileged containers."""
    return [_node(path, status) for path, status in _device_files("/dev")]


def _device_rule(text: str) -> dict[str, Any]:
    """``c 1:3 rwm`` or ``a *:* m``."""
    parts = text.split()
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if len(numbers) != 2 or parts[0] not in ("a", "b", "c") or not set(parts[2]) <= set("rwm"):
        raise InvalidSetting(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": parts[0], "access": parts[2]}
    for key, value in zip(("major", "minor"), numbers, strict=True):
        if value != "*":
            if not value.isdigit():
                raise InvalidSetting(f"invalid device cgroup rule format: '{text}'")
            rule[key] = int(value)
    return rule


def resources_document(resources: Resources) -> dict[str, Any]:
    """Limits as the runtime reads them (runtime-spec, config-linux.md). Raises InvalidSetting for a device that is not there."""
    memory = {
        "limit": resources.memory,
        "swap": resources.memory_swap,
        "reservation": resources.memory_reservation,
        "swappiness": resources.memory_swappiness,
        "disableOOMKiller": resources.oom_kill_disable or None,
    }
    cpu = {
        "shares": resources.cpu_shares,
        "quota": resources.cpu_quota,
        "period": resources.cpu_period,
        "realtimePeriod": resources.cpu_realtime_period,
        "realtimeRuntime": resources.cpu_realtime_runtime,
        "cpus": resources.cpuset_cpus or None,
        "mems": resources.cpuset_mems or None,
    }
    block = {
        "weight": resources.blkio_weight,
        "weightDevice": _throttles(resources.blkio_weight_device, "weight"),
        "throttleReadBpsDevice": _throttles(resources.read_bps, "rate"),
        "throttleWriteBpsDevice": _throttles(resources.write_bps, "rate"),
        "throttleReadIOPSDevice": _throttles(resources.read_iops, "rate"),
        "throttleWriteIOPSDevice": _throttles(resources.write_iops, "rate"),
    }
    pids = {"limit": resources.pids}
    groups: dict[str, dict[str, Any]] = {"memory": memory, "cpu": cpu, "blockIO": block, "pids": pids}
    present = {name: {k: v for k, v in group.items() if v is not None} for name, group in groups.items()}
    return {name: group for name, group in present.items() if group}


def _throttles(throttles: Sequence[Throttle], key: str) -> list[dict[str, int]] | None:
    result = []
    for throttle in throttles:
        try:
            device = os.stat(throttle.path).st_rdev
        except OSError as error:
            raise InvalidSetting(f"stat {throttle.path}: {_in_go_s_words(error)}") from None
        result.append({"major": os.major(device), "minor": os.minor(device), key: throttle.value})
    return result or None
