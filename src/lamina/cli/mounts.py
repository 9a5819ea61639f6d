"""``--mount`` and ``-v`` as the API's mounts and binds. Errors are ValueErrors in docker's words."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lamina.cli.grammar import truth
from lamina.cli.values import csv_fields, parse_size

_Set = Callable[[dict[str, Any], str, str], None]
_SAY_TRUE = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive"})
_OPTIONS = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}
_RECURSIVE = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}


def parse_mount(text: str) -> dict[str, Any]:
    """``type=bind,source=…,target=…,readonly``: fields of a line of comma-separated values."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key in _SAY_TRUE:
            value = "true"
        elif not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if key not in _FIELDS:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        _FIELDS[key](mount, key, value)
    _check(mount)
    return mount


def _check(mount: dict[str, Any]) -> None:
    if not mount["Type"]:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for kind, options in _OPTIONS.items():
        if options in mount and mount["Type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
        raise ValueError("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive"):
        if not mount.get("ReadOnly"):
            raise ValueError("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if bind.get("Propagation") != "rprivate":
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            )


def _text(field: str, *, lower: bool = False) -> _Set:
    def put(mount: dict[str, Any], key: str, value: str) -> None:
        mount[field] = value.lower() if lower else value

    return put


def _source(mount: dict[str, Any], key: str, value: str) -> None:
    mount["Source"] = os.path.abspath(value) if value == "." or value.startswith("./") else value


def _read_only(mount: dict[str, Any], key: str, value: str) -> None:
    mount["ReadOnly"] = _boolean(key, value)


def _option(group: str, field: str, read: Callable[[str, str], Any]) -> _Set:
    def put(mount: dict[str, Any], key: str, value: str) -> None:
        mount.setdefault(group, {})[field] = read(key, value)

    return put


def _bind_recursive(mount: dict[str, Any], key: str, value: str) -> None:
    if value not in _RECURSIVE:
        raise ValueError(f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")')
    mount.setdefault("BindOptions", {}).update(_RECURSIVE[value])


def _volume_label(mount: dict[str, Any], key: str, value: str) -> None:
    name, _, text = value.partition("=")
    mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = text


def _volume_driver(mount: dict[str, Any], key: str, value: str) -> None:
    mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value


def _volume_opt(mount: dict[str, Any], key: str, value: str) -> None:
    name, _, text = value.partition("=")
    driver = mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
    driver.setdefault("Options", {})[name] = text


def _boolean(key: str, value: str) -> bool:
    try:
        return truth(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _size(key: str, value: str) -> int:
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _mode(key: str, value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _as_it_is(key: str, value: str) -> str:
    return value


_FIELDS: dict[str, _Set] = {
    "type": _text("Type", lower=True),
    **dict.fromkeys(("source", "src"), _source),
    **dict.fromkeys(("target", "dst", "destination"), _text("Target")),
    **dict.fromkeys(("readonly", "ro"), _read_only),
    "consistency": _text("Consistency", lower=True),
    "bind-propagation": _option("BindOptions", "Propagation", lambda key, value: value.lower()),
    "bind-nonrecursive": _option("BindOptions", "NonRecursive", _boolean),
    "bind-recursive": _bind_recursive,
    "volume-subpath": _option("VolumeOptions", "Subpath", _as_it_is),
    "volume-nocopy": _option("VolumeOptions", "NoCopy", _boolean),
    "volume-label": _volume_label,
    "volume-driver": _volume_driver,
    "volume-opt": _volume_opt,
    "image-subpath": _option("ImageOptions", "Subpath", _as_it_is),
    "tmpfs-size": _option("TmpfsOptions", "SizeBytes", _size),
    "tmpfs-mode": _option("TmpfsOptions", "Mode", _mode),
}


def binds_and_volumes(texts: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """What ``-v`` says: binds of a path or a volume, and paths that get volumes without a name.

    A source that begins with a dot is a path from here; the daemon would take it for a name.
    """
    binds, volumes = [], {}
    for text in texts:
        source, colon, rest = text.partition(":")
        if not text or (colon and not rest) or text.startswith(":"):
            raise ValueError(f"invalid volume specification: '{text}'" if text else "invalid empty volume spec")
        if not colon:
            volumes[text] = dict[str, str]()
        else:
            binds.append(f"{os.path.abspath(source) if source.startswith('.') else source}:{rest}")
    return binds, volumes
