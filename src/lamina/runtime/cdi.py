"""Devices that a vendor describes: what a container must have beside the device node (Container Device Interface, SPEC.md).

A specification is a JSON or YAML file in /etc/cdi or /var/run/cdi; a device is called ``vendor.com/class=name``. What it says is put
into the runtime's configuration.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lamina.errors import InvalidArgument, LaminaError

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Where specifications lie; what the later says goes before what the earlier says."""
_HOOKS = {
    "prestart": "prestart",
    "createruntime": "createRuntime",
    "createcontainer": "createContainer",
    "startcontainer": "startContainer",
    "poststart": "poststart",
    "poststop": "poststop",
}
_MAXIMUM_BYTES = 8 << 20


class DeviceUnresolvable(LaminaError):
    """No specification has a device, or the one that has it cannot be carried out."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"CDI device injection failed: {reason}")
        self.reason = reason


def check_device_name(name: str) -> None:
    """Refuse what is no ``vendor.com/class=name``. Raises InvalidArgument."""
    kind, equals, device = name.partition("=")
    vendor, slash, category = kind.partition("/")
    if not (vendor and slash and category and equals and device):
        raise InvalidArgument(f"invalid CDI device name: {name!r}: expected vendor/class=name")


def inject(config: dict[str, Any], devices: Sequence[str], directories: Sequence[Path] = DIRECTORIES) -> None:
    """Add to a runtime configuration what some devices need; it is changed in place. Blocking. Raises DeviceUnresolvable."""
    specifications = dict(_specifications(directories))
    missing = [name for name in devices if _device(specifications, name) is None]
    if missing:
        raise DeviceUnresolvable(f"unresolvable CDI devices {', '.join(missing)}")
    done: set[str] = set()
    for name in devices:
        kind = name.partition("=")[0]
        device = _device(specifications, name) or {}
        if kind not in done:
            done.add(kind)
            _edit(config, specifications[kind].get("containerEdits") or {})
        _edit(config, device.get("containerEdits") or {})


def _device(specifications: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    kind, _, device = name.partition("=")
    for found in specifications.get(kind, {}).get("devices") or []:
        if found.get("name") == device:
            return found  # type: ignore[no-any-return]
    return None


def _specifications(directories: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for directory in directories:
        for path in sorted(directory.glob("*")) if directory.is_dir() else []:
            if path.suffix in (".json", ".yaml", ".yml") and path.stat().st_size <= _MAXIMUM_BYTES:
                specification = _read(path)
                kind = specification.get("kind")
                if isinstance(kind, str):
                    yield kind, specification


def _read(path: Path) -> dict[str, Any]:
    """Raises DeviceUnresolvable for a file that is damaged."""
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(data, type=dict[str, Any])
        import yaml  # not before there is such a file

        read = yaml.safe_load(data)
    except Exception as error:
        raise DeviceUnresolvable(f"{path}: {error}") from None
    if not isinstance(read, dict):
        raise DeviceUnresolvable(f"{path}: it is no object")
    return read


def _edit(config: dict[str, Any], edits: Mapping[str, Any]) -> None:
    process, linux = config["process"], config["linux"]
    for entry in edits.get("env") or []:
        name = entry.partition("=")[0]
        process["env"] = [e for e in process["env"] if e.partition("=")[0] != name] + [entry]
    for wanted in edits.get("deviceNodes") or []:
        node, rule = _node(wanted)
        linux["devices"] = [d for d in linux["devices"] if d["path"] != node["path"]] + [node]
        linux["resources"]["devices"].append(rule)
    for wanted in edits.get("mounts") or []:
        options = wanted.get("options") or ["rbind", "ro", "nosuid", "nodev"]
        mount = {"destination": wanted["containerPath"], "source": wanted["hostPath"], "options": options}
        config["mounts"].append(mount | {"type": wanted.get("type") or "bind"})
    for wanted in edits.get("hooks") or []:
        name = _HOOKS.get(str(wanted.get("hookName", "")).lower())
        if name is None:
            raise DeviceUnresolvable(f"invalid hook name {wanted.get('hookName')!r}")
        hook = {key: wanted[key] for key in ("path", "args", "env", "timeout") if wanted.get(key)}
        config.setdefault("hooks", {}).setdefault(name, []).append(hook)
    for gid in edits.get("additionalGids") or []:
        if gid and gid not in process["user"]["additionalGids"]:
            process["user"]["additionalGids"].append(gid)
    if edits.get("intelRdt"):
        raise DeviceUnresolvable("Intel RDT is not supported")


def _node(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A device node and the rule that lets it be used; what the specification leaves open is the host's device's."""
    path, host_path = wanted["path"], wanted.get("hostPath") or wanted["path"]
    kind, major, minor = wanted.get("type"), wanted.get("major"), wanted.get("minor")
    status = None
    if kind is None or (major is None and kind != "p"):
        try:
            status = os.stat(host_path)
        except OSError as error:
            raise DeviceUnresolvable(f"{host_path}: {(error.strerror or str(error)).lower()}") from None
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else "p"
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    node: dict[str, Any] = {"path": path, "type": kind, "major": major or 0, "minor": minor or 0}
    mode = wanted.get("fileMode") or (stat.S_IMODE(status.st_mode) if status is not None else None)
    node |= {
        key: value
        for key, value in (("fileMode", mode), ("uid", wanted.get("uid")), ("gid", wanted.get("gid")))
        if value
    }
    access = wanted.get("permissions") or "rwm"
    return node, {"allow": True, "type": kind, "major": node["major"], "minor": node["minor"], "access": access}
