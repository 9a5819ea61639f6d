"""``RUN --mount``: what a step sees beside its root (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

import csv
import posixpath
from dataclasses import dataclass
from typing import Literal, cast

from lamina.dockerfile.errors import DockerfileError

Kind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}
_TRUTH = {"true": True, "1": True, "": True, "false": False, "0": False}
_PLACES = ("source", "src", "target", "dst", "destination")
_ACCESS = ("ro", "readonly", "rw", "readwrite")
_OWNER = ("mode", "uid", "gid")
_KEYS: dict[str, frozenset[str]] = {
    "bind": frozenset({"from", *_PLACES, *_ACCESS}),
    "cache": frozenset({"id", "from", "sharing", *_PLACES, *_ACCESS, *_OWNER}),
    "tmpfs": frozenset({"size", *_PLACES[2:]}),
    "secret": frozenset({"id", "required", "env", *_PLACES, *_OWNER}),
    "ssh": frozenset({"id", "required", *_PLACES[2:], *_OWNER}),
}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw"}


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
    def parse(cls, text: str) -> RunMount:
        """Read ``type=cache,target=/x,…``. Raises DockerfileError."""
        fields = _fields(text)
        kind = fields.pop("type", "bind")
        if kind not in _KEYS:
            raise DockerfileError(f'unsupported mount type "{kind}"')
        kind = cast(Kind, kind)
        unknown = sorted(set(fields) - {_ALIASES.get(k, k) for k in _KEYS[kind]})
        if unknown:
            raise DockerfileError(f"unexpected key '{unknown[0]}' for mount type '{kind}'")
        if kind in ("bind", "cache", "tmpfs") and not fields.get("target"):
            raise DockerfileError("target is required" if kind == "tmpfs" else f"target is required for {kind} mounts")
        return _completed(kind, fields)


def _fields(text: str) -> dict[str, str]:
    try:
        (row,) = csv.reader([text])
    except (csv.Error, ValueError) as error:
        raise DockerfileError(f"invalid mount {text!r}: {error}") from None
    fields = {}
    for part in row:
        key, equals, value = part.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        if not equals and key not in ("ro", "rw", "required"):
            raise DockerfileError(f"invalid field '{part}' must be a key=value pair")
        fields[key] = value
    return fields


def _completed(kind: Kind, fields: dict[str, str]) -> RunMount:
    target, source = fields.get("target", ""), fields.get("source", "")
    identity = fields.get("id", "")
    read_only = kind == "bind"
    if "rw" in fields:
        read_only = not _truth(fields["rw"])
    if "ro" in fields:
        read_only = _truth(fields["ro"])
    mode = {"cache": 0o755, "secret": 0o400, "ssh": 0o600}.get(kind, 0)
    if kind == "secret":
        identity = identity or source or posixpath.basename(target)
        if not identity:
            raise DockerfileError("secret mount needs an id or a target")
        if not target and not fields.get("env"):
            target = f"/run/secrets/{posixpath.basename(identity)}"
    elif kind == "ssh":
        identity = identity or "default"
    elif kind == "cache":
        identity = identity or target
    return RunMount(
        kind=kind,
        target=target,
        source=source,
        from_=fields.get("from", ""),
        id=identity,
        read_only=read_only,
        sharing=_sharing(fields.get("sharing", "shared")),
        required=_truth(fields["required"]) if "required" in fields else False,
        mode=_octal(fields["mode"]) if "mode" in fields else mode,
        uid=_number("uid", fields.get("uid", "0")),
        gid=_number("gid", fields.get("gid", "0")),
        size=_size(fields["size"]) if "size" in fields else 0,
        env=fields.get("env", ""),
    )


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise DockerfileError(f"invalid value for a mount's option: {text}") from None


def _sharing(text: str) -> Sharing:
    if text not in ("shared", "private", "locked"):
        raise DockerfileError(f'unsupported sharing value "{text}"')
    return cast(Sharing, text)


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise DockerfileError(f"invalid value {text} for mode")
    return mode


def _number(name: str, text: str) -> int:
    if not text.isdigit() or len(text) > 10:
        raise DockerfileError(f"invalid value {text} for {name}")
    return int(text)


def _size(text: str) -> int:
    digits = text.lower().rstrip("bkmg")
    unit = text.lower()[len(digits) :]
    if not digits.isdigit() or unit not in _SIZES:
        raise DockerfileError(f"invalid value for size: {text}")
    return int(digits) * _SIZES[unit]
