"""``--security-opt``: what confines a process beside its capabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lamina.errors import InvalidArgument

Seccomp = Literal["default", "unconfined"] | Mapping[str, Any]
"""A profile: docker's default, none, or one in the words of the runtime specification."""

_TRUE = ("true", "1", "t", "T", "TRUE", "True")
_FALSE = ("false", "0", "f", "F", "FALSE", "False")


@dataclass(frozen=True)
class SecurityOptions:
    """Options, completed. With *shows_system_paths* nothing of /proc and /sys is masked or read-only."""

    seccomp: Seccomp = "default"
    no_new_privileges: bool = False
    apparmor: str | None = None
    shows_system_paths: bool = False

    @classmethod
    def parse(cls, options: Sequence[str]) -> SecurityOptions:
        """``seccomp=…``, ``no-new-privileges``, ``apparmor=…``, ``systempaths=unconfined``. Raises InvalidArgument."""
        result = cls()
        for option in options:
            key, separator, value = option.partition("=" if "=" in option else ":")
            if key == "no-new-privileges":
                result = replace(result, no_new_privileges=_boolean(value, option))
            elif key == "seccomp" and separator:
                result = replace(result, seccomp=_seccomp(value))
            elif key == "apparmor" and separator:
                result = replace(result, apparmor=None if value == "unconfined" else value)
            elif key == "systempaths" and value == "unconfined":
                result = replace(result, shows_system_paths=True)
            elif key == "label" and separator:
                continue  # of SELinux, which labels nothing here, as dockerd without it
            elif separator:
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            else:
                raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        return result


def _boolean(value: str, option: str) -> bool:
    if value not in ("", *_TRUE, *_FALSE):
        raise InvalidArgument(f'invalid --security-opt: "{option}"')
    return value not in _FALSE


def _seccomp(value: str) -> Seccomp:
    if value in ("unconfined", "builtin", "default"):
        return "unconfined" if value == "unconfined" else "default"
    try:
        profile = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from None
    if not isinstance(profile, dict):
        raise InvalidArgument("Decoding seccomp profile failed: not an object")
    return profile
