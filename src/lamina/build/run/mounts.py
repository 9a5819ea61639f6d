"""``RUN --mount``: what a step sees beside its root (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import MountOptions, did_you_mean

Kind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]

_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARINGS = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw"}
_SWITCHES = ("ro", "rw", "required")
_KEYS = ("type", "from", "source", "target", "id", "sharing", "size", "mode", "uid", "gid", "env", *_SWITCHES)
_TRUTH = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_NEEDS_TARGET = {
    "bind": "target is required for bind mounts",
    "cache": "target is required for cache mounts",
    "tmpfs": "target is required",
}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)
_UNITS = " kmgtp"
_LARGEST_ID = (1 << 32) - 2


@dataclass(frozen=True)
class RunMount:
    """One mount, completed by the defaults of its kind; ``mode`` and sizes are numbers, ``target`` may still be relative."""

    kind: Kind
    target: str = ""
    source: str = ""
    from_: str = ""
    id: str = ""
    read_only: bool = True
    sharing: Sharing = "shared"
    required: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""

    @classmethod
    def of(cls, options: MountOptions) -> RunMount:
        """The mount that options ask for whose variables are expanded. Raises DockerfileError."""
        fields = _fields(options)
        kind = cast(Kind, _chosen("mount type", fields.get("type", "bind"), _KINDS))
        _check_keys(kind, fields)
        if kind in _NEEDS_TARGET and not fields.get("target"):
            raise DockerfileError(_NEEDS_TARGET[kind])
        return _completed(kind, fields)


def _fields(options: MountOptions) -> dict[str, str]:
    """The values by their keys; ``rw`` is ``ro`` the other way round, and a switch without a value is on."""
    fields: dict[str, str] = {}
    for written, value in options:
        key = _ALIASES.get(written, written)
        field = written if value is None else f"{written}={value}"
        if key not in _KEYS:
            raise DockerfileError(
                f"unexpected key '{written}' in '{field}'{did_you_mean(written, (*_KEYS, *_ALIASES))}"
            )
        if value is None and key not in _SWITCHES:
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
        if key in _SWITCHES:
            is_on = value is None or _truth(written, value)
            key, value = ("ro", str(not is_on)) if key == "rw" else (key, str(is_on))
        fields[key] = value or ""
    return fields


def _check_keys(kind: Kind, fields: Mapping[str, str]) -> None:
    """Refuse what means nothing for a kind of mount, in BuildKit's words. Raises DockerfileError."""
    for key, kinds in (("required", ("secret", "ssh")), ("size", ("tmpfs",))):
        if key in fields and kind not in kinds:
            raise DockerfileError(f"unexpected key '{key}' for mount type '{kind}'")
    for key in ("mode", "uid", "gid"):
        if key in fields and kind not in ("cache", "secret", "ssh"):
            raise DockerfileError(f'{key} not allowed for "{kind}" type mounts')
    if kind == "secret":
        _check_secret(fields)
    if fields.get("sharing") and kind != "cache":
        raise DockerfileError(f"invalid cache sharing set for {kind} mount")


def _check_secret(fields: Mapping[str, str]) -> None:
    if fields.get("from"):
        raise DockerfileError("secret mount should not have a from")
    if fields.get("sharing"):
        raise DockerfileError("secret mount should not define sharing")
    if not any(fields.get(key) for key in ("source", "target", "id")):
        raise DockerfileError("invalid secret mount. one of source, target required")
    if fields.get("source") and fields.get("id"):
        raise DockerfileError("both source and id can't be set")


def _completed(kind: Kind, fields: Mapping[str, str]) -> RunMount:
    target, source = fields.get("target", ""), fields.get("source", "")
    identity = fields.get("id", "")
    if kind == "secret":
        identity = identity or source or posixpath.basename(target)
        if not target and not fields.get("env"):
            target = f"/run/secrets/{posixpath.basename(identity)}"
    elif kind == "ssh":
        identity = identity or "default"
    elif kind == "cache":
        identity = identity or _clean(target)
    mode = {"cache": 0o755, "secret": 0o400, "ssh": 0o600}.get(kind, 0)
    return RunMount(
        kind=kind,
        target=target,
        source=source,
        from_=fields.get("from", ""),
        id=identity,
        read_only=fields.get("ro", str(kind not in ("cache", "tmpfs"))) == str(True),
        sharing=cast(Sharing, _chosen("sharing value", fields.get("sharing") or "shared", _SHARINGS)),
        required=fields.get("required") == str(True),
        mode=_mode(fields["mode"]) if "mode" in fields else mode,
        uid=_number("uid", fields.get("uid", "0")),
        gid=_number("gid", fields.get("gid", "0")),
        size=_size(fields["size"]) if "size" in fields else 0,
        env=fields.get("env", ""),
    )


def _chosen(what: str, text: str, known: tuple[str, ...]) -> str:
    if text.lower() not in known:
        raise DockerfileError(f'unsupported {what} "{text}"{did_you_mean(text.lower(), known)}')
    return text.lower()


def _truth(key: str, text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise DockerfileError(f"invalid value for {key}: {text}") from None


def _clean(path: str) -> str:
    """Go's path.Clean: of two slashes at the beginning, which normpath leaves, one is enough."""
    return re.sub("^/+", "/", posixpath.normpath(path))


def _mode(text: str) -> int:
    if not re.fullmatch("[0-7]{1,11}", text) or int(text, 8) > 0o7777:
        raise DockerfileError(f"invalid value {text} for mode")
    return int(text, 8)


def _number(key: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > _LARGEST_ID:
        raise DockerfileError(f"invalid value {text} for {key}")
    return int(text)


def _size(text: str) -> int:
    """Bytes of ``1.5m``, ``64MiB`` or ``100``: units are powers of 1024 (go-units' RAMInBytes)."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise DockerfileError(f"invalid value for size: {text}")
    return int(float(match[1]) * 1024 ** _UNITS.index((match[2] or " ").lower()))
